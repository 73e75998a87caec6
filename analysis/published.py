"""Published claims beside what was trained here: the figures, the table *paper | ours* and the report of
`experiments.reproduce`.

A reproduction is some *panels* (a length, an initialisation) of some *cases* (a cell, a cure), each case a run
directory whose runs differ in their seed alone.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import claims, lags, learned, measured, report, reproduced, style
from analysis.cures import HIGHEST
from analysis.lags import STAGES, Curve, relative, stage
from seqdyn.runs import manifest
from seqdyn.runs.records import load

Cases = Mapping[str, Path]
"""Run directories by the name of their case."""


BY_LAG = "‖∂L/∂h_t‖ over its value at lag 0, against the lag; medians and quartiles over seeds."
"""Caption of `norms_by_lag`."""
SUCCESS = "Share of the seeds that learned, with Wilson's 95% interval."
"""Caption of `rates`."""


def learned_at(out: Path, target: float | None = None) -> np.ndarray:
    """Of each run: after how many updates a look first met the task's criterion (or `target` in its place); infinity if
    none did."""
    of = learned.criterion(manifest.described(out))
    if target is not None:
        of = of._replace(target=np.full_like(of.target, target))
    return np.nan_to_num(learned.learned_at(load(out), of), nan=np.inf)


def successes(out: Path, target: float | None = None) -> tuple[int, int]:
    """(runs that learned at some look, runs)"""
    when = learned_at(out, target)
    return int(np.sum(np.isfinite(when))), len(when)


def cases(panels: Mapping[str, Cases], target: float | None = None) -> list[dict[str, str]]:
    """A row a case: who learned, and the median over runs of the updates that took."""
    return [
        {"panel": panel, "case": case, **_outcome(out, target)}
        for panel, of in panels.items()
        for case, out in of.items()
    ]


def _outcome(out: Path, target: float | None) -> dict[str, str]:
    when = learned_at(out, target)
    middle = float(np.median(when))
    speed = f"{middle:,.0f}" if np.isfinite(middle) else f"over {manifest.experiment(out).updates:,}"
    return {"learned": f"{np.sum(np.isfinite(when))}/{len(when)}", "updates": speed}


# --- figures --------------------------------------------------------------------------------------------------


def _colored(panels: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for cases in panels.values() for name in cases)
    return dict(zip(names, cycle(style.OKABE), strict=False))


def learning(
    panels: Mapping[str, Cases], name: str, label: str, lines: Mapping[str, float | Sequence[float]], log: bool = False
) -> Figure:
    """A quantity of every look against updates, a curve a case; `lines` are levels to hold it against, one for all or
    one a panel.

    A log axis ends at ten times the highest of them: an untrained network may be orders of magnitude above.
    """
    colors = _colored(panels)
    levels = {level: np.broadcast_to(at, len(panels)) for level, at in lines.items()}
    fig, axes = style.panels(1, len(panels), 1.7, sharey=True)
    drawn = list(levels.values())
    for k, (ax, cases) in enumerate(zip(axes[0], panels.values(), strict=True)):
        for case, out in cases.items():
            ds = load(out)
            x, values = ds["probe_step"].values, ds[name].values
            made = ~np.isnan(values).all(axis=0)
            drawn.append(style.median_band(ax, x[made], values[:, made], color=colors[case], label=case))
        for (level, at), dashes in zip(levels.items(), style.DASHES[1:], strict=False):
            ax.axhline(at[k], color="0.4", linewidth=0.8, linestyle=dashes, label=level)
        ax.set_xlim(0, None)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if log:
        style.log_axis(axes, drawn, 10 * max((at.max() for at in levels.values()), default=np.inf))
    style.frame(axes, [""], list(panels), "update", label)
    style.legend(fig, style.drawn(axes))
    return fig


def norms_by_lag(panels: Mapping[str, Cases]) -> Figure:
    """‖∂L/∂h_t‖ over its value at lag 0 against the lag, before and after training; columns: panels, curves: cases."""
    colors = _colored(panels)

    def curves(cases: Cases, when: str) -> list[Curve]:
        return [
            Curve(relative(stage(load(out), "adjoint_norm", STAGES[when])[:, 0]), colors[case], case)
            for case, out in cases.items()
        ]

    rows = [[curves(cases, when) for cases in panels.values()] for when in STAGES]
    y = "‖∂L/∂h$_t$‖ / ‖∂L/∂h$_T$‖"
    return lags.lag_figure(rows, ["at initialisation", "trained"], list(panels), HIGHEST, y)


def rates(panels: Mapping[str, Mapping[str, Mapping[int, tuple[int, int]]]], x: str) -> Figure:
    """Share of runs that learned, with Wilson's interval, against a number: panel → case → number → (learned, runs)."""
    colors = _colored(panels)
    fig, axes = style.panels(1, len(panels), 1.5, sharex=True, sharey=True)
    for ax, cases in zip(axes[0], panels.values(), strict=True):
        ticks = list(dict.fromkeys(at for found in cases.values() for at in found))
        for k, (case, found) in enumerate(cases.items()):
            at = [ticks.index(value) + 0.06 * (k - (len(cases) - 1) / 2) for value in found]
            share, reach = style.shares(list(found.values()))
            bars: dict[str, Any] = dict(capsize=2, marker="o", markersize=3.5, linewidth=1)
            ax.errorbar(at, share, yerr=reach, color=colors[case], label=case, **bars)
        ax.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
        ax.set_ylim(-0.05, 1.05)
    style.frame(axes, [""], list(panels), x, "share learned")
    style.legend(fig, style.drawn(axes))
    return fig


# --- the report -----------------------------------------------------------------------------------------------


def show(
    out: Path,
    title: str,
    stated: Sequence[claims.Claim],
    figures: Mapping[str, tuple[Callable[[], Figure], str]],
    panels: Mapping[str, Cases],
    columns: claims.Columns = reproduced.columns,
    target: float | None = None,
    more: report.Tables = (),
) -> dict[str, str]:
    """Tests what is stated, draws `figures` (name → how to draw it, caption) and a page beside them, prints *paper |
    ours* and what became of the cases: statement -> verdict.

    The report shows the settings of the first case.
    """
    parts = [part for of in panels.values() for part in of.values()]
    found = claims.verdicts(stated, *parts, columns=columns)
    drawn = ((name, draw(), caption) for name, (draw, caption) in figures.items())
    became = "Runs that learned at some look; the median of the updates that took."
    tables = [(measured.CAPTION, measured.beside(found)), (became, cases(panels, target)), *more]
    tables = [(caption, rows) for caption, rows in tables if rows]
    printed = [[{name: str(value) for name, value in row.items()} for row in rows] for _, rows in tables]
    report.publish(parts[0], title, [lags.setting(load(parts[0]))], drawn, tables, into=out, printed=printed)
    return {v.claim.statement: v.verdict for v in found}
