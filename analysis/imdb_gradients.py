"""Figures and report of `experiments.imdb_gradients`: how far back the gradient reaches into a review, layer by layer,
at the start, half-way and at the end of training, and how well the network judges meanwhile.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from analysis import claims, lags, report, style
from analysis.claims import Verdict
from analysis.lags import Curve, axis, diverged, picked, stage
from analysis.selection import ACCURACY, at_chosen, chosen
from analysis.style import median
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

STAGES = {"start": 0.0, "half": 0.5, "end": 1.0}
"""Fractions of training at which the norms are drawn against lag."""


def summary(ds: "xr.Dataset") -> list[dict[str, Any]]:
    """A row per cell and layer: test accuracy at the chosen probe, and medians over runs of horizons and ratios."""
    test, step = at_chosen(ds, "test_accuracy", ACCURACY), ds["probe_step"].values[chosen(ds, ACCURACY)]
    stages = {when: stage(ds, "adjoint_norm", fraction) for when, fraction in STAGES.items()}
    rows = []
    for cell in axis(ds, "label"):
        runs = picked(ds, label=cell)
        low, middle, high = style.quantiles(test[runs], [0, 0.5, 1])
        for layer in range(ds.sizes["layer"]):
            row = {
                "cell": cell,
                "layer": layer,
                "runs": len(runs),
                "diverged": int(diverged(ds)[runs].any(axis=1).sum()),
            }
            row |= {"accuracy": float(middle), "least": float(low), "most": float(high)}
            row |= {"chosen": float(median(step[runs]))}
            rows.append(row | lags.reaches({when: norms[runs, layer] for when, norms in stages.items()}))
    return rows


def layers(ds: "xr.Dataset") -> list[str]:
    """Their names, bottom first."""
    return [f"layer {layer}" for layer in range(ds.sizes["layer"])]


def norms_by_lag(ds: "xr.Dataset") -> Figure:
    """Rows: layers, the top one first; columns: cells; a curve per stage."""
    names = [name for name in ("adjoint_norm", "adjoint_norm_c") if name in ds]
    read = {(name, when): stage(ds, name, fraction) for name in names for when, fraction in STAGES.items()}
    shades = dict(zip(STAGES, style.shades(len(STAGES)), strict=True))

    def curves(layer: int, cell: str) -> list[Curve]:
        runs = picked(ds, label=cell)
        return [
            Curve(norms[runs, layer], shades[when], lags.SAID[when], name == "adjoint_norm_c")
            for (name, when), norms in read.items()
        ]

    top_first = range(ds.sizes["layer"])[::-1]
    panels = [[curves(layer, cell) for cell in axis(ds, "label")] for layer in top_first]
    return lags.lag_figure(panels, layers(ds)[::-1], axis(ds, "label"))


def norms_through_training(ds: "xr.Dataset") -> Figure:
    """Rows: layers, the top one first; columns: cells."""
    cells, edges = axis(ds, "label"), lags.log_edges(ds.sizes["step"])
    top_first = range(ds.sizes["layer"])[::-1]
    runs = {cell: picked(ds, label=cell) for cell in cells}
    panels = [[lags.through_training(ds, edges, run=runs[c], layer=layer) for c in cells] for layer in top_first]
    return lags.lag_map(panels, edges, layers(ds)[::-1], cells)


def learning(ds: "xr.Dataset") -> Figure:
    """Accuracy and loss on each split; a ring at each run's chosen probe, on its test accuracy."""
    cells, probes = axis(ds, "label"), ds["probe_step"].values
    test, step = at_chosen(ds, "test_accuracy", ACCURACY), probes[chosen(ds, ACCURACY)]
    fig, axes = style.panels(2, len(cells), 1.35, sharex=True, sharey="row")
    for cell, (upper, lower) in zip(cells, axes.T, strict=True):
        runs = picked(ds, label=cell)
        x, loss = style.smoothed(ds["loss"].isel(run=runs).values)
        style.median_band(lower, x, loss, **style.SPLITS["train"])
        for split in ("validation", "test"):
            style.median_band(upper, probes, ds[f"{split}_accuracy"].values[runs], **style.SPLITS[split])
            style.median_band(lower, probes, ds[f"{split}_loss"].values[runs], **style.SPLITS[split])
        ring = dict(
            marker="o", markersize=5, markerfacecolor="none", markeredgecolor="black", linestyle="none", clip_on=False
        )
        upper.plot(step[runs], test[runs], label="test, at the probe chosen on validation", **ring)
    style.frame(axes, ["", ""], cells, "update")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("loss")
    axes[0, 0].set_xlim(0, ds.sizes["step"])
    style.legend(fig, style.drawn(axes))
    return fig


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader; horizons and ratios at the start, half-way and at the end."""
    broken = any(r["diverged"] for r in rows)
    return [
        {"cell": r["cell"], "layer": str(r["layer"])}
        | ({"diverged": f"{r['diverged']}/{r['runs']}"} if broken else {})
        | {"test accuracy": f"{r['accuracy']:.3f}", "its range": f"{r['least']:.3f}–{r['most']:.3f}"}
        | {"chosen update": f"{r['chosen']:g}"}
        | lags.before_after(r, list(STAGES))
        for r in rows
    ]


def of_cell(rows: Sequence[dict[str, Any]]) -> str:
    """One cell in sentences: its test accuracy, and each layer's horizon through training."""
    first = rows[0]
    text = (
        f"{first['cell']}: test accuracy {first['accuracy']:.3f} (median of {first['runs']} runs, {first['least']:.3f} "
        f"to {first['most']:.3f}) at the probe chosen on validation; {first['diverged']} diverged. "
    )
    for r in rows:
        start, half, end = (lags.reach(r, when) for when in STAGES)
        censored = ", ".join(str(r[f"censored_{when}"]) for when in STAGES)
        text += (
            f"Layer {r['layer']}: horizon (ratio) {start} at initialisation, {half} half-way, {end} after training "
            f"({censored} of {r['runs']} runs censored). "
        )
    return text.strip()


def text(ds: "xr.Dataset", rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was run, and each cell."""
    return [lags.setting(ds), *map(of_cell, lags.by_cell(rows))]


def figures(ds: "xr.Dataset") -> Iterator[report.Drawn]:
    """Norms by lag and through training, and what was learned."""
    updates, over = ds.sizes["step"], "Lines are medians over seeds, bands the middle half of them."
    yield (
        "norms_by_lag",
        norms_by_lag(ds),
        "How far back into a review the gradient reaches. Layer 0, the bottom one, receives a gradient from above at "
        "every step; the top one only at the last. Curves: at initialisation (the first update), half-way and after "
        f"training (medians of {lags.late(updates)} updates). {over} {lags.RINGS}",
    )
    yield (
        "norms_through_training",
        norms_through_training(ds),
        "The same through training: the norm at each lag over that at lag 0, median over seeds and over the updates of "
        "a bin. White: as large as at lag 0; blue: vanishing; red: exploding; grey: no record.",
    )
    yield (
        "learning",
        learning(ds),
        f"Accuracy and loss; training loss is a mean over {max(1, updates // style.BINS)} updates. {over} Rings: each "
        "run's test accuracy at the probe with its best validation accuracy.",
    )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory, finished or not, and prints its table and where the figures lie; the page has the
    verdicts."""
    ds = lags.split(lags.having(load(out), "validation_accuracy", "test_accuracy"))
    rows, cells = summary(ds), ", ".join(axis(ds, "label"))
    title = f"Gradients through reviews, layer by layer: {cells}; T = {manifest.experiment(out).specs[0].steps}"
    tables = [("Medians over seeds; test accuracy also as its range", table(rows)), *claims.tables(verdicts)]
    return report.publish(out, title, text(ds, rows), figures(ds), tables)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
