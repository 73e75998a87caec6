"""Figure, table and report of `experiments.pretrained`: accuracy along training, and the gradient that reaches the
embedding, for embeddings that begin at random or with pretrained vectors.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, report, style
from analysis.claims import Verdict
from analysis.judged import MEAN, after_an_epoch, embedding_gradient, embedding_gradients
from analysis.selection import ACCURACY, at_chosen
from analysis.style import spread
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

COLORS = (style.BLACK, style.BLUE, style.ORANGE, style.VERMILION)
FIRST, LAST = f"gradient of the embedding, first {MEAN} updates", f"last {MEAN}"


class Kind(NamedTuple):
    """One way to begin."""

    name: str
    ds: "xr.Dataset"
    """Its runs."""
    epoch: int
    """Updates of an epoch."""


def kinds(out: str | Path) -> list[Kind]:
    """Random first, then frozen, thawed, trainable."""
    found = []
    for part in (Path(out) / "random", Path(out) / "pretrained"):
        ds, epoch = load(part), manifest.experiment(part).settings["updates per epoch"]
        thaw = ds["thaw"].values
        for value in sorted(set(thaw), reverse=True):
            name = {0.0: "trained", np.inf: "frozen"}.get(value, f"thawed at {value:g}")
            name = "random" if part.name == "random" else f"pretrained, {name}"
            found.append(Kind(name, ds.isel(run=np.flatnonzero(thaw == value)), epoch))
    return found


def summary(found: list[Kind]) -> list[dict[str, Any]]:
    """A row per way to begin, a value a seed: accuracies, and ‖∂L/∂E‖, means over the first and last updates."""
    rows = []
    for kind in found:
        first, last = embedding_gradients(kind.ds)
        rows.append(
            {
                "embedding": kind.name,
                "test": at_chosen(kind.ds, "test_accuracy", ACCURACY),
                "validation": after_an_epoch(kind.ds, kind.epoch),
                "gradient_first": first,
                "gradient_last": last,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    return [
        {
            "embedding": r["embedding"],
            "test, chosen on validation": spread(r["test"]),
            "validation after an epoch": spread(r["validation"]),
            FIRST: spread(r["gradient_first"], 4),
            LAST: spread(r["gradient_last"], 4),
        }
        for r in rows
    ]


def training(found: list[Kind]) -> Figure:
    """Left: validation accuracy; right: the embedding's gradient."""
    fig, axes = style.panels(1, 2, 2.1)
    left, right = axes[0]
    drawn = []
    for kind, color, dashes in zip(found, COLORS, (*style.DASHES, "-"), strict=False):
        line: dict[str, Any] = dict(color=color, linestyle=dashes, label=kind.name)
        x = kind.ds["probe_step"].values / kind.epoch
        style.median_band(left, x, kind.ds["validation_accuracy"].values, **line)
        at, gradient = style.smoothed(embedding_gradient(kind.ds))
        drawn.append(style.median_band(right, at / kind.epoch, gradient, **line))
    style.log_axis(axes[:, 1:], drawn)
    left.set_ylabel("validation accuracy")
    right.set_ylabel("‖∂L/∂E‖, E the embedding")
    for ax in axes[0]:
        ax.set_xlabel("epoch")
    style.legend(fig, style.drawn(axes))
    return fig


def text(rows: list[dict[str, str]]) -> list[str]:
    """The table in sentences."""
    said = (
        f"{r['embedding'].capitalize()}: validation accuracy {r['validation after an epoch']} after an epoch, test "
        f"{r['test, chosen on validation']} at the look chosen on validation; the embedding's gradient is "
        f"{r[FIRST]} at first and {r[LAST]} at the end."
        for r in rows
    )
    return [" ".join(said)]


def figures(found: list[Kind]) -> Iterator[report.Drawn]:
    """All ways to begin."""
    yield (
        "training",
        training(found),
        "Random, or pretrained vectors that are frozen, thawed at that update, or trained from the start. Left: "
        "accuracy on the validation split. Right: norm of the gradient that reaches the embedding, also where it is "
        "frozen; means over updates. Medians and quartiles over seeds.",
    )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a directory of runs, and prints the table and where the files lie; the page has the verdicts."""
    out, found = Path(out), kinds(out)
    rows, title = table(summary(found)), "What pretrained word vectors change"
    tables = [("Means ± standard deviations over seeds", rows), *claims.tables(verdicts)]
    return report.publish(out / "random", title, text(rows), figures(found), tables, into=out)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
