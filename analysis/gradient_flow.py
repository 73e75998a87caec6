"""Figures and report of any run directory, of `experiments.gradient_flow` or your own: how far the gradient reaches
back, before and after training, and which runs learned; a column a label, told apart by whatever else was swept.

    python -m analysis.gradient_flow RUN_DIR
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis import lags, report, style
from analysis.lags import Curve, axis, diverged, picked, stage
from analysis.style import median
from seqdyn.data.tasks import Task, task_of
from seqdyn.learn.config import Experiment
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

AT_CHANCE = 0.75
"""A loss above this share of the constant predictor's counts as no better: one summand known would halve it."""
STATUSES = {
    "learned": "#009e73",
    "not yet": "#8fd3bd",
    "at chance": "#bdbdbd",
    "diverged": "#d55e00",
    "unfinished": "#ffffff",
}
"""What can become of a run, with its colour (Okabe & Ito's, safe for the colour-blind)."""


# --- what the records say -----------------------------------------------------------------------------------


def latest(probes: Float[np.ndarray, "run probe"]) -> Float[np.ndarray, " run"]:
    """Each run's newest value that exists, else NaN."""
    there = ~np.isnan(probes)
    last = probes.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    return probes[np.arange(len(probes)), last]


def passes(values: np.ndarray, task: Task) -> np.ndarray:
    """Which values of the task's criterion count as learned; NaN never does."""
    metric, target = task.learned
    return values < target if metric.endswith("loss") else values > target


def learned_at(ds: "xr.Dataset", task: Task) -> Float[np.ndarray, " run"]:
    """After how many updates a look first met the task's criterion; NaN if none did."""
    met = passes(ds[task.learned[0]].values, task)
    return np.where(met.any(axis=1), ds["probe_step"].values[met.argmax(axis=1)].astype(float), np.nan)


def statuses(ds: "xr.Dataset", task: Task) -> np.ndarray:
    """Of each run: diverged; learned, at its latest probe; unfinished, or never tested; or censored, as 'at chance' or
    'not yet'."""
    tested = latest(ds[task.learned[0]].values)
    learned = passes(tested, task)
    unfinished = ~ds["recorded"].all("step").values | np.isnan(tested)
    chance = latest(ds["test_loss"].values) > AT_CHANCE * task.chance
    told = {"diverged": diverged(ds).any(axis=1), "learned": learned, "unfinished": unfinished, "at chance": chance}
    return np.select(list(told.values()), list(told), "not yet")


def clip_name(clip: float) -> str:
    """'clip 0.1', or 'no clip' for infinity."""
    return f"clip {clip:g}" if np.isfinite(clip) else "no clip"


def summary(ds: "xr.Dataset", task: Task) -> list[dict[str, Any]]:
    """A row per cell, gain, clip and layer: runs by status, and `lags.reaches` at the start and at the end."""
    status, loss, met = statuses(ds, task), latest(ds["test_loss"].values), passes(ds[task.learned[0]].values, task)
    stages = {"start": stage(ds, "adjoint_norm", 0), "end": stage(ds, "adjoint_norm", 1)}
    rows = []
    for cell, gain, clip in product(axis(ds, "label"), axis(ds, "gain"), axis(ds, "clip")):
        runs = picked(ds, label=cell, gain=gain, clip=clip)
        for layer in range(ds.sizes["layer"]):
            row = {"cell": cell, "gain": gain, "clip": clip, "layer": layer, "runs": len(runs)}
            row |= {name: int(np.sum(status[runs] == name)) for name in STATUSES}
            row |= {"ever": int(met[runs].any(axis=1).sum()), "test_loss": float(median(loss[runs]))}
            row |= {"clipped": lags.mean(ds["clipped"].isel(run=runs).values)}
            rows.append(row | lags.reaches({when: norms[runs, layer] for when, norms in stages.items()}))
    return rows


# --- figures --------------------------------------------------------------------------------------------------


def norms_by_lag(ds: "xr.Dataset", layer: int) -> Figure:
    """Rows: at initialisation, which no threshold changes, then after training with each; columns: cells."""
    cells, gains, clips = axis(ds, "label"), axis(ds, "gain"), axis(ds, "clip")
    shades = dict(zip(gains, style.shades(len(gains)), strict=True))
    names = [name for name in ("adjoint_norm", "adjoint_norm_c") if name in ds]
    read = {(name, end): stage(ds, name, end)[:, layer] for name in names for end in (0, 1)}

    def curves(cell: str, clip: float, end: int) -> list[Curve]:
        runs = {gain: picked(ds, label=cell, gain=gain, clip=clip) for gain in gains}
        return [
            Curve(read[name, end][runs[gain]], shades[gain], f"gain {gain:g}", name == "adjoint_norm_c")
            for name in names
            for gain in gains
        ]

    rows = {"at initialisation": (clips[0], 0)} | {f"trained, {clip_name(c)}": (c, 1) for c in clips}
    return lags.lag_figure([[curves(cell, *row) for cell in cells] for row in rows.values()], list(rows), cells)


def norms_through_training(ds: "xr.Dataset", layer: int, clip: float) -> Figure:
    """Rows: gains; columns: cells; at one threshold."""
    cells, gains, edges = axis(ds, "label"), axis(ds, "gain"), lags.log_edges(ds.sizes["step"])
    panels = [
        [lags.through_training(ds, edges, run=picked(ds, label=c, gain=g, clip=clip), layer=layer) for c in cells]
        for g in gains
    ]
    return lags.lag_map(panels, edges, [f"gain {g:g}" for g in gains], cells)


def by_update(ds: "xr.Dataset", name: str, clip: float, axes: np.ndarray) -> list[np.ndarray]:
    """Draws a quantity against updates at one threshold, a panel per cell, a curve per gain; returns the medians."""
    gains, drawn = axis(ds, "gain"), []
    for cell, ax in zip(axis(ds, "label"), axes, strict=True):
        for gain, color in zip(gains, style.shades(len(gains)), strict=True):
            runs = picked(ds, label=cell, gain=gain, clip=clip)
            x, values = style.smoothed(ds[name].isel(run=runs).values)
            drawn.append(style.median_band(ax, x, values, color=color, label=f"gain {gain:g}"))
            ends = [end.argmax() + 1 for end in diverged(ds)[runs] if end.any()]
            if ends:
                top = dict(transform=ax.get_xaxis_transform(), clip_on=False, linestyle="none", marker="x")
                ax.plot(ends, [1] * len(ends), color=color, label="diverged", **top)
    return drawn


def learning(ds: "xr.Dataset", task: Task) -> Figure:
    """The training loss, a row per threshold, and the share of updates that each finite threshold changed."""
    cells, clips = axis(ds, "label"), axis(ds, "clip")
    finite = [clip for clip in clips if np.isfinite(clip)]
    fig, axes = style.panels(len(clips) + len(finite), len(cells), 1.2, sharex=True, sharey="row")
    losses, shares = np.split(axes, [len(clips)])
    lines = {"constant predictor": task.chance}
    if task.learned[0] == "test_loss":
        lines["learned"] = task.learned[1]
    style.frame(axes, [clip_name(clip) for clip in clips + finite], cells, "update")
    drawn = [np.asarray(list(lines.values()))]
    for clip, row in zip(clips, losses, strict=True):
        drawn += by_update(ds, "loss", clip, row)
        row[0].set_ylabel("training loss")
    for clip, row in zip(finite, shares, strict=True):
        by_update(ds, "clipped", clip, row)
        row[0].set_ylim(0, 1.02)
        row[0].set_ylabel("share clipped")
    for ax in losses.flat:
        for (name, level), dashes in zip(lines.items(), style.DASHES[1:], strict=False):
            ax.axhline(level, color="0.4", linewidth=0.8, linestyle=dashes, label=name)
    # An exploding start is orders of magnitude above what the curves are about.
    style.log_axis(losses, drawn, highest=10 * task.chance)
    axes[0, 0].set_xlim(0, ds.sizes["step"])
    style.legend(fig, style.drawn(axes))
    return fig


def outcomes(ds: "xr.Dataset", task: Task) -> Figure:
    """A square per gain and threshold, divided among its runs by what became of them; columns: cells."""
    cells, gains, clips = axis(ds, "label"), axis(ds, "gain"), axis(ds, "clip")
    status = statuses(ds, task)
    fig, axes = style.panels(1, len(cells), 0.3 + 0.33 * len(gains), sharex=True, sharey=True)
    for cell, ax in zip(cells, axes[0], strict=True):
        for (x, clip), (y, gain) in product(enumerate(clips), enumerate(gains)):
            of = status[picked(ds, label=cell, gain=gain, clip=clip)]
            left = x - 0.5
            for name, color in STATUSES.items():
                share = float(np.mean(of == name))
                ax.add_patch(Rectangle((left, y - 0.5), share, 1, facecolor=color, edgecolor="none"))
                left += share
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=2))
            ax.annotate(f"{np.sum(of == 'learned')}/{len(of)}", (x, y), ha="center", va="center")
        ax.set(xlim=(-0.5, len(clips) - 0.5), ylim=(-0.5, len(gains) - 0.5))
        ax.set_xticks(range(len(clips)), [f"{c:g}" if np.isfinite(c) else "none" for c in clips])
        ax.set_yticks(range(len(gains)), [f"{g:g}" for g in gains])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    style.frame(axes, [""], cells, "clip threshold", "gain")
    censored = f"not learned by {ds.sizes['step']:,} updates"
    names = {"not yet": censored, "at chance": f"{censored}: at chance"}
    present = [name for name in STATUSES if name in status]
    patches = {names.get(s, s): Patch(facecolor=STATUSES[s], edgecolor="0.6") for s in present}
    style.legend(fig, patches)
    return fig


# --- the report -----------------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader; columns that would say nothing are left out."""
    said = [name for name in list(STATUSES)[1:] if any(r[name] for r in rows)]
    layered = any(r["layer"] for r in rows)
    return [
        {"cell": r["cell"], "gain": f"{r['gain']:g}", "clip": f"{r['clip']:g}"}
        | ({"layer": str(r["layer"])} if layered else {})
        | {"learned": f"{r['learned']}/{r['runs']}"}
        | {name: str(r[name]) for name in said}
        | {"test loss": lags.number(r["test_loss"]), "share clipped": lags.number(r["clipped"])}
        | lags.course(r, ("start", "end"))
        for r in rows
    ]


def story(rows: Sequence[dict[str, Any]], experiment: Experiment, task: Task) -> str:
    """One cell in sentences: what became of its runs, then its horizons and ratios at the start and at the end."""
    metric, target = task.learned
    bounded = {"norm": "updates", "value": "gradient's entries", "adjoint": "adjoints"}[experiment.specs[0].clip]
    count = {name: sum(r[name] for r in rows if r["layer"] == 0) for name in ("runs", "ever", *STATUSES)}
    censored = count["not yet"] + count["at chance"]
    side = "below" if metric.endswith("loss") else "above"
    said = [
        f"{count['learned']} of {count['runs']} runs learned ({metric.replace('_', ' ')} {side} {target:g} at the "
        f"latest probe; {count['ever']} at some probe)",
        f"{count['diverged']} diverged",
        f"{censored} had not learned by {experiment.updates:,} updates (censored; {count['at chance']} of them no "
        "better than a constant)",
    ]
    said += [f"{count['unfinished']} are unfinished"] if count["unfinished"] else []
    text = f"{rows[0]['cell']}: {', '.join(said)}. "
    for clip in dict.fromkeys(r["clip"] for r in rows if np.isfinite(r["clip"])):
        low, high = style.quantiles(np.asarray([r["clipped"] for r in rows if r["clip"] == clip]), [0, 1])
        if not np.isnan(low):
            text += f"The threshold {clip:g} clipped {low:.0%} to {high:.0%} of the {bounded}. "

    def norms(when: str, clip: float, layer: int) -> str:
        of = [r for r in rows if r["clip"] == clip and r["layer"] == layer]
        total, runs = sum(r[f"censored_{when}"] for r in of), sum(r["runs"] for r in of)
        return ", ".join(lags.reach(r, when) for r in of) + (f" ({total} of {runs} runs censored)" if total else "")

    for layer in dict.fromkeys(r["layer"] for r in rows):
        where = f" in layer {layer}" if any(r["layer"] for r in rows) else ""
        clips = list(dict.fromkeys(r["clip"] for r in rows))
        stages = [f"at initialisation {norms('start', clips[0], layer)}"]
        stages += [f"trained with {clip_name(clip)} {norms('end', clip, layer)}" for clip in clips]
        gains = ", ".join(f"{gain:g}" for gain in dict.fromkeys(r["gain"] for r in rows))
        text += f"Horizon (ratio){where} at gain {gains}: {'; '.join(stages)}. "
    return text.strip()


def _read(out: str | Path) -> tuple["xr.Dataset", Experiment]:
    """The records, labelled by all that is swept but gain and clip; ConfigError where cells have no gain, or nobody
    knows when the task is learned."""
    ds = load(out)
    if "gain" not in ds.coords:
        raise ConfigError(f"{out} has cells of its own, without the gain by which this is drawn; plot its records.")
    experiment = manifest.experiment(out)
    if not np.isfinite(task_of(experiment.specs[0]).chance):
        raise ConfigError(
            f"{out} has a task of its own, of which it is not known when it is learned; plot its records."
        )
    return lags.split(ds, "gain", "clip"), experiment


def draw(out: str | Path) -> list[Path]:
    """Writes figures/ and report.html of a run directory, finished or not; returns their paths."""
    out = Path(out)
    ds, experiment = _read(out)
    task = task_of(experiment.specs[0])
    updates, steps, layers = experiment.updates, ", ".join(map(str, axis(ds, "steps"))), ds.sizes["layer"]
    over = "Lines are medians over seeds, bands the middle half of them."
    gone = int(np.sum(statuses(ds, task) == "diverged"))
    missing = f" {gone} of {ds.sizes['run']} runs diverged and are left out after training." if gone else ""
    figures: list[tuple[Path, str]] = []

    def add(name: str, figure: Figure, caption: str) -> None:
        figures.append((style.save(figure, out / "figures" / name), caption))

    with style.look():
        for layer in range(layers):
            suffix, where = (f"_layer{layer}", f"Layer {layer}. ") if layers > 1 else ("", "")
            add(
                f"norms_by_lag{suffix}",
                norms_by_lag(ds, layer),
                f"{where}How far back the gradient reaches: at initialisation (the first update) and after training "
                f"(median of a run's last {lags.late(updates)} updates), by recurrent gain. {over}{missing} "
                f"{lags.RINGS}",
            )
            for clip in axis(ds, "clip"):
                add(
                    f"norms_through_training_{clip_name(clip).replace(' ', '_')}{suffix}",
                    norms_through_training(ds, layer, clip),
                    f"{where}The same through training with {clip_name(clip)}: the norm at each lag over that at lag "
                    "0, median over seeds and over the updates of a bin. White: as large as at lag 0; blue: vanishing; "
                    "red: exploding; grey: nothing recorded.",
                )
        add(
            "learning",
            learning(ds, task),
            f"Training loss and share clipped: means of {max(1, updates // style.BINS)} updates. {over} A cross marks "
            "the update at which a run diverged. The vertical axis ends at ten times the constant predictor's.",
        )
        add(
            "outcomes",
            outcomes(ds, task),
            f"What became of the runs of each gain and threshold, and how many learned. Runs that had not by "
            f"{updates:,} updates are censored, not failed.",
        )
    rows = summary(ds, task)
    cells = {cell: [r for r in rows if r["cell"] == cell] for cell in axis(ds, "label")}
    page = report.write(
        out,
        f"Gradients through time: {', '.join(cells)}; T = {steps}",
        [lags.setting(ds, experiment), *(story(of, experiment, task) for of in cells.values())],
        figures,
        [("Medians over seeds; counts of runs", table(rows))],
    )
    return [*(path for path, _ in figures), page]


def show(out: str | Path) -> None:
    """Draws a run directory and prints its summary and where the figures lie."""
    paths = draw(out)
    ds, experiment = _read(out)
    report.show(table(summary(ds, task_of(experiment.specs[0]))), paths)


if __name__ == "__main__":
    script(tyro.conf.Positional[Path], show, __doc__)
