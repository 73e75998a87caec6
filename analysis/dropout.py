"""Figures, table and report of `experiments.dropout`: what each kind does to the gap between training and
validation, and to the gradient's way back; Monte Carlo evaluation against the network without dropout.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import claims, lags, monte_carlo, outcomes, report, style
from analysis.claims import Verdict
from analysis.lags import axis, picked, stage
from analysis.learned import unfinished
from analysis.selection import at_chosen, settled
from analysis.style import spread
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr


class Setting(NamedTuple):
    """A kind at a rate: one value a seed, accuracies in percent."""

    kind: str
    rate: float
    train: Float[np.ndarray, " seed"]
    """At the last look, without dropout, as are the next two."""
    validation: Float[np.ndarray, " seed"]
    gap: Float[np.ndarray, " seed"]
    """Training − validation accuracy."""
    chosen: Float[np.ndarray, " seed"]
    """Validation accuracy at the look with the least validation loss."""
    test: Float[np.ndarray, " seed"]
    """There, too."""
    start: Float[np.ndarray, "seed lag"]
    """‖∂L/∂h_t‖ at initialisation, with dropout on."""
    norms: Float[np.ndarray, "seed lag"]
    """At the end of training."""


def of(ds: "xr.Dataset", kind: str, rate: float) -> Setting:
    """What the records say of one setting."""
    runs = picked(ds, label=kind, dropout=np.float32(rate)) if kind != "none" else np.arange(ds.sizes["run"])
    train, validation = (100 * ds[f"{split}_accuracy"].values[runs, -1] for split in ("train", "validation"))
    chosen, test = (100 * at_chosen(ds, f"{split}_accuracy")[runs] for split in ("validation", "test"))
    start, end = (stage(ds.isel(run=runs), "adjoint_norm", at)[:, -1] for at in lags.STAGES.values())
    return Setting(kind, rate, train, validation, train - validation, chosen, test, start, end)


def read(done: Mapping[str, Path]) -> tuple[Setting, dict[str, list[Setting]]]:
    """(none, every kind's settings by ascending rate)."""
    none, kinds = load(done["none"]).load(), load(done["kinds"]).load()
    rates = axis(kinds, "dropout")
    return of(none, "none", 0.0), {kind: [of(kinds, kind, rate) for rate in rates] for kind in axis(kinds, "label")}


VALUES = (*outcomes.VALUES, "gap", "test")
"""What `columns` says of a run."""


def columns(*parts: Path) -> "xr.Dataset":
    """`outcomes.columns`, and

    gap: training − validation accuracy at the last look; test: the test accuracy at the look with the least validation
        loss; both in percent.
    """

    def measured(part: Path) -> Mapping[str, np.ndarray]:
        ds = load(part)
        train, validation = (100 * ds[f"{split}_accuracy"].values[:, -1] for split in ("train", "validation"))
        test = np.where(unfinished(ds), np.nan, 100 * at_chosen(ds, "test_accuracy"))
        return outcomes.measured(part) | {"gap": train - validation, "test": test}

    return outcomes.gathered(parts, measured)


# --- the table ----------------------------------------------------------------------------------------------


def summary(done: Mapping[str, Path], none: Setting, kinds: Mapping[str, Sequence[Setting]]) -> list[Setting]:
    """None, and each kind at the rate with the least validation loss (mean over seeds, each at its chosen look)."""
    ds = load(done["kinds"])
    best = {kind: settled(ds, "dropout", runs=picked(ds, label=kind)) for kind in kinds}
    return [none, *(next(s for s in of_kind if s.rate == best[kind]) for kind, of_kind in kinds.items())]


def table(chosen: Sequence[Setting]) -> list[dict[str, str]]:
    """For the reader."""
    none, lines = chosen[0], []
    for s in chosen:
        lines.append(
            {
                "dropped": s.kind.replace("_", " "),
                "rate": f"{s.rate:g}" if s is not none else "–",
                "training, at the end": spread(s.train, 1),
                "gap, at the end": spread(s.gap, 1),
                "gap against none": style.interval(s.gap - none.gap) if s is not none else "–",
                "validation, chosen": spread(s.chosen, 1),
                "test, chosen": spread(s.test, 1),
                "test against none": style.interval(s.test - none.test) if s is not none else "–",
            }
            | lags.before_after(lags.reaches({"start": s.start, "end": s.norms}), ("start", "end"))
        )
    return lines


def text(chosen: Sequence[Setting], kinds: Mapping[str, Sequence[Setting]]) -> list[str]:
    """What the table says, computed: gaps, tests, reaches."""
    none, dropping = chosen[0], chosen[1:]

    def formatted(settings: Sequence[Setting]) -> str:
        return ", ".join(f"{s.kind.replace('_', ' ')} ({s.rate:g})" for s in settings) or "no kind"

    narrower = [s for s in dropping if style.sign(s.gap - none.gap) < 0]
    better = [s for s in dropping if style.sign(s.test - none.test) > 0]
    worse = [s for s in dropping if style.sign(s.test - none.test) < 0]
    last = [of_kind[-1] for of_kind in kinds.values()]
    reach = {s.kind: lags.reaches({"start": s.start, "end": s.norms}) for s in [none, *last]}
    horizons = {kind.replace("_", " "): lags.before_after(r, ("start", "end"))["horizon"] for kind, r in reach.items()}
    return [
        f"Without dropout training ends {none.gap.mean():.1f} points of accuracy above validation. At the rate that "
        f"validation chose the gap is narrower than that with {formatted(narrower)}; the test accuracy is better with "
        f"{formatted(better)}, worse with {formatted(worse)}, and within the noise with the others (95% intervals, "
        f"Student's t of the differences seed by seed, {len(none.test)} seeds). The median horizon, at initialisation "
        f"→ at the end of training, is {horizons.pop('none')} lags without dropout, and at rate {last[0].rate:g}: "
        + ", ".join(f"{kind} {lag}" for kind, lag in horizons.items())
        + "."
    ]


# --- figures ------------------------------------------------------------------------------------------------


def panels_of(kinds: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    """A panel a kind, four a row, with its name."""
    fig, _, axes = style.wrapped(len(kinds), 4, height, sharex=True, sharey=True)
    for ax, kind in zip(axes, kinds, strict=True):
        ax.set_title(kind.replace("_", " "))
    return fig, axes


def by_rate(none: Setting, kinds: Mapping[str, Sequence[Setting]]) -> Figure:
    """Accuracies and their gap against the rate."""
    fig, axes = panels_of(list(kinds), 1.5)
    for ax, of_kind in zip(axes, kinds.values(), strict=True):
        settings = [none, *of_kind]
        rates = np.array([s.rate for s in settings])
        for name, color, face, moved, label in (
            ("train", "0.45", "white", -0.008, "training, at the end"),
            ("validation", style.BLUE, style.BLUE, 0.0, "validation, at the end"),
            ("test", style.VERMILION, style.VERMILION, 0.008, "test, at the chosen look"),
        ):
            means, reach = np.transpose([style.mean_reach(getattr(s, name)) for s in settings])
            line: dict[str, Any] = dict(color=color, markerfacecolor=face, marker="o", markersize=3.5, linewidth=1)
            ax.errorbar(rates + moved, means, yerr=reach, capsize=2, label=label, **line)
        ax.set_xlabel("rate")
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.grid(axis="y", linewidth=0.3)
    for ax in axes[::4]:
        ax.set_ylabel("accuracy (%)")
    style.legend(fig, style.drawn(np.array(axes[:1])))
    return fig


def by_lag(none: Setting, kinds: Mapping[str, Sequence[Setting]]) -> Figure:
    """‖∂L/∂h_t‖ over its value at lag 0 against the lag, a panel a kind, a curve a rate."""
    fig, axes = panels_of(list(kinds), 1.45)
    shades = style.shades(max(map(len, kinds.values())))
    drawn = []
    for ax, of_kind in zip(axes, kinds.values(), strict=True):
        for s, color in zip([none, *of_kind], [style.BLACK, *shades], strict=False):
            there = lags.relative(s.norms)
            label = f"rate {s.rate:g}" if s.rate else "none"
            drawn.append(style.median_band(ax, np.arange(there.shape[1]), there, color=color, label=label))
        ax.set_xlabel("lag T − t (steps)")
        ax.axhline(lags.FAINT, color="0.6", linewidth=0.8, linestyle=style.DASHES[2], label="horizon: 1%")
    style.log_axis(np.array(axes), drawn)
    for ax in axes[::4]:
        ax.set_ylabel("‖∂L/∂h$_t$‖ / ‖∂L/∂h$_T$‖")
    style.legend(fig, style.drawn(np.array(axes[:1])))
    return fig


CAPTIONS = {
    "dropout_rates": "Accuracy against the rate of each kind of dropout, means with 95% intervals over seeds "
    "(Student's t); rate 0 is the network without. Training (the whole split, evaluated without dropout) and "
    "validation at the last look: their distance is the gap; test at the look with the least validation loss.",
    "dropout_gradient": "How far the gradient reaches at the end of training, with dropout on: ‖∂L/∂h_t‖ over its "
    "value at lag 0, medians and quartiles over seeds. Dotted: 1%, where the horizon is read.",
}


def figures(
    none: Setting, kinds: Mapping[str, Sequence[Setting]], found: Sequence[monte_carlo.Pair]
) -> Iterator[report.Drawn]:
    """Accuracies, norms, and both evaluations."""
    yield "dropout_rates", by_rate(none, kinds), CAPTIONS["dropout_rates"]
    yield "dropout_gradient", by_lag(none, kinds), CAPTIONS["dropout_gradient"]
    if found:
        yield "monte_carlo", monte_carlo.by_pair(found), monte_carlo.CAPTION


def show(done: Mapping[str, Path], verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws the experiments of a directory, and prints their tables and where the figures lie; the page has the
    verdicts."""
    none, kinds = read(done)
    chosen, found = summary(done, none, kinds), monte_carlo.pairs(done)
    tables = [
        ("Accuracies in percent, means ± standard deviations over seeds; intervals of 95%", table(chosen)),
        ("Monte Carlo evaluation at the last look", monte_carlo.table(found)),
    ]
    return report.publish(
        done["kinds"],
        "Dropout",
        text(chosen, kinds),
        figures(none, kinds, found),
        [*tables, *claims.tables(verdicts)],
        into=done["kinds"].parent,
        printed=[rows for _, rows in tables if rows],
    )


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(report.parts(out, "dropout", "none", "kinds"), verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
