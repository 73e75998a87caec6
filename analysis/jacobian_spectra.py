"""Figures and report of `experiments.jacobian_spectra`: the singular values of ∂state_T/∂state_t by window and along
training, beside the product of the steps' norms and what the gates alone would keep.

Everything is in decades, log₁₀, on linear axes. A σ that is exactly 0, as behind a dead ReLU, is −∞ there: its curve
leaves the panel.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import claims, report, style
from analysis.claims import Verdict
from analysis.jacobian_windows import (
    ALIVE,
    DEEPEST,
    NOTHING,
    STAGES,
    Group,
    at,
    bound,
    floored,
    gates_alone,
    groups,
    kept,
    read,
    spectra,
)
from analysis.lags import axis, number
from seqdyn.data.tasks import Task, task_of
from seqdyn.learn.config import Experiment
from seqdyn.runs import manifest
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

HIGHEST = 12.0
"""Decades, the most that a panel of singular values shows; the least is `DEEPEST`."""


# --- what was measured ---------------------------------------------------------------------------------------


def summary(ds: "xr.Dataset", task: Task) -> list[dict[str, Any]]:
    """A row per initialisation and cell recorded; medians over seeds, of the longest window, before and after training.

    What `jacobian_windows.kept` says, with the stage behind its name.
    """
    rows = []
    for group in groups(ds):
        loss = at(ds, "test_loss", group.runs, "trained")
        if np.isnan(loss).all():
            continue
        row: dict[str, Any] = {"init": group.init, "cell": group.cell, "runs": len(group.runs)}
        row |= {"learned": int(np.sum(loss < task.learned[1])), "test_loss": float(style.median(loss))}
        for stage in STAGES:
            row |= {f"{name}_{stage}": float(style.median(values)) for name, values in kept(ds, group, stage).items()}
        rows.append(row)
    return rows


# --- figures --------------------------------------------------------------------------------------------------


def decades(axes: np.ndarray, values: Sequence[np.ndarray], label: str, highest: float = HIGHEST) -> None:
    """Linear limits that hold what was drawn, in decades, from `DEEPEST` to `highest`."""
    pool = np.concatenate([np.ravel(v) for v in values])
    pool = pool[np.isfinite(pool) & (pool > NOTHING / 2) & (pool < -NOTHING)]
    low, high = (max(float(pool.min()), DEEPEST), min(float(pool.max()), highest)) if pool.size else (-1.0, 1.0)
    margin = 0.04 * max(high - low, 1.0)
    for ax in axes.flat:
        ax.set_ylim(low - margin, high + margin)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[:, 0]:
        ax.set_ylabel(label)


def staged(ds: "xr.Dataset", height: float) -> tuple[Figure, np.ndarray, list[tuple[Axes, Group, str]]]:
    """A figure whose rows are initialisations, untrained and trained, and whose columns are cells."""
    inits, cells = axis(ds, "u_init"), axis(ds, "label")
    rows = [(init, stage) for init in inits for stage in STAGES]
    fig, axes = style.panels(len(rows), len(cells), height, sharex=True, sharey=True)
    style.frame(axes, [f"{init},\n{stage}" for init, stage in rows], cells, "")
    found = {(group.init, group.cell): group for group in groups(ds)}
    inside = [
        (axes[i, j], found[init, cell], stage) for i, (init, stage) in enumerate(rows) for j, cell in enumerate(cells)
    ]
    return fig, axes, inside


def spectra_by_window(ds: "xr.Dataset") -> Figure:
    """log₁₀ σ_i against i/n, a curve per window."""
    fig, axes, panels = staged(ds, 1.25)
    lags = ds["window"].values.tolist()
    chosen = [lags.index(lag) for lag in (1, 10, 50) if lag in lags[:-1]] + [len(lags) - 1]
    drawn = []
    for ax, group, stage in panels:
        values = spectra(ds, group, stage)
        x = np.arange(1, values.shape[-1] + 1) / values.shape[-1]
        for w, color in zip(chosen, style.shades(len(chosen)), strict=True):
            label = f"{lags[w]} step" + "s" * (lags[w] > 1)
            drawn.append(style.median_band(ax, x, values[:, w], color=color, label=label))
        ax.axhline(0, color="0.75", linewidth=0.6, zorder=0)
    axes[0, 0].set_xlim(0, 1)
    axes[0, 0].set_xticks([0, 0.5, 1], ["0", "½", "1"])
    for ax in axes[-1]:
        ax.set_xlabel("direction i / n")
    decades(axes, drawn, "log$_{10}$ σ$_i$")
    style.legend(fig, style.drawn(axes))
    return fig


def against_lag(ds: "xr.Dataset") -> Figure:
    """The largest, middle and least σ of each window against its lag, and the product of the steps' largest."""
    fig, axes, panels = staged(ds, 1.25)
    lags, colors = ds["window"].values, style.shades(3)
    drawn = []
    for ax, group, stage in panels:
        values, product = spectra(ds, group, stage), bound(ds, group, stage)
        n = values.shape[-1]
        for name, i, color in zip(("$_1$", "$_{n/2}$", "$_n$"), (0, n // 2 - 1, n - 1), colors, strict=True):
            line = dict(color=color, marker="o", markersize=2.2, label=f"σ{name}")
            drawn.append(style.median_band(ax, lags, values[..., i], **line))
        line = dict(
            color="black", linestyle=style.DASHES[1], linewidth=0.9, label="∏ σ$_{max}$(J$_t$), the bound on σ$_1$"
        )
        drawn.append(style.median_band(ax, np.arange(1, product.shape[1] + 1), product, **line))
        ax.axhline(0, color="0.75", linewidth=0.6, zorder=0)
    axes[0, 0].set_xlim(0, None)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for ax in axes[-1]:
        ax.set_xlabel("lag T − t (steps)")
    decades(axes, drawn, "log$_{10}$ σ")
    style.legend(fig, style.drawn(axes))
    return fig


def along_training(ds: "xr.Dataset", task: Task) -> Figure:
    """Of the longest window, against updates: singular values, a row per initialisation; the test loss below."""
    inits, cells, updates = axis(ds, "u_init"), axis(ds, "label"), ds["probe_step"].values
    fig, axes = style.panels(len(inits) + 2, len(cells), 1.25, sharex=True, sharey="row")
    above, conditions, losses = np.split(axes, [len(inits), len(inits) + 1])
    style.frame(axes, [*inits, "condition", "learning"], cells, "update")
    most = ds.sizes["mode"] // 4  # half the directions of the smaller states: beyond, all lie below the panel
    modes = [2**k for k in range(most.bit_length())]
    drawn: dict[str, list[np.ndarray]] = {"σ": [], "condition": [], "loss": [np.asarray([task.chance])]}
    dashes = dict(zip(inits, style.DASHES, strict=False))
    for group in groups(ds):
        row, column = inits.index(group.init), cells.index(group.cell)
        values = floored(ds["window_log_singular"].values[group.runs, :, -1])
        for i, color in zip(modes, style.shades(len(modes)), strict=True):
            line = dict(color=color, label=f"σ$_{{{i}}}$")
            if i == 1:
                drawn["σ"].append(style.median_band(above[row, column], updates, values[..., 0], **line))
            else:  # their bands would hide each other
                drawn["σ"].append(style.median(values[..., i - 1]))
                above[row, column].plot(updates, drawn["σ"][-1], **line)
        line = dict(color="black", linestyle=dashes[group.init], label=group.init)
        condition = ds["window_log_condition"].values[group.runs, :, -1]
        drawn["condition"].append(style.median_band(conditions[0, column], updates, condition, **line))
        if np.isinf(condition).any() and not np.isfinite(condition).any():
            conditions[0, column].annotate("∞: σ$_n$ = 0", (0.5, 0.5), xycoords="axes fraction", ha="center")
        loss = ds["test_loss"].values[group.runs]
        drawn["loss"].append(style.median_band(losses[0, column], updates, loss, **line))
    for ax in losses.flat:
        for level in (task.chance, task.learned[1]):
            ax.axhline(level, color="0.6", linewidth=0.6, zorder=0)
    axes[0, 0].set_xlim(0, updates[-1])
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(3, integer=True))
    decades(above, drawn["σ"], "log$_{10}$ σ$_i$")
    decades(conditions, drawn["condition"], "log$_{10}$ σ$_1$/σ$_n$", np.inf)
    style.log_axis(losses, drawn["loss"], highest=3 * task.chance)
    losses[0, 0].set_ylabel("test loss")
    style.legend(fig, style.drawn(axes))
    return fig


def clocks(ds: "xr.Dataset") -> Figure | None:
    """Of gated cells: the longest window's singular values beside what the forget gates alone would keep."""
    gated = [g for g in groups(ds) if not np.isnan(ds["time_constant"].values[g.runs]).all()]
    inits, cells = ([*dict.fromkeys(v)] for v in ([g.init for g in gated], [g.cell for g in gated]))
    if not gated:
        return None
    fig, axes = style.panels(len(inits), 2 * len(cells), 1.4, sharex=True, sharey=True)
    colors, drawn = style.shades(2), []
    for group in gated:
        for k, stage in enumerate(STAGES):
            ax = axes[inits.index(group.init), 2 * cells.index(group.cell) + k]
            alone = gates_alone(ds, group, stage)
            true = spectra(ds, group, stage)[:, -1, : alone.shape[1]]
            i = np.arange(1, alone.shape[1] + 1)
            drawn.append(style.median_band(ax, i, true, color=colors[0], label="σ$_i$"))
            line = dict(color=colors[1], linestyle=style.DASHES[1], label="∏ of the i-th slowest forget gate")
            drawn.append(style.median_band(ax, i, alone, **line))
            ax.axhline(0, color="0.75", linewidth=0.6, zorder=0)
    style.frame(axes, inits, [f"{cell}, {stage}" for cell in cells for stage in STAGES], "direction i")
    axes[0, 0].set_xlim(1, None)
    decades(axes, drawn, "log$_{10}$ of what is kept")
    style.legend(fig, style.drawn(axes))
    return fig


# --- the report -----------------------------------------------------------------------------------------------


def formatted(value: float, digits: int = 1) -> str:
    """Decades, or a count, in a table; −∞ for log 0."""
    if np.isnan(value):
        return "–"
    if abs(value) > -NOTHING / 2:
        return "∞" if value > 0 else "−∞"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # no −0


def before_after(row: dict[str, Any], name: str, digits: int = 1) -> str:
    """Before → after training."""
    return " → ".join(formatted(row[f"{name}_{stage}"], digits) for stage in STAGES)


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    return [
        {
            "init": r["init"],
            "cell": r["cell"],
            "learned": f"{r['learned']}/{r['runs']}",
            "test loss": number(r["test_loss"]),
            "log σ_1": before_after(r, "first"),
            "log σ_n/2": before_after(r, "middle"),
            "alive": f"{before_after(r, 'alive', 0)} of {r['n_trained']:.0f}",
            "log condition": before_after(r, "condition"),
            "slowest gate": before_after(r, "gate"),
            "bound − log σ_1": before_after(r, "excess"),
        }
        for r in rows
    ]


def of_cell(r: dict[str, Any], lag: int) -> str:
    """One cell from one start, in sentences: untrained → trained."""
    gates = (
        f" The slowest forget gate alone would keep {before_after(r, 'gate')} decades; σ_i is "
        f"{before_after(r, 'apart')} decades "
        f"from the i-th slowest gate (root mean square, above {formatted(DEEPEST, 0)})."
    )
    return (
        f"{r['cell']}, {r['init']}: {r['learned']} of {r['runs']} runs learned. Over {lag} steps log σ_1 goes from "
        f"{formatted(r['first_untrained'])} to {formatted(r['first_trained'])} by training, log σ_(n/2) from "
        f"{formatted(r['middle_untrained'])} to {formatted(r['middle_trained'])}; directions that keep a tenth: "
        f"{before_after(r, 'alive', 0)} of {r['n_trained']:.0f}. The condition number grows by "
        f"{before_after(r, 'rate', 2)} decades a step. The product of the steps' largest singular values is "
        f"{before_after(r, 'excess')} decades above σ_1."
        f"{'' if np.isnan(r['gate_trained']) else gates}"
    )


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """What trained networks have in common where learning succeeded, and where it did not."""

    def extent(of: Sequence[dict[str, Any]], name: str, digits: int = 1) -> str:
        ends = [formatted(f(r[f"{name}_{STAGES[1]}"] for r in of), digits) for f in (min, max)]
        return " to ".join(dict.fromkeys(ends))

    said = []
    for where, learned in (("at least half of the runs learned", True), ("fewer did", False)):
        of = [r for r in rows if (2 * r["learned"] >= r["runs"]) is learned]
        if of:
            who = ", ".join(f"{r['cell']} {r['init']}" for r in of)
            said.append(
                f"Where {where} ({who}), trained log σ_1 is {extent(of, 'first')}, log σ_(n/2) {extent(of, 'middle')}, "
                f"and the number of directions that keep a tenth {extent(of, 'alive', 0)}."
            )
    return " ".join(said)


def setting(experiment: Experiment, ds: "xr.Dataset", task: Task) -> str:
    """What was run and recorded."""
    spec, numbers = experiment.specs[0], experiment.numbers
    return (
        f"{ds.sizes['run']} runs on the task '{spec.task}', T = {spec.steps}: cells {', '.join(axis(ds, 'label'))}; "
        f"initialisations of U {', '.join(axis(ds, 'u_init'))}, gain {numbers.gain[0]:g}; {len(axis(ds, 'seed'))} "
        f"seeds; hidden {spec.hidden[0]}, batch {spec.batch}, {spec.optimizer} at learning rate {numbers.lr[0]:g}, "
        f"gradients clipped at {numbers.clip[0]:g}; {experiment.updates:,} updates; learned below a test loss of "
        f"{task.learned[1]:g}. Every {experiment.probe_every} updates the step Jacobians of the whole state ((c, h) of "
        f"an LSTM) were formed along {experiment.diagnostic} test sequences and multiplied, in logarithms. log σ_i is "
        f"the mean of log₁₀ σ_i(∂state_T/∂state_t) over the sequences, in decades, −∞ if one of them is 0; a direction "
        f"is alive if that is above {formatted(ALIVE, 0)}. Numbers are medians over seeds, of the window T − 1 and of "
        "runs' newest probes."
    )


def text(experiment: Experiment, ds: "xr.Dataset", task: Task, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was run, what trained networks have in common, and each cell."""
    lag = int(ds["window"].values[-1])
    return [setting(experiment, ds, task), verdict(rows), *(of_cell(row, lag) for row in rows)]


def figures(ds: "xr.Dataset", task: Task) -> Iterator[report.Drawn]:
    """Spectra by window, along training and against the lag, and the gates' clocks where there are any."""
    lag = int(ds["window"].values[-1])
    over = "Lines are medians over seeds, bands the middle half of them."
    gone = f"σ = 0 is −∞ and leaves the panel, which ends at {formatted(DEEPEST, 0)} decades."
    yield (
        "spectra",
        spectra_by_window(ds),
        "Singular values of ∂state_T/∂state_t, largest first, as decades on a linear axis, for windows of several lags "
        f"T − t. {over} {gone} Where seeds differ in their number of zeros, bands have upright edges.",
    )
    yield (
        "along_training",
        along_training(ds, task),
        f"The window of {lag} steps along training: its singular values; its condition number, with no line where that "
        "is infinite; the test loss, with grey lines at the constant predictor's and at what is learned. "
        f"{over} Of the singular values, only σ_1 has a band. {gone}",
    )
    yield (
        "against_lag",
        against_lag(ds),
        "The largest, the middle and the least singular value against the lag: a straight line is geometric decay, a "
        "gap that widens in proportion a condition number that grows exponentially. Dashed: the product of the steps' "
        f"largest singular values, which leaves the panel above {HIGHEST:g} decades. {over} {gone}",
    )
    gates = clocks(ds)
    if gates:
        yield (
            "clocks",
            gates,
            f"Singular values of the window of {lag} steps, and what the forget gates alone (LSTM's f, GRU's z) keep, "
            f"exp(−{lag} / τ_i), units sorted by their time constants τ_i: where the two part, the paths through h "
            f"matter. {over} {gone}",
        )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory, finished or not, and prints its table and where the figures lie; the page has the
    verdicts."""
    ds, experiment = read(Path(out)), manifest.experiment(out)
    task = task_of(experiment.specs[0])
    rows, cells = summary(ds, task), ", ".join(axis(ds, "label"))
    title = f"Singular spectra of window Jacobians: {cells}; T = {experiment.specs[0].steps}"
    caption = f"The window of {int(ds['window'].values[-1])} steps, untrained → trained"
    tables = [(caption, table(rows)), *claims.tables(verdicts)]
    return report.publish(out, title, text(experiment, ds, task, rows), figures(ds, task), tables)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
