"""Figures, table and report of `experiments.augmentation`: examples before and after, test error against the number of
training examples with and without, and the gradient's reach."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from analysis import claims, lags, outcomes, report, style
from analysis.claims import Verdict
from analysis.learned import unfinished
from analysis.selection import at_chosen, settled
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

EXAMPLES = "examples.npz"
"""Of a run directory: what the experiment shows of each change."""
COLORS = {"without": style.BLACK, "with": style.BLUE, "flipped": style.VERMILION}
TITLES = {
    "vowels": "Japanese vowels",
    "digits": "digits",
    "MNIST": "MNIST",
    "tumours": "breast cancer",
    "spoken": "spoken digits",
    "reviews": "film reviews",
}
"""In the order in which they are shown."""


VALUES = ("error", "settled_error", "reach", "settled_reach")
"""What `columns` says of a run."""


class Measured(NamedTuple):
    """One data set with some training examples; arrays have an entry a run."""

    error: Float[np.ndarray, " run"]
    """Of the test split, in percent, at the look that validation chose."""
    horizon: Float[np.ndarray, " run"]
    """At the end of training, in lags."""
    reach: Float[np.ndarray, " run"]
    """‖∂L/∂h‖ half a sequence back over that at lag 0, at the end of training."""
    strengths: Float[np.ndarray, " run"]
    settled: np.ndarray
    """Runs with what keeps the label, at the strength that validation chose."""


def measured(ds: "xr.Dataset") -> Measured:
    """Of the runs of a part."""
    norms, strengths = lags.stage(ds, "adjoint_norm", 1.0)[:, -1], ds["strength"].values
    changed = np.flatnonzero((ds["label"].values == "kept") & (strengths != 0))
    return Measured(
        100 * (1 - at_chosen(ds, "test_accuracy")),
        lags.horizon(norms),
        lags.relative(norms)[:, norms.shape[1] // 2],
        strengths,
        changed[strengths[changed] == settled(ds, "strength", runs=changed)],
    )


def columns(*parts: Path) -> "xr.Dataset":
    """What claims are about, one value a run: `Measured.error` and the log₂ of `reach`; the same `settled_…`, NaN but
    of the runs with what keeps the label at the strength that validation chose. Runs that are unfinished are NaN."""

    def of(part: Path) -> dict[str, np.ndarray]:
        ds = load(part).load()
        found, done = measured(ds), ~unfinished(ds)
        there = np.isin(np.arange(len(done)), found.settled)
        with np.errstate(divide="ignore"):
            every = {"error": found.error, "reach": np.log2(found.reach)}
        values = {name: np.where(done, of_it, np.nan) for name, of_it in every.items()}
        return values | {f"settled_{name}": np.where(there, v, np.nan) for name, v in values.items()}

    return outcomes.gathered(parts, of)


class Row(NamedTuple):
    """One data set with some training examples, trained in one way; arrays have an entry a seed."""

    data: str
    examples: int
    way: str
    """'without', 'with', or 'flipped'."""
    strength: float
    """Chosen by validation; 0 without, the largest where images are flipped."""
    error: Float[np.ndarray, " seed"]
    """As in `Measured`."""
    horizon: Float[np.ndarray, " seed"]
    reach: Float[np.ndarray, " seed"]
    steps: int


def summary(out: Path) -> list[Row]:
    """In the order of `TITLES`, examples, ways."""
    found = []
    for part in report.parts(out, "augmentation").values():
        experiment = manifest.experiment(part)
        ds, noted = load(part).load(), experiment.settings
        one, label = measured(ds), ds["label"].values
        strengths = one.strengths
        picked = {"without": np.flatnonzero((label == "kept") & (strengths == 0)), "with": one.settled}
        picked["flipped"] = np.flatnonzero((label == "flipped") & (strengths == strengths.max()))
        for way, runs in picked.items():
            if len(runs):
                values = (float(strengths[runs[0]]), one.error[runs], one.horizon[runs], one.reach[runs])
                found.append(Row(noted["set"], noted["examples"], way, *values, experiment.specs[0].steps))
    ways, sets = list(COLORS), list(TITLES)
    return sorted(found, key=lambda r: (sets.index(r.data), r.examples, ways.index(r.way)))


def paired(found: Sequence[Row], row: Row) -> Row:
    """The same without."""
    return next(r for r in found if (r.data, r.examples, r.way) == (row.data, row.examples, "without"))


def table(found: Sequence[Row]) -> list[dict[str, str]]:
    """For the reader."""
    lines = []
    for r in found:
        censored = np.median(r.horizon) >= r.steps
        lines.append(
            {
                "data": TITLES[r.data],
                "training examples": f"{r.examples:,}",
                "augmentation": r.way,
                "strength": f"{r.strength:g}",
                "test error (%)": style.spread(r.error, 1),
                "difference": "–" if r.way == "without" else style.interval(r.error - paired(found, r).error),
                "horizon (lags)": f"{'≥' if censored else ''}{np.median(r.horizon):g} of {r.steps}",
                "gradient at T/2": lags.number(float(np.median(r.reach))),
            }
        )
    return lines


def text(found: Sequence[Row]) -> list[str]:
    """Where it helps, where it harms, and where nobody can tell."""
    said: list[str] = []
    for data in dict.fromkeys(r.data for r in found):
        clauses = []
        for r in (r for r in found if r.data == data and r.way != "without"):
            plain = paired(found, r)
            verdict = {1: "more", 0: "within the noise", -1: "less"}[style.sign(r.error - plain.error)]
            kind = "with flips" if r.way == "flipped" else "augmented"
            clauses.append(
                f"{r.examples:,} examples {kind} {r.error.mean():.1f}% against {plain.error.mean():.1f}% ({verdict})"
            )
        said.append(f"{TITLES[data]}: test error of {', '.join(clauses)}.")
    said.append(
        "Less and more are read off the 95% interval (Student's t) of the differences between runs of the same seed, "
        f"{len(found[0].error)} seeds; it says nothing of other test sets."
    )
    return [" ".join(said)]


def errors(found: Sequence[Row]) -> Figure:
    """Test error and the gradient's reach against training examples, a column a data set."""
    drawn = []
    sets = list(dict.fromkeys(r.data for r in found))
    fig, axes = style.panels(2, len(sets), 1.55, sharex="col")
    fig.set_figwidth(min(style.PAGE, 1.6 + 1.8 * len(sets)))
    for j, data in enumerate(sets):
        for way, dashes in zip(COLORS, style.DASHES, strict=True):
            mine = [r for r in found if (r.data, r.way) == (data, way)]
            if not mine:
                continue
            x = np.array([r.examples for r in mine])
            line: dict[str, Any] = dict(color=COLORS[way], linestyle=dashes)
            label = "flipped" if way == "flipped" else f"{way} augmentation"
            means, reach = np.transpose([style.mean_reach(r.error) for r in mine])
            axes[0, j].errorbar(x, means, yerr=reach, label=label, marker="o", markersize=3, capsize=2, **line)
            ratios = np.stack([r.reach for r in mine], axis=1)
            drawn.append(style.median_band(axes[1, j], x, ratios, marker="o", markersize=3, **line))
        sizes = sorted({r.examples for r in found if r.data == data})
        axes[0, j].set_ylim(0, 1.4 * max(r.error.mean() for r in found if r.data == data))
        axes[1, j].set_xscale("log")
        axes[1, j].xaxis.set_major_locator(FixedLocator(sizes))
        axes[1, j].xaxis.set_minor_locator(NullLocator())
        axes[1, j].set_xticklabels([f"{n}" for n in sizes])
    style.log_axis(axes[1:], drawn)
    style.frame(axes, ["", ""], [TITLES[data] for data in sets], "training examples")
    axes[0, 0].set_ylabel("test error (%)")
    axes[1, 0].set_ylabel("‖∂L/∂h$_{T/2}$‖ / ‖∂L/∂h$_T$‖")
    style.legend(fig, style.drawn(axes[:1]))
    return fig


def _named(name: str) -> str:
    return name.replace("_", " ")


def curves(examples: dict[str, np.ndarray], kind: str) -> Figure:
    """Numbers before (grey) and after each change of a series or a table."""
    names = _changes(examples, kind)
    fig, axes = style.panels(1, len(names), 1.5, sharex=True, sharey=True)
    fig.set_figwidth(min(style.PAGE, 1.2 + 1.75 * len(names)))
    for ax, name in zip(axes[0], names, strict=True):
        before, after = (examples[f"{kind}/{name}/{when}"] for when in ("before", "after"))
        t = np.arange(1, len(before) + 1)
        mark = {} if kind == "series" else dict(marker="o", markersize=2.5, linestyle="none")
        draws = after if kind == "series" else after[:1]  # three would hide each other's points
        for draw, color in zip(draws, (style.BLUE, style.ORANGE, style.GREEN), strict=False):
            ax.plot(t, draw[:, 0], color=color, linewidth=0.9, **mark)
        ax.plot(t, before[:, 0], color="0.4", linewidth=1.6, zorder=0, **mark | ({"markersize": 5} if mark else {}))
        ax.set(title=_named(name), xlabel="frame" if kind == "series" else "feature")
    axes[0, 0].set_ylabel("first coefficient" if kind == "series" else "scaled value")
    return fig


def pictures(examples: dict[str, np.ndarray]) -> Figure:
    """A digit before, first column, and after each change, the others."""
    names = _changes(examples, "images")
    wide = 1 + len(examples[f"images/{names[0]}/after"])
    half = -(-len(names) // 2)
    ratios = [1.0] * wide + [0.4] + [1.0] * wide
    fig, axes = style.panels(half, 2 * wide + 1, 0.85, gridspec_kw={"width_ratios": ratios})
    fig.set_figwidth(0.95 * style.PAGE)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, name in enumerate(names):
        row, left = i % half, (i // half) * (wide + 1)
        before, after = (examples[f"images/{name}/{when}"] for when in ("before", "after"))
        for k, one in enumerate([before, *after]):
            ax, side = axes[row, left + k], len(one)
            image = one.reshape(side, side, -1)
            ax.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
            if k < 2:
                ax.set_title(("before", _named(name))[k], pad=2, color=("0.5", "black")[k])
    return fig


def spectra(examples: dict[str, np.ndarray]) -> Figure:
    """The log-mel frames of a spoken digit before and after each change, on one time axis."""
    names = ["before", *(n for n in _changes(examples, "audio") if n != "before")]
    fig, axes = style.panels(1, len(names), 1.5, sharex=True, sharey=True)
    fig.set_figwidth(style.PAGE)
    for ax, name in zip(axes[0], names, strict=True):
        frames = examples[f"audio/{name}"]
        ax.imshow(frames.T, origin="lower", aspect="auto", cmap="magma", vmin=-2, vmax=2.5, interpolation="nearest")
        ax.set(title=_named(name), xlabel="frame (16 ms)")
    axes[0, 0].set_xlim(-0.5, max(len(examples[f"audio/{n}"]) for n in names) - 0.5)
    axes[0, 0].set_ylabel("mel band")
    return fig


def _changes(examples: dict[str, np.ndarray], kind: str) -> list[str]:
    return list(dict.fromkeys(name.split("/")[1] for name in examples if name.startswith(f"{kind}/")))


def words(examples: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """Reviews before and after, a line each."""
    lines = []
    for name, (before, after) in ((name, found) for name, found in examples.items() if name.startswith("text/")):
        lines.append({"change": _named(name.split("/")[1]), "before": str(before), "after": str(after)})
    return lines


CAPTION = (
    "Above: test error at the look and strength that validation chose, against training examples (log axis); means and "
    "95% intervals over seeds (Student's t). Flipped: every second image left for right, which makes another sign of a "
    "digit. Below: the norm of the gradient half a sequence back over that at the last step, at the end of training; "
    "medians and quartiles."
)
SHOWN = {
    "series": "One of 12 coefficients of spoken vowels before (grey) and after three draws of each change, strength 1.",
    "tables": "The features of a tumour before (grey) and after each change, at strength 1.",
    "images": "A six before, and three draws of each change at strength 1; flipped, it is no digit.",
    "audio": "Log-mel frames of a spoken digit, standardised, before and after a change of each kind.",
}
"""Captions of the examples."""


def figures(found: Sequence[Row], examples: dict[str, np.ndarray]) -> Iterator[report.Drawn]:
    """What it is worth, and what it does to examples."""
    yield "augmentation", errors(found), CAPTION
    for kind, caption in SHOWN.items():
        if _changes(examples, kind):
            drawn = {"images": pictures, "audio": spectra}.get(kind)
            yield f"augmented_{kind}", drawn(examples) if drawn else curves(examples, kind), caption


def show(out: Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and prints its table and where the figures lie; the page has the verdicts."""
    first = next(iter(report.parts(out, "augmentation").values()))
    found = summary(out)
    examples = dict(np.load(out / EXAMPLES)) if (out / EXAMPLES).exists() else {}
    tables = [
        ("Means ± standard deviations over seeds; difference: 95% interval against without", table(found)),
        ("Ends of reviews before and after; in brackets what differs", words(examples)),
        *claims.tables(verdicts),
    ]
    return report.publish(first, "What augmentation is worth", text(found), figures(found, examples), tables, into=out)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
