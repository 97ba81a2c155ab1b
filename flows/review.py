"""The review: decide about single rows in the browser, before training.

    python -m flows.review [--reviewer NAME] [--port N]

Shows the rows that reach the review stage (after scrub: no original of a scrubbed value), in queues: suspicious, near a threshold, personal
data left, a random sample, each label. What is decided goes to data/decisions.jsonl; the next `dvc repro` applies it. See docs/review.md.
"""

import argparse
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from curate.params import check_section, read_params
from curate.pii.settings import ScrubParams
from curate.record import FineryError, ParamsError
from curate.stage import guarded, say
from flows.reviewing.api import Review, Settings
from flows.reviewing.server import Server

PORT, SAMPLE, SEED = 8765, 300, 17


def settings(
    data: Path,
    params: Path,
    decisions: Path | None = None,
    benchmarks: Path | None = None,
    reviewer: str = "",
    sample: int = SAMPLE,
    seed: int = SEED,
) -> Settings:
    """The command line and params.yaml. Raises ParamsError for a value that is impossible."""
    if sample < 1:
        raise ParamsError("--sample: expected 1 or more.")
    sections = read_params(params)
    scrub = check_section(sections, "scrub", ScrubParams, params)
    try:
        threshold = float(sections["dedup_near"]["threshold"])
    except (KeyError, TypeError, ValueError):
        raise ParamsError(f"{params}: dedup_near.threshold is missing or no number.") from None
    return Settings(
        data, decisions or data / "decisions.jsonl", benchmarks or data / "benchmarks", reviewer, sample, seed, threshold, scrub
    )


def serve(chosen: Settings, port: int) -> None:
    """Serve until interrupted."""
    review = Review(chosen)
    server = Server(review, port)
    print(
        f"{review.rows.count:,} rows. Open this in a browser on this machine; the address lets in whoever has it:\n\n  {server.url}\n",
        flush=True,
    )
    say("Stop with Ctrl-C. Decisions are on the disk as soon as the page says so.")
    threading.Thread(target=_warm, args=(review,), daemon=True).start()
    before = review.journal.count
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    review.journal.refresh()
    made = review.journal.count - before
    say(
        f"review: {made:,} decision{'s' if made != 1 else ''} added to {chosen.decisions}." + (" `dvc repro` applies them." if made else "")
    )


def _warm(review: Review) -> None:
    try:
        review.warm()
    except FineryError as error:
        say(f"review: {error}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.review", description="Decide about single rows in the browser.")
    parser.add_argument(
        "--reviewer",
        default=os.environ.get("USER", ""),
        metavar="NAME",
        help="who decides (default: your user name; the page can change it)",
    )
    parser.add_argument("--port", type=int, default=PORT, help="port on this machine; 0: any that is free (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=SAMPLE, metavar="ROWS", help="rows of the random sample (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed, another sample (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the stages' outputs (default: %(default)s)"
    )
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="default: DIR/decisions.jsonl")
    parser.add_argument("--benchmarks", type=Path, metavar="DIR", help="default: DIR/benchmarks")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    options = parser.parse_args(arguments)

    def work() -> None:
        if not 0 <= options.port < 65536:
            raise ParamsError("--port: expected 0 to 65535.")
        chosen = settings(
            options.data, options.params, options.decisions, options.benchmarks, options.reviewer, options.sample, options.seed
        )
        serve(chosen, options.port)

    guarded("review", work)


if __name__ == "__main__":
    main()
