"""Attention over packs on a GPU: each row of a pack by itself, in the fused kernel for rows of different lengths.

With torch's ordinary attention (`sdpa`) a pack needs a mask of tokens x tokens, which rules out the fast kernel and takes memory. This
kernel (torch.nn.attention.varlen, Flash Attention) takes the borders of the rows instead, which TRL's collator gives with every batch.
"""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from curate.stage import say

NAME = "varlen"
WIDEST = 256  # numbers a head, the most that the kernel takes
CLOSE = 2**-4  # of the largest output: two bf16 attentions differ by some units in the last of eight bits


def use(model: Any) -> bool:
    """Switch the model to this attention if it works there, and say whether it does; else it stays as it was.

    Tried on a pack of two rows: outputs must be those of the rows alone up to rounding, and another first row must not change the second
    by a single bit, for a model that does not pass the borders on would let rows see each other.
    """
    if not next(model.parameters()).is_cuda or torch.cuda.get_device_capability() < (8, 0) or not _plain(model):
        return False
    before, why = model.config._attn_implementation, "rows of a pack would see each other"
    try:
        model.set_attn_implementation(NAME)
        if _works(model, before):
            return True
    except (
        RuntimeError,
        ValueError,
        TypeError,
        ImportError,
        AttributeError,
    ) as error:  # kernels and architectures each raise their own kind
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    model.set_attn_implementation(before)
    say(f"train: attention stays {before}, which is slower on packs: this base does not take {NAME} ({why}).")
    return False


def _plain(model: Any) -> bool:
    """Whether attention is only scaled and causal: no dropout, no cap of the scores, no window, heads that are not too wide."""
    text = model.config.get_text_config()
    if getattr(text, "attention_dropout", 0.0):
        return False
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return width <= WIDEST and not (getattr(text, "attn_logit_softcapping", None) or getattr(text, "sliding_window", None))


def _works(model: Any, before: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    first, other, second = (torch.randint(vocabulary, (size,), generator=generator) for size in (40, 40, 24))
    one, two = _packed(model, [first, second]), _packed(model, [other, second])
    model.set_attn_implementation(before)
    alone = torch.cat([_packed(model, [row]) for row in (first, second)])
    model.set_attn_implementation(NAME)
    return torch.equal(one[len(first) :], two[len(first) :]) and bool((one - alone).abs().max() <= CLOSE * alone.abs().max())


def _packed(model: Any, rows: list[torch.Tensor]) -> torch.Tensor:
    """Outputs (tokens, vocabulary) of the rows in one pack."""
    lengths = torch.tensor([len(row) for row in rows])
    borders = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(model.device, torch.int32)
    longest = int(lengths.max())
    training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, dtype=torch.bfloat16):
        found: torch.Tensor = model(
            input_ids=torch.cat(rows)[None].to(model.device),
            position_ids=torch.cat([torch.arange(len(row)) for row in rows])[None].to(model.device),
            cu_seq_lens_q=borders, cu_seq_lens_k=borders, max_length_q=longest, max_length_k=longest, use_cache=False,
        ).logits[0].float()  # fmt: skip
    model.train(training)
    return found


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
    scaling: float | None = None, **given: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention (batch, heads, tokens, width) -> (batch, tokens, heads, width).

    Batches without borders are not packs. Where they are padded, it is on the right, where causal attention never looks: no mask is needed.
    """
    borders = given.get("cu_seq_lens_q")
    if borders is None:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, is_causal=True)
    from torch.nn.attention.varlen import varlen_attn

    half = query.dtype if query.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    q, k, v = (each.transpose(1, 2).flatten(0, 1).to(half) for each in (query, key, value))
    borders, longest, shared = borders.int(), int(given["max_length_q"]), query.shape[1] != key.shape[1]
    out = varlen_attn(q, k, v, borders, borders, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=shared)
    assert isinstance(out, torch.Tensor)
    return out.to(query.dtype).view(query.shape[0], query.shape[2], *out.shape[1:]), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, flash_attention_mask)
