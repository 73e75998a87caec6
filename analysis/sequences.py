"""Figures, table and report of `experiments.sequences`: the gradient against lag before and after training, and the
loss and accuracy on the three splits along it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, lags, outcomes, report, style
from analysis.claims import Verdict
from analysis.lags import SAID, STAGES, Curve, axis, picked, stage
from analysis.learned import unfinished
from analysis.selection import at_chosen
from analysis.style import spread
from seqdyn.data.tasks import task_of
from seqdyn.learn.spec import Spec
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

HELD = ("test_loss", "test_accuracy", "validation_loss")
VALUES = (*outcomes.VALUES, "nats", "right", "carried_start", "carried_end")
"""What `columns` says of a run."""


def columns(*parts: Path) -> "xr.Dataset":
    """`outcomes.columns`, and of what has ended, NaN of what is unfinished:

    nats: test loss at the look with the least validation loss, infinity of what has diverged; right: test accuracy
        there in percent, NaN where there is none.
    carried_start, carried_end: log₁₀ of the gradient that comes from the next step, half a sequence back over one step
        back.
    """
    return outcomes.gathered(parts, measured)


def measured(part: Path) -> dict[str, np.ndarray]:
    """Of one part: what `columns` says, name -> values [run]."""
    ds = lags.split(lags.having(load(part), "validation_loss"))
    gone, open_ = np.any(lags.diverged(ds), axis=1), unfinished(ds)
    right = 100 * at_chosen(ds, "test_accuracy") if "test_accuracy" in ds else np.full(len(gone), np.nan)
    nats = np.where(gone, np.inf, at_chosen(ds, "test_loss"))
    found = {"nats": np.where(open_, np.nan, nats), "right": np.where(open_, np.nan, np.where(gone, 0.0, right))}
    for when, fraction in STAGES.items():
        carried = stage(ds, "carried_norm", fraction)[:, -1]
        with np.errstate(divide="ignore"):
            kept = np.log10(carried[:, carried.shape[1] // 2] / carried[:, 1])
        found[f"carried_{when}"] = np.where((fraction > 0) & (open_ | gone), np.nan, kept)
    return outcomes.measured(part) | found


def norms_by_lag(ds: "xr.Dataset", name: str) -> Figure:
    """A column a cell, a curve a stage."""
    shades = dict(zip(STAGES, style.shades(len(STAGES)), strict=True))
    read = {when: stage(ds, name, fraction) for when, fraction in STAGES.items()}
    if name == "carried_norm":  # nothing comes from beyond T
        read = {when: np.where(norms > 0, norms, np.nan) for when, norms in read.items()}
    cells = axis(ds, "label")

    def curves(cell: str) -> list[Curve]:
        runs = picked(ds, label=cell)
        return [Curve(norms[runs, -1], shades[when], SAID[when]) for when, norms in read.items()]

    y = "‖∂L/∂h$_t$‖" + (", from t + 1" if name == "carried_norm" else "")
    return lags.lag_figure([[curves(cell) for cell in cells]], [""], cells, y=y)


def learning(ds: "xr.Dataset", chance: float) -> Figure:
    """Loss (and accuracy, where there is one) against update, a column a cell."""
    measures = ["loss", *(["accuracy"] if "test_accuracy" in ds else [])]
    cells, probes = axis(ds, "label"), ds["probe_step"].values
    fig, axes = style.panels(len(measures), len(cells), 1.5, sharex=True, sharey="row")
    for row, measure in zip(axes, measures, strict=True):
        for ax, cell in zip(row, cells, strict=True):
            runs = picked(ds, label=cell)
            x, training = style.smoothed(ds[measure].values[runs])
            style.median_band(ax, x, training, **style.SPLITS["train"])
            for split in ("validation", "test"):
                style.median_band(ax, probes, ds[f"{split}_{measure}"].values[runs], **style.SPLITS[split])
            if measure == "loss":
                ax.axhline(chance, color="0.5", linewidth=0.8, label="a guess")
    style.frame(axes, [""] * len(measures), cells, "update", [m.replace("loss", "loss (nats)") for m in measures])
    style.legend(fig, style.drawn(axes))
    return fig


def summary(ds: "xr.Dataset") -> list[dict[str, Any]]:
    """A row per cell: held-out results of each seed at the look with the least validation loss, and horizons."""
    best = ds["validation_loss"].fillna(float("inf")).argmin("probe")
    rows = []
    for cell in axis(ds, "label"):
        runs = picked(ds, label=cell)
        held = {name: ds[name].isel(probe=best).values[runs] for name in HELD if name in ds}
        reach = {when: stage(ds, "carried_norm", fraction)[runs, -1, 1:] for when, fraction in STAGES.items()}
        rows.append({"cell": cell, "runs": len(runs)} | held | lags.reaches(reach))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    return [
        {"cell": r["cell"], "runs": str(r["runs"])}
        | {name.replace("_", " "): spread(r[name]) for name in HELD if name in r}
        | lags.before_after(r, list(STAGES))
        for r in rows
    ]


def text(ds: "xr.Dataset", source: str, rows: Sequence[dict[str, str]]) -> list[str]:
    """What was run and what came out."""
    said = "; ".join(f"{r['cell']}: test loss {r['test loss']}, horizon {r['horizon']}" for r in rows)
    return [
        f"{ds.sizes['run']} runs on {source}, {ds.sizes['time']} steps, {ds.attrs['updates']:,} updates each. Results "
        f"at the look with the least validation loss, means ± standard deviations over seeds: {said}. The horizon, at "
        "initialisation and after training, is the first lag at which the gradient from the next step falls "
        f"below {lags.FAINT:.0%} of what arrives one step back."
    ]


def figures(ds: "xr.Dataset", spec: Spec) -> Iterator[report.Drawn]:
    """Norms by lag, with and without what enters at t, and what was learned."""
    everywhere = spec.readout == "every"
    yield (
        "norms_by_lag",
        norms_by_lag(ds, "adjoint_norm"),
        "‖∂L/∂h_t‖ against the lag from the last step of a sequence, before and after training. "
        + ("The loss is at every step, so each receives its own error, too. " if everywhere else "")
        + lags.RINGS,
    )
    yield (
        "carried_by_lag",
        norms_by_lag(ds, "carried_norm"),
        "The same without what enters at t itself: the part that came from step t + 1.",
    )
    yield (
        "learning",
        learning(ds, task_of(spec).chance),
        "Loss and accuracy along training; training is a mean over updates, the grey line the loss of a guess among "
        "equals. Medians and quartiles over seeds.",
    )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and prints its table and where the figures lie; the page has the verdicts."""
    ds, experiment = lags.split(lags.having(load(out), "validation_loss")), manifest.experiment(out)
    source, rows = experiment.settings.get("source", experiment.name), table(summary(ds))
    drawn, tables = figures(ds, experiment.specs[0]), [("By cell", rows), *claims.tables(verdicts)]
    return report.publish(out, f"Gradients through {source}", text(ds, source, rows), drawn, tables)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
