"""Counts of a model's weights, and of the bytes that training it takes."""

import math
from typing import Any


def parameters(model: Any) -> tuple[int, int]:
    """(all weights, those that learn)."""
    sizes = [(numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


def numel(parameter: Any) -> int:
    """Weights of a parameter; NF4 holds two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(math.prod(state.shape)) if state is not None else int(parameter.numel())
