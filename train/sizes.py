"""Counts of a model's weights, and of the bytes that training it takes: from the configuration alone, without weights or accelerator.

Activations are counted, not guessed: one forward pass runs on torch's `meta` device, which computes shapes and no values, and every tensor
that autograd keeps for the way back is added up. Attention is counted as the fused kernels keep it (queries, keys, values, output).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight in 4 bits, a byte a block of 64, doubly quantised in blocks of 256
INT8_BYTES = 1.0
FP32 = 4
CONTEXT = 0.6 * 2**30  # bytes that CUDA itself and its libraries take on the device


@dataclass(frozen=True)
class Memory:
    """Bytes by part. `reference`: a second base (dpo and kto of all weights)."""

    weights: float
    adapter: float
    gradients: float
    optimiser: float
    activations: float
    logits: float
    reference: float
    device: float

    @property
    def total(self) -> float:
        return float(sum(vars(self).values()))


def parameters(model: Any) -> tuple[int, int]:
    """(all weights, those that learn)."""
    sizes = [(numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


def numel(parameter: Any) -> int:
    """Weights of a parameter; NF4 holds two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(math.prod(state.shape)) if state is not None else int(parameter.numel())


def weight_bytes(model: Any, quantize: str, bytes_each: int, heads: tuple[str, ...]) -> float:
    """Bytes of the base's weights. Rounded are the weights of linear layers, all but the output's."""
    total, seen = 0.0, set()
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        linear = isinstance(module, torch.nn.Linear) and module is not output and name.rpartition(".")[2] not in heads
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            rounded = {"nf4": NF4_BYTES, "int8": INT8_BYTES}.get(quantize) if linear and key == "weight" else None
            total += parameter.numel() * (rounded if rounded is not None else bytes_each)
    return total


class _Fused(torch.autograd.Function):
    """Attention as far as memory goes."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("counted, never run backwards")


@contextmanager
def _fused_attention() -> Iterator[None]:
    whole = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return _Fused.apply(query, key, value)

    torch.nn.functional.scaled_dot_product_attention = counted  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = whole


def saved_bytes(model: Any, forward: Callable[[], Any], fused: bool = True) -> int:
    """Bytes of distinct tensors that autograd keeps of `forward()`, without the model's own weights."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if fused:
            with _fused_attention():
                held = forward()
        else:
            held = forward()
        total = int(sum(storage.nbytes() for storage in kept.values()))
    del held
    return total


def activations(body: Any, rows: int, length: int, layers: int, checkpointing: bool, bytes_each: int) -> float:
    """Bytes kept of one forward pass of the body (all but the head); with checkpointing each layer's input, and one layer in full."""
    ids = torch.zeros((rows, length), dtype=torch.long, device="meta")
    mask = torch.zeros((rows, 1, length, length), device="meta", dtype=body.dtype)  # given, since making one looks at values
    body.train()
    total = saved_bytes(body, lambda: body(input_ids=ids, attention_mask=mask)[0])
    if not checkpointing:
        return float(total)
    width = int(getattr(body.config.get_text_config(), "hidden_size", 0))
    return layers * rows * length * width * bytes_each + total / max(layers, 1)
