"""Figures, tables and report of `experiments.capacity`: errors of recurrent networks against their width, the size of
their training set and how long they were trained, and what grows meanwhile.

The look is chosen by validation loss (`analysis.selection`); errors are shares of the sequences of a split.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from analysis import claims, lags, outcomes, report, selection, style
from analysis.claims import Verdict
from analysis.lags import picked, stage
from analysis.learned import unfinished
from seqdyn.data.tasks import TASKS
from seqdyn.learn.config import Experiment
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

GREY = "0.55"
LEAST = 0.008
"""What is below, as 0 is, is drawn here: three of 360 sequences."""
WIDE = ("chosen: validation", "best test look, not selectable", "spectral radius", "gradient ratio", "horizon")
"""Columns that do not fit a terminal."""
VALUES = (
    *("train_last", "test_chosen", "test_last", "radius_start", "radius_chosen", "radius_last"),
    *("reach_start", "reach_last"),
)
"""What `columns` says of a run: shares told wrong, and what grows (of `reach` its log₂), at the start, where validation
chose, at the end."""
EDGE: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.6, "zorder": 5}


def part(n: int, wrong: float) -> str:
    """The folder of an experiment."""
    return f"n{n}_wrong{wrong:g}"


class Part(NamedTuple):
    """One training set, all widths."""

    n: int
    wrong: float
    ds: "xr.Dataset"
    experiment: Experiment
    chosen: np.ndarray
    """[run] look with the least validation loss."""

    @property
    def widths(self) -> list[int]:
        return [spec.hidden[0] for spec in self.experiment.specs]

    def of(self, width: int) -> np.ndarray:
        """Runs."""
        spec = next(s for s in self.experiment.specs if s.hidden[0] == width)
        return picked(self.ds, label=spec.label)

    def error(self, split: str) -> np.ndarray:
        """[run, look] share of a split's sequences that are told wrong."""
        return 1 - self.ds[f"{split}_accuracy"].values

    def at(self, values: np.ndarray) -> np.ndarray:
        """[run] of [run, look], where validation chose."""
        return values[np.arange(len(values)), self.chosen]

    def weight(self) -> np.ndarray:
        """[run, look] norm of all parameters over that before training."""
        norm = np.sqrt(np.nansum(self.ds["group_weight_norm"].values.astype(float) ** 2, axis=-1))
        return norm / norm[:, :1]

    def radius(self) -> np.ndarray:
        """[run, look] largest spectral radius of a gate's recurrent block."""
        return self.ds["spectral_radius"].values.max(axis=(2, 3))

    def reach(self) -> np.ndarray:
        """[run, look] ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖: the median over the updates since the look before; first, at update 0."""
        ratio = lags.relative(lags.adjoint(self.ds, "adjoint_norm").values[:, :, 0, ::-1])[..., -1]
        every = self.experiment.probe_every
        since = ratio[:, : ratio.shape[1] // every * every].reshape(len(ratio), -1, every)
        return np.concatenate([ratio[:, :1], style.median(np.moveaxis(since, 2, 0))], axis=1)


def read(part: Path) -> Part:
    """One experiment's records."""
    ds, e = load(part), manifest.experiment(part)
    n, wrong = e.name.removeprefix("capacity_n").split("_wrong")
    return Part(int(n), float(wrong), ds, e, selection.chosen(ds))


def columns(*parts: Path) -> "xr.Dataset":
    """`VALUES`, one value a run of all training sets. What has diverged tells all wrong in the end; what is not known
    of it, or of runs that are unfinished, is NaN."""

    def measured(part: Path) -> dict[str, np.ndarray]:
        p = read(part)
        train, test, radius, reach = p.error("train"), p.error("test"), p.radius(), p.reach()
        gone = np.any(lags.diverged(p.ds), axis=1)
        open_ = unfinished(p.ds)
        return {
            "train_last": np.where(gone, 1.0, train[:, -1]),
            "test_chosen": np.where(open_, np.nan, p.at(test)),
            "test_last": np.where(gone, 1.0, test[:, -1]),
            "radius_start": radius[:, 0],
            "radius_chosen": np.where(open_, np.nan, p.at(radius)),
            "radius_last": radius[:, -1],
            "reach_start": np.log2(reach[:, 0]),
            "reach_last": np.log2(reach[:, -1]),
        }

    return outcomes.gathered(parts, measured)


def grid(parts: Sequence[Part]) -> list[list[Part]]:
    """Rows: shares of wrong labels; columns: numbers of training sequences."""
    return [[p for p in parts if p.wrong == wrong] for wrong in dict.fromkeys(p.wrong for p in parts)]


def labels(wrong: float) -> str:
    """'20% wrong labels'."""
    return f"{wrong:.0%} wrong labels" if wrong else "right labels"


def widths_axis(ax: Axes, widths: Sequence[int]) -> None:
    """Powers of two as they are."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.xaxis.set_minor_locator(NullLocator())


def against_width(parts: Sequence[Part]) -> Figure:
    """Errors at the last update, and the test error that validation chose, against width."""
    rows = grid(parts)
    fig, axes = style.panels(len(rows), len(rows[0]), 1.5, sharex=True, sharey=True)
    drawn = []
    for row, of_row in zip(axes, rows, strict=True):
        for ax, p in zip(row, of_row, strict=True):
            for split, of in style.SPLITS.items():
                last = np.maximum(np.stack([p.error(split)[p.of(w), -1] for w in p.widths], axis=1), LEAST)
                line = of | dict(linestyle="-", marker="o", markersize=3, label=f"{of['label']}, last update")
                drawn.append(style.median_band(ax, np.asarray(p.widths), last, **line))
            at = np.stack([p.at(p.error("test"))[p.of(w)] for w in p.widths], axis=1)
            line = dict(color=style.VERMILION, marker="s", markersize=3, linestyle=style.DASHES[1])
            drawn.append(style.median_band(ax, np.asarray(p.widths), at, label="test, chosen by validation", **line))
            if p.wrong:
                ax.axhline(p.wrong, color=GREY, linewidth=0.8)
            widths_axis(ax, p.widths)
    style.log_axis(axes, drawn)
    style.frame(
        axes, [labels(r[0].wrong) for r in rows], [f"{p.n:,} training sequences" for p in rows[0]], "hidden units"
    )
    for ax in axes[:, 0]:
        ax.set_ylabel("share told wrong")
    style.legend(fig, style.drawn(axes))
    return fig


def along(parts: Sequence[Part]) -> Figure:
    """What grows along training, a curve a width, columns the smallest and the largest training set."""
    rows = grid(parts)
    shown = [p for row in rows for p in dict.fromkeys((0, len(row) - 1)) for p in [row[p]]]
    measures = {
        "training\nerror": lambda p: np.maximum(p.error("train"), LEAST),
        "test error": lambda p: np.maximum(p.error("test"), LEAST),
        "‖w‖ / at\nthe start": Part.weight,
        "spectral\nradius": Part.radius,
        "‖∂L/∂h$_1$‖ /\n‖∂L/∂h$_T$‖": Part.reach,
    }
    fig, axes = style.panels(len(measures), len(shown), 1.05, sharex=True, sharey="row")
    widths = parts[0].widths
    colors = dict(zip(widths, style.shades(len(widths)), strict=True))
    for row, (name, measure) in zip(axes, measures.items(), strict=True):
        drawn = []
        for ax, p in zip(row, shown, strict=True):
            values, looks = measure(p), p.ds["probe_step"].values
            x = np.maximum(looks, p.experiment.probe_every / 2)  # update 0, on a log axis
            for w in widths:
                runs = p.of(w)
                drawn.append(style.median_band(ax, x, values[runs], color=colors[w], label=f"{w} units"))
                look = int(np.median(p.chosen[runs]))
                ax.plot(x[look], drawn[-1][look], "o", color=colors[w], markersize=3.5, **EDGE)
            ax.set_xscale("log")
        if "error" in name or "L" in name:
            style.log_axis(row, drawn)
        row[0].set_ylabel(name)
    for ax, p in zip(axes[0], shown, strict=True):
        ax.set_title(f"{p.n:,} sequences,\n{labels(p.wrong)}")
    for ax in axes[-1]:
        ax.set_xlabel("update")
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].plot([], [], "o", color="white", markersize=3.5, label="chosen by validation", **EDGE)
    fig.align_ylabels(axes)
    style.legend(fig, style.drawn(axes))
    return fig


# --- in words -------------------------------------------------------------------------------------------------


def ranged(values: np.ndarray, digits: int = 3) -> str:
    """'median (lowest–highest)'."""
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f}–{values.max():.{digits}f})"


def summary(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """A row a training set and width, with a value per seed of what is measured."""
    found = []
    for p in parts:
        of = {split: p.error(split) for split in style.SPLITS}
        grown = {"weight": p.weight(), "radius": p.radius(), "reach": p.reach()}
        verdicts = selection.verdicts(p.ds, TASKS["labelled"](p.experiment.specs[0]).chance)
        norms = {when: stage(p.ds, "adjoint_norm", at)[:, 0] for when, at in lags.STAGES.items()}
        for w in p.widths:
            runs = p.of(w)
            row: dict[str, Any] = {"n": p.n, "wrong": p.wrong, "width": w, "updates": p.experiment.updates}
            row |= {f"{split}_last": error[runs, -1] for split, error in of.items()}
            row |= {f"{split}_chosen": p.at(error)[runs] for split, error in of.items()}
            row |= {f"{name}_start": values[runs, 0] for name, values in grown.items()}
            row |= {f"{name}_chosen": p.at(values)[runs] for name, values in grown.items()}
            row |= {f"{name}_last": values[runs, -1] for name, values in grown.items()}
            row["best_test"] = 1 - selection.not_selectable(p.ds)[runs]
            row["verdicts"] = [verdicts[run] for run in runs]
            row["chosen"] = p.ds["probe_step"].values[p.chosen[runs]]
            found.append(row | lags.reaches({when: of_stage[runs] for when, of_stage in norms.items()}))
    return found


def before_after(row: dict[str, Any], name: str) -> str:
    """'0.4 → 0.7 → 3.1': at the start, where validation chose, at the end."""
    return " → ".join(lags.number(float(np.median(row[f"{name}_{when}"]))) for when in ("start", "chosen", "last"))


def table(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For the reader."""
    return [
        {
            "training sequences": f"{r['n']:,}",
            "wrong labels": f"{r['wrong']:.0%}",
            "hidden": str(r["width"]),
            "training error": f"{np.median(r['train_last']):.3f}",
            "test error": ranged(r["test_last"]),
            "chosen: validation": f"{np.median(r['validation_chosen']):.3f}",
            "chosen: test": ranged(r["test_chosen"]),
            "at update": f"{np.median(r['chosen']):,.0f}",
            "best test look, not selectable": f"{np.median(r['best_test']):.3f}",
            "by the rule": selection.counted(r["verdicts"]),
            "spectral radius": before_after(r, "radius"),
            "gradient ratio": before_after(r, "reach"),
            "horizon": " → ".join(lags.lag_name(r, when) for when in ("start", "end")),
        }
        for r in found
    ]


def text(found: Sequence[dict[str, Any]]) -> list[str]:
    """What the networks say, in sentences computed from the rows."""

    def mid(row: dict[str, Any], name: str) -> float:
        return float(np.median(row[name]))

    told = []
    for wrong in dict.fromkeys(r["wrong"] for r in found):
        n = max(r["n"] for r in found)
        of = [r for r in found if r["wrong"] == wrong and r["n"] == n]
        chosen, last = (min(of, key=lambda r, k=k: mid(r, k)) for k in ("validation_chosen", "validation_last"))
        wide = max(of, key=lambda r: r["width"])
        told.append(
            f"With {n:,} sequences and {labels(wrong)}, validation chooses {chosen['width']} units, test error "
            f"{ranged(chosen['test_chosen'])}, when it may choose the update, and {last['width']} at the last one, "
            f"{ranged(last['test_last'])}. The widest, {wide['width']}, is at {mid(wide, 'test_chosen'):.3f} where "
            f"validation chose (update {mid(wide, 'chosen'):,.0f}) and {mid(wide, 'test_last'):.3f} in the end, with a "
            f"training error of {mid(wide, 'train_last'):.3f}; its spectral radius goes "
            f"{before_after(wide, 'radius')}, "
            f"‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ {before_after(wide, 'reach')} (start, chosen, end)."
        )
    for wrong in dict.fromkeys(r["wrong"] for r in found):
        of = [r for r in found if r["wrong"] == wrong]
        counts = selection.counted([name for r in of for name in r["verdicts"]])
        later = np.concatenate([r["test_last"] - r["test_chosen"] for r in of])
        told.append(
            f"Of the runs with {labels(wrong)}: {counts}; {int(np.sum(later > 0))} of {later.size} tell more test "
            f"sequences wrong at the end than where validation chose, by {np.median(later):.3f} in the median."
        )
    return [" ".join([*told, selection.RULE])]


def figures(parts: Sequence[Part]) -> Iterator[report.Drawn]:
    """Against width, and along training."""
    e = parts[0].experiment
    yield (
        "against_width",
        against_width(parts),
        f"Digits read row by row, {e.specs[0].cell}: shares told wrong after {e.updates:,} updates of "
        f"{e.specs[0].batch} sequences, and, dashed, the test error at the look that validation chose. Grey: the share "
        "of training labels that are wrong; validation and test labels are right. What is below "
        f"{LEAST:g} is drawn there. Medians and quartiles over seeds.",
    )
    yield (
        "along_training",
        along(parts),
        "The capacity in use grows along training: errors, the norm of all parameters over that at the start, the "
        "spectral radius of U, and how much of the gradient reaches the first row of an image; by hidden units. "
        "Circles: the look that validation chose. Medians and quartiles over seeds.",
    )


def show(out: Path, names: Sequence[str], verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and all experiments in it, and prints their tables and where the figures lie; the page has
    the verdicts."""
    parts = [read(out / name) for name in names]
    found = summary(parts)
    rows = table(found)
    return report.publish(
        out / names[0],
        "Capacity",
        [*text(found), lags.setting(parts[0].ds)],
        figures(parts),
        [("Medians (lowest–highest) over seeds", rows), *claims.tables(verdicts)],
        into=out,
        printed=[[{name: said for name, said in row.items() if name not in WIDE} for row in rows]],
    )
