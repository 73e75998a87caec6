"""Figures and report of any run directory, of `experiments.gradient_flow` or your own: how far the gradient reaches
back, before and after training, and which runs learned; a column a label, told apart by whatever else was swept.

    python -m analysis.gradient_flow RUN_DIR [--out FOLDER]
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis import claims, lags, report, style
from analysis.claims import Verdict
from analysis.lags import Curve, axis, diverged, picked, stage
from analysis.learned import STATUSES, Criterion, criterion, latest, passes, statuses
from analysis.style import median
from seqdyn.learn.spec import Spec
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RunDir, script
from seqdyn.runs.why import diverged as diverged_runs
from seqdyn.runs.why import why
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

SHOWN = 8
"""Runs that diverged whose break the report tells."""


def clip_name(clip: float) -> str:
    """'clip 0.1', or 'no clip' for infinity; NaN is a rule of one's own."""
    return "own clip" if np.isnan(clip) else lags.named("clip", clip)


def gain_name(gain: float) -> str:
    """'gain 1'; cells of one's own have none."""
    return "" if np.isnan(gain) else f"gain {gain:g}"


def layer_names(ds: "xr.Dataset") -> list[str]:
    """'layer 0', …; of a network that is no stack the names of its scans; '' of a single one."""
    names = ds["layer"].values.tolist()
    return [name if isinstance(name, str) else f"layer {name}" for name in names] if len(names) > 1 else [""]


def summary(ds: "xr.Dataset", of: Criterion) -> list[dict[str, Any]]:
    """A row per cell, gain, clip and layer: runs by status, and `lags.reaches` at the start and at the end."""
    status, loss, met = statuses(ds, of), latest(ds["test_loss"].values), passes(ds[of.metric].values, of)
    stages = {"start": stage(ds, "adjoint_norm", 0), "end": stage(ds, "adjoint_norm", 1)}
    rows = []
    for cell, gain, clip in product(axis(ds, "label"), axis(ds, "gain"), axis(ds, "clip")):
        runs = picked(ds, label=cell, gain=gain, clip=clip)
        if not len(runs):  # grids of specs may have axes of their own
            continue
        for layer, name in enumerate(layer_names(ds)):
            row = {"cell": cell, "gain": gain, "clip": clip, "layer": name, "runs": len(runs)}
            row |= {"target": float(of.target[runs[0]]), "chance": float(of.chance[runs[0]])}
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
            Curve(read[name, end][runs[gain]], shades[gain], gain_name(gain), name == "adjoint_norm_c")
            for name in names
            for gain in gains
            if len(runs[gain])
        ]

    first = [[curves(cell, axis(ds.isel(run=picked(ds, label=cell)), "clip")[0], 0) for cell in cells]]
    trained = [[curves(cell, clip, 1) for cell in cells] for clip in clips]
    rows = ["at initialisation", *(f"trained, {clip_name(clip)}" for clip in clips)]
    return lags.lag_figure(first + trained, rows, cells)


def norms_through_training(ds: "xr.Dataset", layer: int, clip: float) -> Figure:
    """Rows: gains; columns: cells; at one threshold."""
    cells, gains, edges = axis(ds, "label"), axis(ds, "gain"), lags.log_edges(ds.sizes["step"])

    def panel(cell: str, gain: float) -> np.ndarray | None:
        runs = picked(ds, label=cell, gain=gain, clip=clip)
        return lags.through_training(ds, edges, run=runs, layer=layer) if len(runs) else None

    panels = [[panel(cell, gain) for cell in cells] for gain in gains]
    return lags.lag_map(panels, edges, [gain_name(g) for g in gains], cells)


def by_update(ds: "xr.Dataset", name: str, clip: float, axes: np.ndarray) -> list[np.ndarray]:
    """Draws a quantity against updates at one threshold, a panel per cell, a curve per gain; returns the medians."""
    gains, drawn = axis(ds, "gain"), []
    for cell, ax in zip(axis(ds, "label"), axes, strict=True):
        if not len(picked(ds, label=cell, clip=clip)):
            ax.set_axis_off()
        for gain, color in zip(gains, style.shades(len(gains)), strict=True):
            runs = picked(ds, label=cell, gain=gain, clip=clip)
            if not len(runs):
                continue
            x, values = style.smoothed(ds[name].isel(run=runs).values)
            drawn.append(style.median_band(ax, x, values, color=color, label=gain_name(gain)))
            ends = [end.argmax() + 1 for end in diverged(ds)[runs] if end.any()]
            if ends:
                top = dict(transform=ax.get_xaxis_transform(), clip_on=False, linestyle="none", marker="x")
                ax.plot(ends, [1] * len(ends), color=color, label="diverged", **top)
    return drawn


def highest(of: Criterion) -> float:
    """Where the axis of losses ends: an exploding start is orders of magnitude above what the curves are about. Without
    end where no run has a constant predictor's loss, or none that a log axis has."""
    chance = of.chance[np.isfinite(of.chance) & (of.chance > 0)]
    return 10 * float(chance.max()) if chance.size else np.inf


def learning(ds: "xr.Dataset", of: Criterion) -> Figure:
    """The training loss, a row per threshold, and the share of updates that each finite threshold changed."""
    cells, clips = axis(ds, "label"), axis(ds, "clip")
    finite = [clip for clip in clips if np.isfinite(clip)]
    fig, axes = style.panels(len(clips) + len(finite), len(cells), 1.2, sharex=True, sharey="row")
    losses, shares = np.split(axes, [len(clips)])
    levels = {"constant predictor": of.chance} | ({"learned": of.target} if of.of_loss else {})
    drawn = [np.concatenate([level[np.isfinite(level)] for level in levels.values()])]
    for clip, row in zip(clips, losses, strict=True):
        drawn += by_update(ds, "loss", clip, row)
        for cell, ax in zip(cells, row, strict=True):
            for (name, level), dashes in zip(levels.items(), style.DASHES[1:], strict=False):
                for value in np.unique(level[picked(ds, label=cell, clip=clip)]):
                    if np.isfinite(value):
                        ax.axhline(value, color="0.4", linewidth=0.8, linestyle=dashes, label=name)
    for clip, row in zip(finite, shares, strict=True):
        by_update(ds, "clipped", clip, row)
        row[0].set_ylim(0, 1.02)
    quantities = ["training loss"] * len(clips) + ["share clipped"] * len(finite)
    style.frame(axes, [clip_name(clip) for clip in clips + finite], cells, "update", quantities)
    style.loss_axis(losses, drawn, highest(of))
    axes[0, 0].set_xlim(0, ds.sizes["step"])
    style.legend(fig, style.drawn(axes))
    return fig


def outcomes(ds: "xr.Dataset", of: Criterion) -> Figure:
    """A square per gain and threshold, divided among its runs by what became of them; columns: cells."""
    cells, gains, clips = axis(ds, "label"), axis(ds, "gain"), axis(ds, "clip")
    status, good = statuses(ds, of), "learned" if of.known.any() else "trained"
    fig, axes = style.panels(1, len(cells), 0.3 + 0.33 * len(gains), sharex=True, sharey=True)
    for cell, ax in zip(cells, axes[0], strict=True):
        for (x, clip), (y, gain) in product(enumerate(clips), enumerate(gains)):
            those = status[picked(ds, label=cell, gain=gain, clip=clip)]
            if not len(those):
                continue
            left = x - 0.5
            for name, color in STATUSES.items():
                share = float(np.mean(those == name))
                ax.add_patch(Rectangle((left, y - 0.5), share, 1, facecolor=color, edgecolor="none"))
                left += share
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=2))
            ax.annotate(f"{np.sum(those == good)}/{len(those)}", (x, y), ha="center", va="center")
        ax.set(xlim=(-0.5, len(clips) - 0.5), ylim=(-0.5, len(gains) - 0.5))
        ax.set_xticks(range(len(clips)), ["own" if c != c else f"{c:g}" if np.isfinite(c) else "none" for c in clips])
        ax.set_yticks(range(len(gains)), ["none" if g != g else f"{g:g}" for g in gains])
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
    layered, gains = any(r["layer"] for r in rows), any(np.isfinite(r["gain"]) for r in rows)
    known = any(r["trained"] < r["runs"] for r in rows)
    return [
        {"cell": r["cell"]}
        | ({"gain": f"{r['gain']:g}" if np.isfinite(r["gain"]) else "–"} if gains else {})
        | {"clip": clip_name(r["clip"]).removesuffix(" clip").removeprefix("clip ")}
        | ({"layer": r["layer"].removeprefix("layer ")} if layered else {})
        | ({"learned": f"{r['learned']}/{r['runs']}"} if known else {"runs": str(r["runs"])})
        | {name: str(r[name]) for name in said}
        | {"test loss": lags.number(r["test_loss"]), "share clipped": lags.number(r["clipped"])}
        | lags.before_after(r, ("start", "end"))
        for r in rows
    ]


def of_cell(rows: Sequence[dict[str, Any]], updates: int, of: Criterion, clip: str) -> str:
    """One cell in sentences: what became of its runs, then its horizons and ratios at the start and at the end."""
    bounded = {"value": "gradient's entries", "adjoint": "adjoints"}.get(clip, "updates")
    layers = list(dict.fromkeys(r["layer"] for r in rows))
    count = {name: sum(r[name] for r in rows if r["layer"] == layers[0]) for name in ("runs", "ever", *STATUSES)}
    censored = count["not yet"] + count["at chance"]
    if np.isfinite(rows[0]["target"]):
        known = np.isfinite(rows[0]["chance"])  # a task of one's own need not say it
        no_better = f"; {count['at chance']} of them no better than a constant" if known else ""
        said = [
            f"{count['learned']} of {count['runs']} runs learned ({of.metric.replace('_', ' ')} "
            f"{'below' if of.of_loss else 'above'} {rows[0]['target']:.3g} at the latest probe; {count['ever']} at "
            "some probe)",
            f"{count['diverged']} diverged",
            f"{censored} had not learned by {updates:,} updates (censored{no_better})",
        ]
    else:
        said = [
            f"{count['runs']} runs, of whose task it is not known when it is learned",
            f"{count['diverged']} diverged",
        ]
    said += [f"{count['unfinished']} are unfinished"] if count["unfinished"] else []
    text = f"{rows[0]['cell']}: {', '.join(said)}. "
    for clip in dict.fromkeys(r["clip"] for r in rows if np.isfinite(r["clip"])):
        low, high = style.quantiles(np.asarray([r["clipped"] for r in rows if r["clip"] == clip]), [0, 1])
        if not np.isnan(low):
            text += f"The threshold {clip:g} clipped {low:.0%} to {high:.0%} of the {bounded}. "

    def norms(when: str, clip: str, layer: str) -> str:
        of = [r for r in rows if clip_name(r["clip"]) == clip and r["layer"] == layer]
        total, runs = sum(r[f"censored_{when}"] for r in of), sum(r["runs"] for r in of)
        return ", ".join(lags.reach(r, when) for r in of) + (f" ({total} of {runs} runs censored)" if total else "")

    clips = list(dict.fromkeys(clip_name(r["clip"]) for r in rows))
    gains = list(dict.fromkeys(r["gain"] for r in rows if np.isfinite(r["gain"])))
    at = f" at gain {', '.join(f'{gain:g}' for gain in gains)}" if gains else ""
    for layer in layers:
        stages = [f"at initialisation {norms('start', clips[0], layer)}"]
        stages += [f"trained with {clip} {norms('end', clip, layer)}" for clip in clips]
        text += f"Horizon (ratio){f' in {layer}' if layer else ''}{at}: {'; '.join(stages)}. "
    return text.strip()


class Read(NamedTuple):
    """A run directory as it is drawn."""

    ds: "xr.Dataset"
    """Labelled by all that is swept but gain and clip, which are NaN of cells and rules of one's own."""
    criterion: Criterion
    clip: str
    """What the first spec's clip bounds."""


def read(out: str | Path) -> Read:
    """The records of any run directory; nobody's code but the library's is needed."""
    described = manifest.described(out)
    ds = load(out)
    missing = {name: ("run", np.full(ds.sizes["run"], np.nan)) for name in ("gain", "clip") if name not in ds.coords}
    ds = lags.split(ds.assign_coords(missing), "gain", "clip")
    return Read(ds, criterion(described), str(described["specs"][0].get("clip", Spec.clip)))


def broke(out: str | Path) -> list[str]:
    """Why the first runs that diverged did, a sentence each; none where that takes data or code that is not here."""
    found = []
    for run in diverged_runs(out)[:SHOWN]:
        with contextlib.suppress(ConfigError, RuntimeError):
            found.append(str(why(out, run, before=0)))
    return [f"{text[0].upper()}{text[1:]}." for text in found]


def figures(ds: "xr.Dataset", of: Criterion) -> Iterator[report.Drawn]:
    """Norms of each layer by lag and through training, what was learned, and by whom."""
    updates = ds.sizes["step"]
    over = "Lines are medians over seeds, bands the middle half of them."
    by_gain = ", by recurrent gain" if ds["gain"].notnull().any() else ""
    gone = int(np.sum(statuses(ds, of) == "diverged"))
    missing = f" {gone} of {ds.sizes['run']} runs diverged and are left out after training." if gone else ""
    for layer, name in enumerate(layer_names(ds)):
        # The names of scans are anything.
        suffix, where = (f"_layer{layer}", f"{name[0].upper()}{name[1:]}. ") if name else ("", "")
        yield (
            f"norms_by_lag{suffix}",
            norms_by_lag(ds, layer),
            f"{where}How far back the gradient reaches: at initialisation (the first update) and after training "
            f"(median of a run's last {lags.late(updates)} updates){by_gain}. {over}{missing} {lags.RINGS}",
        )
        for clip in axis(ds, "clip"):
            yield (
                f"norms_through_training_{clip_name(clip).replace(' ', '_')}{suffix}",
                norms_through_training(ds, layer, clip),
                f"{where}The same through training with {clip_name(clip)}: the norm at each lag over that at lag 0, "
                "median over seeds and over the updates of a bin. White: as large as at lag 0; blue: vanishing; red: "
                "exploding; grey: nothing recorded.",
            )
    yield (
        "learning",
        learning(ds, of),
        f"Training loss and share clipped: means of {max(1, updates // style.BINS)} updates. {over} A cross marks the "
        "update at which a run diverged."
        + (" The vertical axis ends at ten times the constant predictor's." if np.isfinite(highest(of)) else ""),
    )
    yield (
        "outcomes",
        outcomes(ds, of),
        f"What became of the runs of each gain and threshold, and how many learned. Runs that had not by {updates:,} "
        "updates are censored, not failed."
        if of.known.any()
        else "What became of the runs of each threshold, and how many are trained.",
    )


def text(out: str | Path, found: Read, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was run, each cell, and where runs broke that diverged."""
    ds, of, clip = found
    cells = [of_cell(some, ds.sizes["step"], of, clip) for some in lags.by_cell(rows)]
    return [lags.setting(ds), *cells, *(broke(out) if "diverged" in statuses(ds, of) else [])]


def show(out: str | Path, verdicts: Sequence[Verdict] = (), into: Path | None = None) -> list[Path]:
    """Draws a run directory, finished or not, and prints its table and where the figures lie, in it or in the folder
    `into`; the page has verdicts."""
    ds, of, _ = found = read(out)
    rows = summary(ds, of)
    cells, steps = (", ".join(map(str, axis(ds, name))) for name in ("label", "steps"))
    tables = [("Medians over seeds; counts of runs", table(rows)), *claims.tables(verdicts)]
    title = f"Gradients through time: {cells}; T = {steps}"
    return report.publish(out, title, text(out, found, rows), figures(ds, of), tables, into)


@dataclass(frozen=True)
class Config:
    run_dir: RunDir
    out: Path | None = None
    """Folder of figures and report; by default the run directory. (The page to explore has an --out of its own.)"""


def main(config: Config) -> None:
    """As the script that made it, if it states claims."""
    out, into = config.run_dir, config.out
    if into:
        report.check_folder(into, "what is drawn")
    claims.redrawn(out, lambda verdicts: show(out, verdicts, into))


if __name__ == "__main__":
    script(Config, main, __doc__)
