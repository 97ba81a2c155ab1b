"""Resolves the base model: its tokenizer, its weights or where they are, and base.json that pins what they are.

`tiny` is made here (train/tiny.py). For a Hugging Face id or a local folder only the tokenizer is copied; base.json points at the rest.
`OUT_DIR/model` exists only for `tiny`; otherwise load `base["model"]` at `base["revision"]`.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field

from curate.params import params_class
from curate.record import InputError
from curate.stage import command, say
from curate.store import whole_folder
from curate.template import load_template
from train import tiny

WEIGHTS = ("*.safetensors", "*.bin")
NOT_FACTS = ("is_local", "local_files_only", "name_or_path", "_commit_hash", "_from_auto")  # where it was read, not what it is


@params_class
class Tiny:
    """`params.yaml: base.tiny`."""

    vocab_size: Annotated[int, Field(ge=320, le=65536)]
    hidden_size: Annotated[int, Field(ge=16, le=4096)]
    layers: Annotated[int, Field(ge=1, le=48)]
    heads: Annotated[int, Field(ge=1, le=64)]
    context: Annotated[int, Field(ge=16, le=8192)]
    steps: Annotated[int, Field(ge=1)]
    batch_tokens: Annotated[int, Field(ge=16)]
    lr: Annotated[float, Field(gt=0, le=0.1)]
    text_mb: Annotated[float, Field(gt=0, le=1024)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Annotated[int, Field(ge=1, le=256)]

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of twice the heads ({self.heads}): rotary pairs")
        if self.batch_tokens < self.context:
            raise ValueError(f"batch_tokens {self.batch_tokens} must be at least context ({self.context})")


@params_class
class Params:
    """`params.yaml: base`."""

    model: Annotated[str, Field(min_length=1)]
    revision: str | None
    tiny: Tiny

    def __post_init__(self) -> None:
        if self.model == "tiny" and self.revision is not None:
            raise ValueError(f"model 'tiny' has no revision ({self.revision!r}); set base.revision to null")


def build(data: Path, out: Path, params: Params) -> None:
    """Write `out`: tokenizer/, base.json, and for `tiny` model/. Raises InputError if the model or the text cannot be used."""
    with whole_folder(out) as partial:
        if params.model == "tiny":
            base = _tiny(data, partial, params)
        elif Path(params.model).expanduser().is_dir():
            base = _local(partial, params)
        else:
            base = _hub(partial, params)
        (partial / "base.json").write_bytes(orjson.dumps(base, option=orjson.OPT_INDENT_2) + b"\n")
    say(f"base: {base['name']}, {base['parameters']:,} parameters, context {base['context']:,}, vocabulary {base['vocab']:,} -> {out}")


def _tiny(data: Path, partial: Path, params: Params) -> dict[str, Any]:
    setting = params.tiny
    messages = tiny.messages(data, int(setting.text_mb * 1e6), setting.seed)
    tokenizer = tiny.make_tokenizer([message.content for message in messages], setting.vocab_size, setting.context)
    tokenizer.chat_template = load_template("chatml", partial)
    _save_tokenizer(tokenizer, partial / "tokenizer")
    windows = tiny.windows(messages, tokenizer, setting.context)
    shape = tiny.Shape(len(tokenizer), setting.hidden_size, setting.layers, setting.heads, setting.context)
    schedule = tiny.Schedule(setting.steps, setting.batch_tokens, setting.lr, setting.seed, setting.threads)
    model, loss = tiny.pretrain(windows, shape, schedule, tokenizer)
    model.save_pretrained(partial / "model")
    base = _facts("tiny", "tiny", None, model.config, model.num_parameters(), _sha256(partial / "model"))
    return base | {"final_loss": round(loss, 4)}


def _local(partial: Path, params: Params) -> dict[str, Any]:
    folder = Path(params.model).expanduser()
    if params.revision is not None:
        raise InputError(f"base.revision = '{params.revision}': {folder} is a local folder and has no revisions. Set it to null.")
    missing = [name for name, there in (("config.json", (folder / "config.json").is_file()), ("weights", _weights(folder))) if not there]
    if missing:
        raise InputError(
            f"base.model = '{params.model}': this folder holds no {' and no '.join(missing)} (*.safetensors or *.bin). "
            f"Name a folder written by save_pretrained, a Hugging Face id, or tiny."
        )
    config, count = _load(str(folder), None, partial)
    return _facts(folder.name, "local", None, config, count, _sha256(folder)) | {"model": str(folder)}


def _hub(partial: Path, params: Params) -> dict[str, Any]:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", params.model) or params.model.startswith("."):
        raise InputError(
            f"base.model = '{params.model}': no such folder, and no Hugging Face id (owner/name) either. "
            f"Give a folder with config.json, an id, or tiny."
        )
    config, count = _load(params.model, params.revision, partial)
    commit = getattr(config, "_commit_hash", None)
    if commit is None:
        raise InputError(
            f"base.model = '{params.model}': the hub gave no commit hash, so its revision cannot be pinned. Set base.revision."
        )
    return _facts(params.model, "hub", commit, config, count, None)


def _load(model: str, revision: str | None, partial: Path) -> tuple[Any, int]:
    """The configuration and number of parameters; the tokenizer is saved on the way, of exactly the commit of the configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(model, revision=revision or "main")
        tokenizer = AutoTokenizer.from_pretrained(model, revision=getattr(config, "_commit_hash", None) or revision or "main")
        with torch.device("meta"):  # shapes only: no weights are read, no memory is taken
            count = AutoModelForCausalLM.from_config(config).num_parameters()
    except Exception as error:  # the libraries raise many kinds; each means that this model cannot be had here
        at = f" at revision '{revision}'" if revision else ""
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"base.model = '{model}'{at} cannot be loaded. Tried its configuration and tokenizer ({type(error).__name__}: {said}). "
            f"Check the spelling and the network (HF_HUB_OFFLINE must not be 1; a gated model needs `hf auth login`), "
            f"name a local folder with config.json, or use base.model=tiny, which needs no network."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"base.model = '{model}': its tokenizer has no fast form (tokenizer.json), which Finery needs. Choose another model."
        )
    _save_tokenizer(tokenizer, partial / "tokenizer")
    return config, int(count)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """save_pretrained, without the keys that say where and how it was read: the same tokenizer gives the same bytes."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {key: value for key, value in orjson.loads(path.read_bytes()).items() if key not in NOT_FACTS}
    path.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def _facts(name: str, kind: str, revision: str | None, config: Any, parameters: int, sha256: dict[str, str] | None) -> dict[str, Any]:
    text = config.get_text_config()
    return {
        "name": name,
        "model": "model" if kind == "tiny" else name,  # what to load: a folder beside base.json, an id, or a local folder
        "revision": revision,
        "kind": kind,
        "parameters": parameters,
        "context": getattr(text, "max_position_embeddings", None) or 0,
        "vocab": text.vocab_size,
        "sha256": sha256,
    }


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))


def _sha256(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in _weights(folder):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


if __name__ == "__main__":
    command("base", "train.base", Params, build, ["data"])
