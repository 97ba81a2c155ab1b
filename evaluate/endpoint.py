"""An OpenAI-compatible server as one more system: it continues the very prompts that the other systems see (`/completions`).

Answers alone are compared: a server tells no losses of given texts that every server would tell alike.
"""

import http.client
import os
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import orjson
import xxhash
from pydantic import Field

from curate.params import params_class
from curate.record import InputError, StageFailure
from curate.stage import say
from evaluate import ask, inference, journal
from evaluate.ask import Questions, Row

FAILED_SHARE = 0.5  # more failed answers than this say something of the server and nothing of the model
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


@params_class
class Endpoint:
    """`params.yaml: evaluate.endpoint`."""

    url: str  # up to and with /v1
    model: str
    key_env: str | None = None  # environment variable that holds the key
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    retries: Annotated[int, Field(ge=0, le=10)] = 4
    wait_s: Annotated[float, Field(ge=0, le=60)] = 1.0  # before the first retry, doubled for each more
    parallel: Annotated[int, Field(ge=1, le=256)] = 4

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url '{self.url}' must begin with http:// or https://, such as http://127.0.0.1:8000/v1")


class Unreachable(Exception):
    """No server answered, after all retries."""


class Refused(InputError):
    """A server will not do what it is asked; `code` is the HTTP status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def answers(server: Endpoint, tokenizer: Any, questions: Questions, most: int) -> list[Row]:
    """One row per item, as `ask.ask` gives them but without losses.

    Raises InputError (the server refuses: wrong key, model or address), StageFailure (no server, or most answers failed); what was
    answered until then stays on the shelf, and the next run goes on from there.
    """
    items, counts = questions.items, Counter[str]()
    prompts = [tokenizer.decode(items[at].ids[: items[at].start].tolist()) for at in questions.chosen]
    key = xxhash.xxh3_64_hexdigest("\0".join([server.url, server.model, str(most), *prompts]).encode())
    path = questions.shelf / f"endpoint-{key}.answers.jsonl"
    questions.used.add(path)
    stops = sorted({tokenizer.decode([int(items[at].ids[items[at].stop - 1])]) for at in questions.chosen})[:4]

    def work(batch: Sequence[int]) -> list[Row]:
        with ThreadPoolExecutor(server.parallel) as pool:
            made = list(pool.map(lambda at: _answer(server, prompts[at], stops, most, counts), batch))
        return [
            ask.record_of(questions, at, prompts[at], text, stop, tokens) | {"prompt_tokens": items[questions.chosen[at]].start}
            for at, (text, stop, tokens) in zip(batch, made, strict=True)
        ]

    batches = [list(range(at, min(at + server.parallel, len(prompts)))) for at in range(0, len(prompts), server.parallel)]
    try:
        journal.run(path, "evaluate (endpoint: answers)", batches, work)
    except Unreachable as error:
        raise StageFailure(
            f"evaluate.endpoint: {error}. Start it, or set evaluate.endpoint: null. Answers so far are kept: run again and it goes on."
        ) from None
    finally:
        if counts:
            say(f"evaluate: endpoint: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    found = {questions.chosen[row["item"]]: row for row in journal.read(path)}
    failed = sum(row["stop"] == "failed" for row in found.values())
    if failed > FAILED_SHARE * len(found):
        path.unlink()
        raise StageFailure(
            f"evaluate.endpoint: {failed} of {len(found)} answers of {server.url} failed, in spite of {server.retries} retries."
        )
    nothing: Row = {"loss_sum": None, "loss": None, "answer_loss": None, "other_id": None, "other_loss": None, "prompt_gain": None}
    rows = []
    for at, item in enumerate(items):
        made = found.get(at, {})
        same: Row = {"asked": ask.asked(item.ids[: item.start]), "tokens": int(item.trained.sum())}
        rows.append(nothing | same | {"output": made.get("output"), "stop": made.get("stop")})
    return rows


def _answer(server: Endpoint, prompt: str, stops: Sequence[str], most: int, counts: Counter[str]) -> tuple[str | None, inference.Stop, int]:
    request = {"model": server.model, "prompt": prompt, "max_tokens": most, "temperature": 0, "stop": list(stops)}
    made = post(server, "/completions", request, _read, counts)
    return made if made is not None else (None, "failed", 0)


def _read(answer: Any) -> tuple[str, inference.Stop, int]:
    """Text, stop reason and number of tokens. Raises KeyError, IndexError or TypeError if the answer is not what the API promises."""
    choice = answer["choices"][0]
    tokens = (answer.get("usage") or {}).get("completion_tokens")
    return str(choice["text"]).strip(), "length" if choice.get("finish_reason") == "length" else "end", int(tokens or 0)


def post(server: Endpoint, path: str, request: dict[str, Any], read: Any, counts: Counter[str], name: str = "evaluate.endpoint") -> Any:
    """What `read` finds in the server's answer; None if it stays slow, busy or malformed after all retries, each counted in `counts`.

    Raises Refused for other refusals (wrong key, model, address; `name` is the setting at fault), Unreachable where nothing answers.
    """
    what = ""
    for attempt in range(server.retries + 1):
        wait = server.wait_s * 2**attempt
        try:
            return read(_send(server, path, request, name))
        except urllib.error.HTTPError as error:
            if error.code != 429 and error.code < 500:
                said = error.read(300).decode(errors="replace").replace("\n", " ")
                raise Refused(f"{name}: {server.url}{path} refuses (HTTP {error.code}): {said}", error.code) from None
            what = f"HTTP {error.code}"
            after = error.headers.get("Retry-After", "")
            wait = float(after) if after.isdigit() else wait
        except (TimeoutError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            what = "timeouts" if isinstance(reason, TimeoutError) else "broken connections"
            if attempt == server.retries and isinstance(reason, ConnectionRefusedError):
                raise Unreachable(f"no server answers at {server.url} ({reason})") from None
        except (ValueError, KeyError, IndexError, TypeError):
            what = "malformed answers"
        counts[what] += 1
        if attempt < server.retries:
            time.sleep(min(wait, LONGEST_WAIT))
    counts["items given up"] += 1
    return None


def _send(server: Endpoint, path: str, request: dict[str, Any], name: str) -> Any:
    headers = {"Content-Type": "application/json"}
    if server.key_env is not None:
        key = os.environ.get(server.key_env)
        if not key:
            raise InputError(f"{name}.key_env: the environment variable {server.key_env} is not set. Export it, or set null.")
        headers["Authorization"] = f"Bearer {key}"
    sent = urllib.request.Request(server.url.rstrip("/") + path, orjson.dumps(request), headers)
    with urllib.request.urlopen(sent, timeout=server.timeout_s) as answer:
        return orjson.loads(answer.read())  # stricter than json: no half of a surrogate pair, which no file could hold
