"""Figures, table and report of `experiments.architectures`: what each architecture costs, how well it judges reviews,
what order is worth to it, and how far back its gradient reaches.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import claims, lags, report, style
from analysis.claims import Verdict
from analysis.judged import tops
from analysis.lags import SAID, STAGES, axis, lag_text, picked, stage
from analysis.selection import ACCURACY, at_chosen
from analysis.style import spread
from seqdyn.learn.config import Experiment
from seqdyn.runs import axes as record_axes
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr


def summary(ds: "xr.Dataset", experiment: Experiment, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """A row per architecture, with a value per seed of what is measured."""
    found = []
    reaches = {
        "start": tops(ds, experiment.specs, 0.0),
        "end": tops(ds, experiment.specs, 1.0),
        "bottom": tops(ds, experiment.specs, 1.0, bottom=True),
    }
    for spec in experiment.specs:
        runs = picked(ds, label=spec.label)
        params = record_axes.shapes(spec).params
        found.append(
            {
                "architecture": spec.label,
                "parameters": sum(
                    int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params._replace(embedding=None))
                ),
                "seconds": seconds.get(spec.label, np.nan),
                "test": at_chosen(ds, "test_accuracy", ACCURACY)[runs],
                "shuffled": at_chosen(ds, "shuffled_accuracy", ACCURACY)[runs],
                "steps": spec.steps,
            }
            | {name: reach[runs] for name, reach in reaches.items()}
        )
    return found


def table(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For the reader."""
    return [
        {
            "architecture": r["architecture"],
            "parameters": f"{r['parameters']:,}",
            "s an epoch": f"{r['seconds']:.1f}",
            "test accuracy": spread(r["test"]),
            "words shuffled": spread(r["shuffled"]),
            "order's worth": spread(r["test"] - r["shuffled"]),
            "horizon at start": lag_text(r["start"], r["steps"]),
            "trained": lag_text(r["end"], r["steps"]),
            "trained, bottom layer": lag_text(r["bottom"], r["steps"]),
        }
        for r in found
    ]


def comparison(found: Sequence[dict[str, Any]]) -> Figure:
    """Left: accuracy on reviews as they are and with their words shuffled; right: the horizon."""
    fig, panels = style.panels(1, 2, 0.3 * len(found) + 0.6, sharey=True)
    left, right = panels[0]
    y = np.arange(len(found))
    bars: dict[str, Any] = dict(capsize=2, linewidth=1, linestyle="none")
    for ax, names, labels in (
        (left, ("test", "shuffled"), ("reviews as they are", "words shuffled")),
        (
            right,
            ("start", "end", "bottom"),
            ("top layer, at initialisation", "after training", "bottom layer, trained"),
        ),
    ):
        for name, label, color, marker in zip(
            names, labels, (style.BLUE, style.VERMILION, "black"), "osx", strict=False
        ):
            mean = [np.nanmean(r[name]) for r in found]
            error = [np.nanstd(r[name], ddof=1) if len(r[name]) > 1 else 0.0 for r in found]
            ax.errorbar(mean, y, xerr=error, color=color, marker=marker, markersize=4, label=label, **bars)
        ax.grid(axis="y", linewidth=0.3)
    left.set_yticks(y, [style.plain(r["architecture"]) for r in found])
    left.invert_yaxis()
    left.set_xlabel("test accuracy")
    right.set_xlabel("gradient horizon (lags)")
    right.axvline(found[0]["steps"], color="0.6", linewidth=0.8)
    right.set_xlim(0, found[0]["steps"] * 1.06)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return fig


def norms(ds: "xr.Dataset", names: Sequence[str]) -> Figure:
    """‖∂L/∂h_t‖ against lag, a panel an architecture, a line a layer and stage."""
    fig, panels, used = style.wrapped(len(names), 4, 1.4, sharex=True, sharey=True)
    read = {SAID[when]: stage(ds, "adjoint_norm", fraction) for when, fraction in STAGES.items()}
    drawn = []
    for ax, name in zip(used, names, strict=True):
        runs = picked(ds, label=name)
        for (when, values), color in zip(read.items(), style.shades(len(read)), strict=True):
            layers = np.flatnonzero(~np.isnan(values[runs]).all(axis=(0, 2)))
            for k, layer in enumerate(layers):
                line = dict(color=color, linestyle=style.DASHES[k % 3], label=when if k == 0 else "_")
                drawn.append(style.median_band(ax, np.arange(values.shape[-1]), values[runs, layer], **line))
        ax.set_title(style.plain(name))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    style.log_axis(panels, drawn)
    for ax in panels[-1]:
        ax.set_xlabel("lag T − t")
    for ax in panels[:, 0]:
        ax.set_ylabel("‖∂L/∂h$_t$‖")
    style.legend(fig, style.drawn(panels))
    return fig


def text(found: Sequence[dict[str, Any]]) -> list[str]:
    """What the table says, in sentences computed from it."""

    def mean(r: dict[str, Any], name: str) -> float:
        return float(np.nanmean(r[name]))

    best = max(found, key=lambda r: mean(r, "test"))
    most = max(found, key=lambda r: mean(r, "test") - mean(r, "shuffled"))
    least = min(found, key=lambda r: mean(r, "test") - mean(r, "shuffled"))
    short = min(found, key=lambda r: mean(r, "end"))
    return [
        f"Best on the test split: {best['architecture']}, {spread(best['test'])}. Shuffling the words of the test "
        f"reviews costs {most['architecture']} most, {spread(most['test'] - most['shuffled'])}, and "
        f"{least['architecture']} least, {spread(least['test'] - least['shuffled'])}. The gradient at the top layer of "
        f"{short['architecture']} reaches back least after training, {lag_text(short['end'], short['steps'])} lags of "
        f"{short['steps']}; at its bottom layer it reaches {lag_text(short['bottom'], short['steps'])}. Means ± "
        f"standard deviations over {len(best['test'])} seeds; test accuracy is that of the probe with the best "
        "validation accuracy. Parameters are counted without the embedding, which all share."
    ]


def figures(ds: "xr.Dataset", found: Sequence[dict[str, Any]]) -> Iterator[report.Drawn]:
    """Accuracy with the horizon, and the norms."""
    yield (
        "comparison",
        comparison(found),
        "Left: accuracy on the test reviews, and on the same with their words in random order. Right: the first lag at "
        "which ‖∂L/∂h_t‖ falls below 1% of its value at the last word, at the top layer and, in a stack, at the bottom "
        "one; on the grey line it never does. Means and standard deviations over seeds.",
    )
    yield (
        "norms_by_lag",
        norms(ds, axis(ds, "label")),
        "‖∂L/∂h_t‖ against the lag from the last word, medians and quartiles over seeds. In a stack: solid the bottom "
        "layer, dashed the next, dotted the top; both ways: solid forwards, dashed backwards, whose lag counts from "
        "the first word.",
    )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and prints its table and where the figures lie; the page has the verdicts."""
    ds = lags.one_setting(lags.having(load(out), ACCURACY, "test_accuracy", "shuffled_accuracy"))
    timing = Path(out) / "seconds.json"
    seconds = json.loads(timing.read_text(encoding="utf-8")) if timing.exists() else {}
    found = summary(ds, manifest.experiment(out), seconds)
    tables = [("Means ± standard deviations over seeds", table(found)), *claims.tables(verdicts)]
    return report.publish(out, "What an architecture needs to read a review", text(found), figures(ds, found), tables)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
