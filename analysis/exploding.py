"""Figures, claims and report of `experiments.exploding`, with the one unit whose error has a wall."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from analysis import claims, lags, outcomes, report, style
from analysis.claims import Verdict
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

WEIGHT, START, TARGET, LENGTH = 5.0, 0.5, 0.7, 50
RATE, FROM, TRIES = 0.01, -2.0, 60
"""Of descent in b."""
OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam"}
WAYS = {"sgd": "norm", "value": "value", "tensor": "tensor (RMS)", "adjoint": "adjoint"}


class Unit(NamedTuple):
    """What x_{t+1} = w σ(x_t) + b has made of its start after 50 steps."""

    error: Float[np.ndarray, " *s"]
    """(x − 0.7)²"""
    slope: Float[np.ndarray, " *s"]
    """Its derivative in b."""


def unit(b: Float[np.ndarray, " *s"]) -> Unit:
    """The unit of Pascanu, Mikolov & Bengio 2013 (figures 4 and 6; Doya 1993), w = 5, from x_0 = 0.5.

    Its wall is where x_0 is the unstable fixed point, b = x_0 − w σ(x_0): runs go to one attractor on its left and to
    the other on its right.
    """
    b = np.asarray(b, np.float64)
    x, slope = np.full_like(b, START), np.zeros_like(b)
    for _ in range(LENGTH):
        s = 1 / (1 + np.exp(-x))
        x, slope = WEIGHT * s + b, WEIGHT * s * (1 - s) * slope + 1
    return Unit((x - TARGET) ** 2, 2 * (x - TARGET) * slope)


def wall() -> float:
    """The b of it."""
    return START - WEIGHT / (1 + np.exp(-START))


def descent(threshold: float) -> Float[np.ndarray, " n"]:
    """b before each update of plain descent on the error, its slope clipped."""
    b = np.asarray(FROM)
    path = [b]
    for _ in range(TRIES):
        slope = unit(b).slope
        b = b - RATE * np.clip(slope, -threshold, threshold)
        path.append(b)
    return np.stack(path)


# --- figures --------------------------------------------------------------------------------------------------


def cliff() -> Figure:
    """Error and slope over b, and where descent goes that begins beside the wall."""
    fig, axes = style.panels(1, 3, 1.7)
    near = wall() + np.sort(np.concatenate([s * np.geomspace(1e-9, 2.5, 4000) for s in (-1, 1)]))
    there = unit(near)
    axes[0, 0].plot(near, there.error, color="black")
    axes[0, 0].set(xlabel="b", ylabel="error (x$_{50}$ − 0.7)²", ylim=(0, 50))
    axes[0, 1].plot(near, np.abs(there.slope), color="black")
    axes[0, 1].set(xlabel="b", ylabel="|d error / d b|", yscale="log", ylim=(1, None))
    for threshold, color, label in ((np.inf, style.VERMILION, "no clip"), (10.0, style.BLUE, "clipped at 10")):
        axes[0, 2].plot(descent(threshold), color=color, label=label, marker="o", markersize=2, linewidth=0.8)
    axes[0, 2].axhline(wall(), color="0.5", linewidth=0.8, linestyle=style.DASHES[1], label="wall")
    axes[0, 2].set(xlabel="update", ylabel="b")
    style.legend(fig, style.drawn(axes))
    return fig


def plane(runs: "xr.Dataset") -> Figure:
    """Rows: share diverged, share usable, largest gradient; columns: optimisers; over thresholds and gains."""
    names = [name for name in OPTIMIZERS if name in runs["label"].values]
    kept = runs.isel(run=np.isin(runs["label"].values, names))
    gains, clips = (np.unique(kept[name].values) for name in ("gain", "clip"))
    rows = {
        "diverged": ("share diverged", 0, 1),
        "usable": ("share usable", 0, 1),
        "largest_gradient": ("log$_{10}$ largest ‖g‖", 0, 24),
    }
    fig, axes = style.panels(len(rows), len(names), 1.5, sharex=True, sharey=True)
    fig.set_figwidth(style.PAGE)
    for line, (column, (label, low, high)) in zip(axes, rows.items(), strict=True):
        for name, ax in zip(names, line, strict=True):
            shown = np.empty((len(gains), len(clips)))
            for (i, gain), (k, clip) in ((a, b) for a in enumerate(gains) for b in enumerate(clips)):
                values = kept[column].values[lags.picked(kept, label=name, gain=gain, clip=clip)]
                middle = np.median(values) or np.nan  # 0: nothing was finite
                shown[i, k] = np.log10(middle) if column == "largest_gradient" else np.nanmean(values)
            mesh = style.cells(ax, shown, [*map(style.tick, clips)], [f"{g:g}" for g in gains], low, high)
        fig.colorbar(mesh, ax=line, aspect=12, pad=0.02).set_label(label)
    style.frame(axes, [""] * len(rows), [OPTIMIZERS[name] for name in names], "threshold of ‖g‖", "gain")
    return fig


def ways(runs: "xr.Dataset", gain: float) -> Figure:
    """Share usable against the threshold of each way to clip, SGD at one gain."""
    fig, axes = style.panels(1, 1, 2.0)
    fig.set_figwidth(0.72 * style.PAGE)
    for k, ((name, label), color) in enumerate(zip(WAYS.items(), style.OKABE, strict=False)):
        if name not in runs["label"].values:
            continue
        part = runs.isel(run=lags.picked(runs, label=name, gain=gain))
        threshold = part["bound" if name == "tensor" else "clip"].values
        clips = np.unique(threshold)
        counts = [(int(np.nansum(part["usable"].values[threshold == c])), int(np.sum(threshold == c))) for c in clips]
        share, reach = style.shares(counts)
        at = np.arange(len(clips)) + 0.08 * (k - 1.5)
        axes[0, 0].errorbar(at, share, yerr=reach, color=color, label=label, capsize=2, marker="o", markersize=3.5)
        axes[0, 0].set_xticks(np.arange(len(clips)), [*map(style.tick, clips)])
    axes[0, 0].set(xlabel="threshold", ylabel="share usable", ylim=(-0.05, 1.05))
    style.legend(fig, style.drawn(axes))
    return fig


def figures(runs: "xr.Dataset", gain: float) -> Iterator[report.Drawn]:
    """The wall, the plane of gains and thresholds, the ways to clip."""
    yield (
        "cliff",
        cliff(),
        f"One sigmoid unit, w = {WEIGHT:g}: its error after {LENGTH} steps, the size of its slope, and descent at rate "
        f"{RATE:g} from b = {FROM:g}. Dashed: the wall, b = {wall():.4f}.",
    )
    yield (
        "plane",
        plane(runs),
        "Over gain and threshold of the gradient's norm: the share of the seeds that diverged; the share whose last "
        "test loss is at most 1.25 times a constant's; and the median of a run's largest finite gradient norm, before "
        "clipping (grey: the first was not finite).",
    )
    yield (
        "ways",
        ways(runs, gain),
        f"SGD from gain {gain:g}, by the way of clipping: share usable, with Wilson's 95% interval. A threshold bounds "
        "the norm, an entry, the root mean square of an array, or an example's adjoint at each step.",
    )


def show(parts: Mapping[str, Path], gain: float, verdicts: Sequence[Verdict]) -> list[Path]:
    """Draws the parts of a command and prints where the figures lie; the page has the verdicts."""
    first = next(iter(parts.values()))
    drawn = figures(outcomes.columns(*parts.values()), gain)
    text = [lags.setting(load(first))]
    tables = claims.tables(verdicts)
    return report.publish(first, "Exploding gradients", text, drawn, tables, into=first.parent, printed=[[]])
