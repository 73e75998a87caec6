"""Figures and report of `experiments.edge_of_stability`: the sharpness of the training loss against 2/η, whether
gradient descent hovers there, and what became of the gradient through time.

What is read of the runs, and in which units, is said in `stability_sharpness`.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import claims, lags, report, style
from analysis.claims import Verdict
from analysis.lags import axis, diverged, number, picked
from analysis.stability_sharpness import NEAR, Records
from analysis.style import median
from seqdyn.learn.config import Experiment
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

FLOOR = 1e-5
"""The lowest training loss that is drawn: some runs end at rounding, others are still at a tenth."""


# --- what the records say -------------------------------------------------------------------------------------

OUTCOMES = ("at the edge", "below", "above", "diverged")


def summary(r: Records) -> list[dict[str, Any]]:
    """A row per cell and learning rate: how many runs ended where, and medians over those that did not diverge."""
    ds, rows = r.ds, []
    values = {
        "start": r.sharpness[:, 0],
        "crossing": r.crossing,
        "sharpness": r.late_median(r.sharpness),
        "near": r.near,
        "along": r.late_median(r.along),
        "cosine": r.late_median(ds["gradient_cosine"].values),
        "loss": r.late_median(ds["loss"].values),
        "test_loss": r.late_median(ds["test_loss"].values),
        "reach_start": r.reach[:, 0],
        "reach_crossing": r.reach_crossing,
        "reach": r.late_median(r.reach),
    }
    for cell in axis(ds, "label"):
        for lr in axis(ds, "lr"):
            runs = picked(ds, label=cell, lr=lr)
            row = {"cell": cell, "lr": lr, "runs": len(runs)} | {o: int(np.sum(r.outcome[runs] == o)) for o in OUTCOMES}
            low, high = style.quantiles(values["start"][runs], [0, 1])
            row |= {"least_start": float(low), "most_start": float(high)}
            rows.append(row | {name: float(median(v[runs])) for name, v in values.items()})
    return rows


# --- figures ----------------------------------------------------------------------------------------------------


def crosses(ax: Axes, r: Records, runs: np.ndarray, color: Any) -> None:
    """Marks, above a panel against updates, where runs diverged."""
    ends = [end.argmax() + 1 for end in diverged(r.ds)[runs] if end.any()]
    if ends:
        top: dict[str, Any] = dict(transform=ax.get_xaxis_transform(), clip_on=False, linestyle="none", marker="x")
        ax.plot(ends, [1.03] * len(ends), color=color, markersize=4, label="diverged", **top)


def logs(values: Float[np.ndarray, "run step"]) -> tuple[np.ndarray, Float[np.ndarray, "run bin"]]:
    """`style.smoothed`, of logarithms: one spike should not stand for all updates of its bin."""
    x, means = style.smoothed(np.log10(np.maximum(values, np.finfo(np.float64).tiny)))
    return x, 10**means


def training(r: Records) -> Figure:
    """Against updates, a line a run, a shade a learning rate: loss, sharpness, curvature along the gradient, reach."""
    ds = r.ds
    cells, lrs = axis(ds, "label"), axis(ds, "lr")
    fig, axes = style.panels(4, len(cells), 1.25, sharex=True, sharey="row")
    style.frame(axes, [""] * 4, cells, "update")
    looks = ds["probe_step"].values
    rows = (logs(ds["loss"].values), (looks, ds["sharpness"].values), (looks, r.along), logs(r.reach))
    for cell, column in zip(cells, axes.T, strict=True):
        for lr, color in zip(lrs, style.shades(len(lrs)), strict=True):
            runs = picked(ds, label=cell, lr=lr)
            for ax, (x, values) in zip(column, rows, strict=True):
                of = np.where(r.diverged[runs, None], np.nan, values[runs])  # a few updates of a run that blew up
                ax.plot(x, of.T, color=color, linewidth=0.7, label=f"η = {lr:g}")
            column[1].axhline(2 / lr, color=color, linewidth=0.8, linestyle=style.DASHES[1])
            crosses(column[0], r, runs, color)
        column[2].axhline(1, color="0.4", linewidth=0.8, linestyle=style.DASHES[1], label="2/η")
    for row in (0, 1, 3):
        style.log_axis(axes[row], [np.where(r.diverged[:, None], np.nan, rows[row][1])])
    axes[0, 0].set_ylim(bottom=max(axes[0, 0].get_ylim()[0], FLOOR))
    sharp = rows[1][1]
    least = np.min(sharp, where=np.isfinite(sharp) & (sharp > 0), initial=2 / max(lrs))
    axes[1, 0].set_ylim(bottom=0.8 * least)
    axes[2, 0].set_ylim(-0.15, 1.6)
    axes[0, 0].set_xlim(0, ds.sizes["step"])
    names = ("training loss", "sharpness λ", "gᵀHg / ‖g‖² · η/2", "‖∂L/∂h$_1$‖ / ‖∂L/∂h$_T$‖")
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name)
    fig.align_ylabels(axes)
    style.legend(fig, style.drawn(axes))
    return fig


def against_rate(r: Records) -> Figure:
    """Against η, a mark a run, at initialisation and late: sharpness over 2/η, and the reach of the gradient."""
    ds = r.ds
    cells, lrs = axis(ds, "label"), axis(ds, "lr")
    fig, axes = style.panels(2, len(cells), 1.6, sharex=True, sharey="row")
    style.frame(axes, ["", ""], cells, "learning rate η")
    dot: dict[str, Any] = dict(linestyle="none", marker="o", markersize=3.5, markeredgewidth=0.8)
    looks = {
        "at initialisation": dot | dict(color="0.55", markerfacecolor="none"),
        "at initialisation, then diverged": dot | dict(color=style.VERMILION, marker="x"),
        "late in training": dot | dict(color=style.BLUE),
    }
    for row, values in zip(axes, (r.sharpness, r.reach), strict=True):
        start, late = values[:, 0], r.late_median(values)
        stages = (np.where(r.diverged, np.nan, start), np.where(r.diverged, start, np.nan), late)
        for cell, ax in zip(cells, row, strict=True):
            of = [picked(ds, label=cell, lr=lr) for lr in lrs]
            for values, color in ((start, "0.55"), (late, style.BLUE)):
                ax.plot(lrs, [float(median(values[runs])) for runs in of], color=color, linewidth=1.0)
            runs = np.concatenate(of)
            for values, (name, look) in zip(stages, looks.items(), strict=True):
                if np.isfinite(values).any():
                    ax.plot(ds["lr"].values[runs], values[runs], label=name, **look)
        style.log_axis(row, [start, late])
    for ax in axes[0]:
        ax.axhline(1, color="0.4", linewidth=0.8, linestyle=style.DASHES[1], zorder=0, label="λ = 2/η")
    axes[0, 0].set_ylabel("sharpness λ · η/2")
    axes[1, 0].set_ylabel("‖∂L/∂h$_1$‖ / ‖∂L/∂h$_T$‖")
    for ax in axes.flat:
        ax.set_xscale("log")
        ax.set_xlim(min(lrs) / 1.4, max(lrs) * 1.4)
        ax.set_xticks(lrs, [f"{lr:g}" for lr in lrs])
        ax.xaxis.set_minor_locator(NullLocator())
    fig.align_ylabels(axes)
    style.legend(fig, style.drawn(axes))
    return fig


# --- the report ---------------------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""

    def share(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.0%}"

    def signed(value: float) -> str:
        return "–" if np.isnan(value) else f"{value + 0.0:.2f}"

    return [
        {"cell": r["cell"], "η": f"{r['lr']:g}"}
        | {name: f"{r[name]}/{r['runs']}" for name in ("at the edge", "diverged")}
        | {"start": f"{r['start']:.2f}", "late": "–" if np.isnan(r["sharpness"]) else f"{r['sharpness']:.2f}"}
        | {f"within {NEAR:.0%}": share(r["near"]), "along g": signed(r["along"]), "cosine": signed(r["cosine"])}
        | {"crossed at": "–" if np.isnan(r["crossing"]) else f"{r['crossing']:.0f}"}
        | {"loss": number(r["loss"]), "test loss": number(r["test_loss"])}
        | {"reach": " → ".join(number(r[name]) for name in ("reach_start", "reach_crossing", "reach"))}
        for r in rows
    ]


def of_cell(r: Records, rows: Sequence[dict[str, Any]]) -> str:
    """One cell in sentences."""
    cell = rows[0]["cell"]
    of = picked(r.ds, label=cell)
    total = len(of)
    count = {name: int(np.sum(r.outcome[of] == name)) for name in OUTCOMES}
    text = f"{cell}: {count['at the edge']} of {total} runs ended at the edge of stability"
    others = [f"{count[name]} {name}" for name in OUTCOMES[1:] if count[name]]
    text += (f" ({', '.join(others)})" if others else "") + ". "
    there = of[~r.diverged[of]]
    if len(there):
        late, cosine = r.late(r.sharpness)[there], r.late(r.ds["gradient_cosine"].values)[there]
        low, high = style.quantiles(late.ravel(), [0.05, 0.95])
        text += (
            f"Of the late looks at runs that did not diverge, {np.mean(np.abs(late - 1) < NEAR):.0%} found a sharpness "
            f"within {NEAR:.0%} of 2/η (median {float(median(late.ravel())):.2f} of it, 5 to 95%: {low:.2f} to "
            f"{high:.2f}) and {np.mean(cosine < -0.5):.0%} successive gradients more than 120° apart. "
        )
    flat, sharp = of[r.sharpness[of, 0] < 1], of[r.sharpness[of, 0] >= 1]
    rose = flat[~np.isnan(r.crossing[flat])]
    if len(flat):
        text += f"{len(flat)} runs started below 2/η; the sharpness of {len(rose)} rose past it"
        text += (
            f", first at update {np.min(r.crossing[rose]):.0f} to {np.max(r.crossing[rose]):.0f}. "
            if len(rose)
            else ". "
        )
    if len(sharp):
        lived, died = sharp[~r.diverged[sharp]], sharp[r.diverged[sharp]]
        text += f"{len(sharp)} started above it, up to {np.max(r.sharpness[sharp, 0]):.1f} times: "
        text += f"{len(lived)} went on" + (f" (at most {np.max(r.sharpness[lived, 0]):.1f})" if len(lived) else "")
        text += (
            f", {len(died)} diverged" + (f" (at least {np.min(r.sharpness[died, 0]):.1f})" if len(died) else "") + ". "
        )
    met = there[~np.isnan(r.crossing[there])]
    if len(met):
        stages = r.reach[met, 0], r.reach_crossing[met], r.late_median(r.reach)[met]
        start, crossed, late = (number(float(median(stage))) for stage in stages)
        before, after = (number(float(median(b / a))) for a, b in pairwise(stages))
        text += (
            f"In the {len(met)} runs that rose past 2/η and did not diverge, ‖∂L/∂h_t‖ at the first step over that at "
            f"the last was {start} at initialisation, {crossed} where they met it and {late} late: it grew "
            f"{before}-fold before and {after}-fold after (medians). "
        )
    losses = ", ".join(f"{number(row['loss'])} ({number(row['test_loss'])})" for row in rows)
    return text + f"Training (test) loss late, by η: {losses}."


def setting(r: Records, experiment: Experiment) -> str:
    """What was run and how it is read."""
    spec, ds = experiment.specs[0], r.ds
    rates = ", ".join(f"{lr:g}" for lr in axis(ds, "lr"))
    return (
        f"{ds.sizes['run']} runs of full-batch gradient descent, without momentum or clipping, on "
        f"{spec.training_set} fixed sequences of the task '{spec.task}', T = {spec.steps}, hidden {spec.hidden[0]}: "
        f"learning rates η = {rates}, {len(axis(ds, 'seed'))} seeds of parameters and data; {experiment.updates:,} "
        f"updates each, {ds['recorded'].values.mean():.0%} of them made. Every {experiment.probe_every} updates the "
        "largest eigenvalue of the Hessian of exactly that loss (the sharpness) was computed by Lanczos iteration; its "
        f"error bound was at most {bound(ds):.0e} of it. A run is late in its last quarter, and at the edge if its "
        f"median sharpness there is within {NEAR:.0%} of 2/η and successive gradients point in opposite directions."
    )


def bound(ds: "xr.Dataset") -> float:
    """The largest relative error bound of a sharpness."""
    ratio = ds["sharpness_error"].values / np.abs(ds["sharpness"].values)
    return float(np.max(ratio, initial=0.0, where=np.isfinite(ratio)))


def text(r: Records, experiment: Experiment, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was run, and each cell."""
    return [setting(r, experiment), *(of_cell(r, some) for some in lags.by_cell(rows))]


def figures(r: Records) -> Iterator[report.Drawn]:
    """Along training, and against the rate."""
    yield (
        "training",
        training(r),
        "Full-batch gradient descent at learning rates η, a line a run. Dashed: 2/η, above which descent on a "
        "quadratic loss diverges. Third row: the curvature along the gradient over 2/η, 0 while the network slides "
        "along a valley, 1 once it bounces between the walls. Last row: how much of the gradient reaches the first "
        f"time step. A cross marks the update at which a run diverged, which is not drawn. Loss (down to {FLOOR:g}) "
        f"and last row are means of logarithms over {max(1, r.ds.sizes['step'] // style.BINS)} updates.",
    )
    yield (
        "against_rate",
        against_rate(r),
        "Above: where runs start, sharpness over 2/η is proportional to η; where they end, at the edge, it is 1 "
        "whatever η. Below: how much of the gradient reaches the first time step. A mark is a run (late: the median of "
        "its last quarter), lines are medians over seeds; a cross started there and diverged.",
    )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory, finished or not, and prints its table and where the figures lie; the page has the
    verdicts."""
    experiment = manifest.experiment(out)
    needed = ("sharpness", "directional_sharpness", "sharpness_error", "gradient_cosine")
    r = Records(lags.split(lags.having(load(out), *needed), "lr"))
    rows = summary(r)
    caption = (
        "Medians over seeds that have a value. start, late, along g: sharpness at initialisation and late, and late "
        "gᵀHg/‖g‖², over 2/η; "
        "cosine: of successive gradients; crossed at: the update of the first look past 2/η, risen from below; reach: "
        "‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ at initialisation, at the crossing and late"
    )
    title = f"The edge of stability: {', '.join(axis(r.ds, 'label'))}; T = {experiment.specs[0].steps}"
    tables = [(caption, table(rows)), *claims.tables(verdicts)]
    return report.publish(out, title, text(r, experiment, rows), figures(r), tables)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
