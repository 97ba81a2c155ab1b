"""What can be trained how: the one table of methods, adapters and roundings, with the reason for every combination that is refused.

Pure: nothing is loaded, so that a run that cannot end well stops before any model is read.
"""

METHODS = ("sft", "pretrain", "dpo", "orpo", "kto", "reward", "grpo", "classify")
ADAPTERS = ("lora", "dora", "rslora", "ia3", "prompt", "prefix", "full")
QUANTIZE = ("none", "int8", "nf4")
PAIRS = ("dpo", "orpo", "kto", "reward")  # methods that learn from preference rows
HEADS = ("reward", "classify")  # methods whose model ends in a head that scores, not in one that writes
PACKED = ("sft", "pretrain")  # methods whose rows may share a sequence
SHARES = {"dpo": 1 / 8, "orpo": 1 / 8, "kto": 1 / 8, "grpo": 1 / 8, "reward": 1 / 4}  # of the learning rate of sft
VIRTUAL = ("prompt", "prefix")  # adapters that are tokens put before the row, not changes of the weights
MERGED = ("lora", "dora", "rslora", "ia3")  # adapters that can be folded into the base's weights


def refusal(method: str, adapter: str, quantize: str) -> str | None:
    """Why these three do not go together, with what to do instead; None where they do.

    >>> refusal("sft", "lora", "nf4") is None
    True
    >>> refusal("sft", "full", "nf4")
    'adapter full needs quantize none: rounded weights cannot be trained. Use adapter lora, or quantize none'
    """
    if adapter == "full" and quantize != "none":
        return "adapter full needs quantize none: rounded weights cannot be trained. Use adapter lora, or quantize none"
    if adapter == "dora" and quantize == "int8":
        return "adapter dora needs the norms of the base's columns, which PEFT cannot read from int8 weights. Use nf4, or adapter lora"
    if method in HEADS and adapter in VIRTUAL:
        return (
            f"method {method} scores the state of one token of the row, and the virtual tokens of adapter {adapter} shift which one. "
            "Use adapter lora"
        )
    if method == "orpo" and adapter == "prompt":
        return (
            "method orpo compares outputs and tokens place by place, and the virtual tokens of adapter prompt shift them. Use adapter lora"
        )
    return None


def setting_refusal(
    method: str, adapter: str, packing: bool, gradient_checkpointing: bool, batch_size: int, accumulation: int, generations: int
) -> str | None:
    """Why these settings do not go with the method or the adapter; None where they do."""
    if adapter in VIRTUAL and packing and method in PACKED:
        return f"packing: only the first row of a pack would see the virtual tokens of adapter {adapter}. Set packing: false"
    if adapter == "prefix" and gradient_checkpointing:
        return "gradient_checkpointing drops the cache that adapter prefix is made of. Set gradient_checkpointing: false"
    if method == "kto" and batch_size < 2:
        return "method kto compares each row with another one of its batch: batch_size must be 2 or more (4 is a fair start)"
    if method == "grpo" and generations < 2:
        return "method grpo compares the answers to one prompt with each other: generations must be 2 or more"
    if method == "grpo" and batch_size % generations:
        return f"method grpo: batch_size ({batch_size}) must be a multiple of generations ({generations}): a batch holds whole groups"
    return None


def batch_size(method: str, packing: bool, generations: int) -> int:
    """Rows of a forward pass where `batch_size` is auto: the fewest with which the method compares, more where rows are short."""
    if method in PACKED:
        return 1 if packing else 4
    return {"kto": 4, "grpo": generations, "classify": 8}.get(method, 2)


def learning_rate(method: str, adapter: str, tiny: bool) -> float:
    """The rate where `learning_rate` is auto: on the tiny base ten to twenty times that of a model of the hub, and for what compares
    answers an eighth of what it is for imitation.

    >>> learning_rate("sft", "lora", tiny=False), learning_rate("dpo", "lora", tiny=True)
    (0.0002, 0.0005)
    """
    whole = 0.001 if tiny else 0.00001
    rate = whole if adapter == "full" else 0.004 if tiny else 0.0002
    return rate * SHARES.get(method, 1.0)


def merge_refusal(adapter: str) -> str | None:
    """Why an adapter cannot be merged into its base; None where it can."""
    if adapter in VIRTUAL:
        return f"adapter {adapter} changes no weight of the base: its virtual tokens stand before the prompt. Serve it with PEFT"
    if adapter == "full":
        return "adapter full is a whole model already: serve the adapter folder itself"
    return None
