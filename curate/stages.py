"""The stages that make the dataset, in order: the words that name modules, params sections, dvc.yaml stages and folders under data/."""

STAGES = (
    "ingest", "clean", "dedup_exact", "scrub", "dedup_near", "review", "dedup_semantic", "decontaminate", "split", "augment", "leakage",
    "format",
)  # fmt: skip
