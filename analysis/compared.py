"""Table, figure and report of `experiments.cures`: all cures of one network, and what an update of each costs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, cures, lags, report, style
from seqdyn.runs import manifest
from seqdyn.runs.records import load


def summary(parts: Sequence[Path], milliseconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """`cures.summary` of experiments of one setting each, with what an update costs beside the first's."""
    found = [
        row for part in parts for row in cures.summary(lags.one_setting(load(part)), manifest.described(part), None)
    ]
    plain = milliseconds[found[0]["label"]]
    return [row | {"ms": milliseconds[row["label"]], "cost": milliseconds[row["label"]] / plain} for row in found]


def comparison(found: Sequence[dict[str, Any]]) -> Figure:
    """A row a cure: share learned, horizon before and after training, cost."""
    fig, axes = style.panels(1, 3, 0.19 * len(found) + 0.7, sharey=True)
    y, (left, middle, right) = np.arange(len(found)), axes[0]
    share, reach = style.shares([(r["learned"], r["runs"]) for r in found])
    dots: dict[str, Any] = dict(marker="o", markersize=4, linestyle="none", linewidth=1)
    left.errorbar(share, y, xerr=reach, color=style.BLUE, capsize=2, **dots)
    for row, k in zip(found, y, strict=True):
        middle.plot([row["horizon_start"], row["horizon_end"]], [k, k], color="0.75", linewidth=1, zorder=0)
    for when, face, label in (("start", "white", "at initialisation"), ("end", style.VERMILION, "trained")):
        at = [r[f"horizon_{when}"] for r in found]
        middle.plot(at, y, color=style.VERMILION, markerfacecolor=face, label=label, **dots)
    middle.axvline(found[0]["steps"], color="0.6", linewidth=0.8)
    right.plot([r["cost"] for r in found], y, color="black", **dots)
    right.axvline(1, color="0.6", linewidth=0.8)
    left.set(xlim=(-0.05, 1.05), xlabel="share learned")
    middle.set(xlabel="horizon (lags)", xlim=(0, None))
    right.set(xlabel="time an update / plain's", xlim=(0, None))
    left.set_yticks(y, [style.plain(r["label"]) for r in found])
    left.invert_yaxis()
    for ax in axes[0]:
        ax.grid(axis="y", linewidth=0.3)
    fig.set_figwidth(style.PAGE)
    style.legend(fig, style.drawn(axes))
    return fig


def figures(found: Sequence[dict[str, Any]]) -> Iterator[report.Drawn]:
    """All cures."""
    yield (
        "cures",
        comparison(found),
        "Share of the seeds that learned, with Wilson's 95% interval; the horizon before and after training, medians "
        "over seeds, on the grey line censored at T; the time of an update on one core over that of the plain network.",
    )


def table(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For the reader."""
    return [
        {"cure": r["label"]}
        | {name: cures.rate(r[name], r["runs"]) for name in ("learned", "diverged")}
        | lags.before_after(r, ("start", "end"))
        | {"ms an update": f"{r['ms']:.2f}", "cost": f"×{r['cost']:.2f}"}
        for r in found
    ]


def show(
    out: Path, parts: Sequence[Path], milliseconds: Mapping[str, float], verdicts: Sequence[claims.Verdict] = ()
) -> list[Path]:
    """Draws the experiments of a directory and prints their table and where the figures lie; the `verdicts` are on the
    page."""
    found = summary(parts, milliseconds)
    text = [*cures.text(found, None), lags.setting(load(parts[0]))]
    tables = [("All cures; rates with 95% intervals", table(found)), *claims.tables(verdicts)]
    return report.publish(parts[0], "The cures, compared", text, figures(found), tables, into=out)
