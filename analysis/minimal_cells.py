"""Figure, table and report of `experiments.minimal_cells`: who vanishes, before and after training?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, lags, report, style
from analysis.claims import Verdict
from analysis.lags import STAGES, Curve, axis, picked, stage
from analysis.learned import Criterion, criterion, latest, statuses
from analysis.style import median
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {
    "dense U": {"rnn": style.BLACK, "GRU": style.BLUE, "LSTM": style.VERMILION, "sLSTM": style.PURPLE},
    "diagonal recurrence": {"minGRU": style.SKY, "minLSTM": style.ORANGE, "LRU": style.GREEN, "IndRNN": "#8c6d1f"},
}
"""Column of the figure -> its cells, with colours."""


def norms(ds: "xr.Dataset") -> dict[str, np.ndarray]:
    """Stage -> ‖∂L/∂h_t‖ [run, lag]."""
    return {name: stage(ds, "adjoint_norm", at)[:, 0] for name, at in STAGES.items()}


def summary(ds: "xr.Dataset", of: Criterion) -> list[dict[str, Any]]:
    """A row a cell: runs, how many learned and diverged, and `lags.reaches` before and after training."""
    status, read, rows = statuses(ds, of), norms(ds), []
    for cell in axis(ds, "label"):
        runs = picked(ds, label=cell)
        row = {"cell": cell, "runs": len(runs), "test_loss": float(median(latest(ds["test_loss"].values)[runs]))}
        row |= {name: int(np.sum(status[runs] == name)) for name in ("learned", "diverged")}
        rows.append(row | lags.reaches({name: of[runs] for name, of in read.items()}))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For the reader."""
    return [
        {"cell": r["cell"], "learned": f"{r['learned']}/{r['runs']}", "diverged": str(r["diverged"])}
        | {"test loss": lags.number(r["test_loss"])}
        | lags.before_after(r, tuple(STAGES))
        for r in rows
    ]


def by_lag(ds: "xr.Dataset") -> Figure:
    """Rows: before and after training; columns: kinds of cells."""
    read = {name: lags.relative(of) for name, of in norms(ds).items()}
    panels = [
        [
            [Curve(of[runs], color, cell) for cell, color in kind.items() if len(runs := picked(ds, label=cell))]
            for kind in COLUMNS.values()
        ]
        for of in read.values()
    ]
    return lags.lag_figure(panels, ["at initialisation", "trained"], list(COLUMNS), y="‖∂L/∂h$_t$‖ / ‖∂L/∂h$_T$‖")


def figures(ds: "xr.Dataset") -> Iterator[report.Drawn]:
    """One."""
    yield (
        "norms_by_lag",
        by_lag(ds),
        "How far back the gradient reaches, over its value at the last step: at initialisation (the first update) and "
        f"after training (median of a run's last {lags.late(ds.sizes['step'])} updates). Lines are medians over seeds, "
        f"bands the middle half of them. {lags.RINGS}",
    )


def text(ds: "xr.Dataset", rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was run, and each cell."""
    return [lags.setting(ds)] + [
        f"{r['cell']}: {r['learned']} of {r['runs']} learned, {r['diverged']} diverged; horizon (ratio) "
        f"{lags.reach(r, 'start')} before training and {lags.reach(r, 'end')} after."
        for r in rows
    ]


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and prints its table and where the files lie; the page has the verdicts."""
    ds = load(out)
    rows = summary(ds, criterion(manifest.described(out)))
    tables = [("Medians over seeds; counts of runs", table(rows)), *claims.tables(verdicts)]
    return report.publish(out, "Who vanishes, before and after training?", text(ds, rows), figures(ds), tables)
