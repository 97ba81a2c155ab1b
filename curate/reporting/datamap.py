"""A map of the dataset: rows whose texts are alike lie near each other. The vectors of a sample in two dimensions: by their first two
principal components, or by UMAP (McInnes, Healy and Melville 2018) where `report.map` asks for it and umap-learn is installed.

Kept rows are those of the sample that outliers are looked for in (`outliers.py`); removed ones are of the stages after scrub, whose texts
may be shown. Every point says on hovering which row it is and how it begins.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from threadpoolctl import threadpool_limits

from curate import record, store, vectors
from curate.record import ParamsError
from curate.reporting import rows, wordvectors
from curate.reporting.charts import percent, svg, tag
from curate.reporting.gather import NO_LABEL, Stage, shortened
from curate.reporting.layout import Given
from curate.reporting.outliers import Sample

KEPT, REMOVED = 1200, 300  # points at most
COLOURED = 10  # labels with a colour of their own
TEXT = 140  # characters of a row that a point tells
EDGE = 0.02  # margin of the picture, as a share of it
STAGES = ("dedup_near", "dedup_semantic", "decontaminate")  # the removed rows of these are scrubbed


@dataclass(frozen=True)
class Map:
    """The picture, and what its colours mean."""

    picture: Markup
    labels: list[tuple[str, str]]  # (css class, label)
    splits: list[str]
    removed: dict[str, int]  # points by stage that removed them
    kept: int
    made_by: str
    explained: float | None  # share of the variance that the two axes show; None for UMAP, whose axes mean nothing


def shown(given: Given, numbers: dict[str, Any]) -> Map | None:
    """None where there are too few rows with a vector to make a map."""
    looked = given.suspicious.looked
    order = np.sort(np.argsort(record.draws(looked.rows["id"]), kind="stable")[:KEPT])
    kept, its = looked.rows[order], looked.vectors[order].astype(np.float64)
    gone, other = _removed(given.found, looked, given.suspicious.weights)
    texts = _texts(given.found, kept)
    whole = pl.concat(
        [
            kept.select("source", "line", "label", "split", pl.lit("").alias("stage"), texts.alias("text")),
            gone.select("source", "line", "label", pl.lit("").alias("split"), "stage", "text"),
        ]
    )
    held = np.concatenate((its, other))
    some = np.flatnonzero(np.any(held, axis=1))
    if len(some) < 3:
        return None
    inside = int((some < kept.height).sum())
    with threadpool_limits(1):
        if given.sections["report"]["map"] == "umap":
            places, explained = neighbours(held[some], kept=inside), None
        else:
            places, explained = principal(held[some], kept=inside)
    points = whole[some]
    named = (
        points.filter(pl.col("stage") == "")["label"].fill_null(NO_LABEL).value_counts().sort(["count", "label"], descending=[True, False])
    )
    colours = {label: f"c{at}" for at, label in enumerate(named["label"].head(COLOURED))}
    return Map(
        _picture(points, places, colours),
        [(css, shortened(label, 40)) for label, css in colours.items()],
        [split for split in record.SPLITS if (points["split"] == split).any()],
        dict(points.filter(pl.col("stage") != "").group_by("stage").len().sort("stage").rows()),
        int((points["stage"] == "").sum()),
        looked.made_by,
        explained,
    )


def principal(held: np.ndarray, kept: int) -> tuple[np.ndarray, float]:
    """((n, 2) from 0 to 1, share of variance): the first two principal components of the first `kept` rows, and where all rows lie on them.

    >>> places, share = principal(np.array([[0.0, 0, 1], [2, 0, 1], [4, 0, 1], [2, 1, 1]]), 4)
    >>> places[:3, 0].round(2).tolist(), round(share, 2)
    ([0.0, 0.5, 1.0], 1.0)
    """
    mean = held[:kept].mean(axis=0)
    centred = held - mean
    gram = centred[:kept].T @ centred[:kept]
    values, directions = np.linalg.eigh(gram)
    axes = directions[:, [-1, -2]]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)  # a component has no sign of its own
    return _from_0_to_1(centred @ axes, kept), float(values[-2:].sum() / max(values.sum(), 1e-12))


def neighbours(held: np.ndarray, kept: int) -> np.ndarray:
    """(n, 2) from 0 to 1 by UMAP with its own settings: fitted to the first `kept` rows, the others placed among them. The same on every
    run with the same versions. Raises ParamsError where umap-learn is not installed."""
    made = load_umap().UMAP(random_state=0, n_jobs=1, n_neighbors=min(15, kept - 1), init="spectral" if kept > 20 else "random")
    fitted: np.ndarray = made.fit_transform(held[:kept])
    return _from_0_to_1(np.concatenate((fitted, made.transform(held[kept:]))) if kept < len(held) else fitted, kept)


def load_umap() -> Any:
    """The module, which is no dependency of Finery."""
    try:
        return importlib.import_module("umap")
    except ImportError:
        raise ParamsError(
            "params.yaml: report.map: `umap` needs umap-learn, which is not installed: `pip install umap-learn`, or `pca`."
        ) from None


def _from_0_to_1(found: np.ndarray, kept: int) -> np.ndarray:
    low, high = np.percentile(found[:kept], (0.5, 99.5), axis=0)  # some far rows must not press all others together
    places: np.ndarray = np.clip((found - low) / np.where(high > low, high - low, 1), 0, 1)
    return places


def _picture(points: pl.DataFrame, places: np.ndarray, colours: dict[str, str]) -> Markup:
    inner, parts = 1 - 2 * EDGE, []
    for (source, line, label, split, stage, text), (x, y) in zip(points.rows(), places, strict=True):
        name = label if label is not None else NO_LABEL
        fate = f"removed by {stage}" if stage else split or "kept"
        told = f"{source}:{line} · {shortened(name, 60)} · {fate}\n{text}"
        css = f"dot {'gone' if stage else 'here'} {colours.get(name, 'cx')} {split}".strip()
        at = {"cx": percent(EDGE + inner * x), "cy": percent(EDGE + inner * (1 - y)), "r": 3}
        parts.append(tag("circle", tag("title", told), class_=css, **at))
    return svg("Map of the rows: like texts lie near each other", parts)


def _texts(found: dict[str, Stage], kept: pl.DataFrame) -> pl.Series:
    """How each of the rows begins."""
    folder = [stage for name, stage in found.items() if name != "format"][-1].folder
    texts: dict[str, str] = {}
    for batch in rows.batches(folder):
        for key, text in batch.join(kept, on=["id", "source", "line"], how="semi", maintain_order="left").select("id", "text").rows():
            texts.setdefault(key, (text or "")[:TEXT])
    return pl.Series("text", [texts.get(key, "") for key in kept["id"]], dtype=pl.String)


def _removed(found: dict[str, Stage], looked: Sample, weights: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
    """Some removed rows (source, line, label, stage, text) with vectors of the same kind as the kept ones have."""
    columns = {
        "id": pl.String(),
        "source": pl.String(),
        "line": pl.Int64(),
        "label": pl.String(),
        "text": pl.String(),
        "stage": pl.String(),
    }
    taken: list[tuple[Any, ...]] = []  # values, not frames: these would hold the texts of the whole batches
    for name in STAGES:
        if name not in found:
            continue
        before = list(found)[list(found).index(name) - 1]  # ingest at least
        ids = pl.concat([batch.select("id") for batch in found[name].batches(columns=["id"])] or [pl.DataFrame(schema={"id": pl.String()})])
        drawn = ids.unique(maintain_order=True)
        chosen = drawn[np.argsort(record.draws(drawn["id"]), kind="stable")[: REMOVED // len(STAGES)]] if drawn.height else drawn
        for batch in store.batches(found[before].folder, ["id", "source", "line", "label", "messages"]):
            taken += [(*row, name) for row in _with_text(batch.join(chosen, on="id", how="semi", maintain_order="left")).rows()]
    gone = pl.DataFrame(taken, schema=columns, orient="row").unique(["stage", "id"], keep="first", maintain_order=True)
    if looked.made_by == "words and letters":
        made = wordvectors.vectors(gone["text"], weights)
    else:
        made = np.zeros((gone.height, looked.vectors.shape[1]))
        path = found["dedup_semantic"].folder / vectors.NAME if "dedup_semantic" in found else None
        if path is not None and path.exists():
            vectors.fill(made, gone.select(pl.int_range(pl.len()).alias("place"), "id"), path)
    return gone.with_columns(pl.col("text").str.slice(0, TEXT)), made


def _with_text(batch: pl.DataFrame) -> pl.DataFrame:
    sides = record.prompt_and_answer(batch)
    text = pl.select(pl.when(sides["prompt"].str.contains(r"\S")).then(sides["prompt"]).otherwise(sides["answer"])).to_series()
    return batch.select("id", "source", "line", "label").with_columns(text.alias("text"))
