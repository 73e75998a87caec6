"""Table and figure of `experiments/theory_check.py`: measured values beside, and on, what theory predicts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from analysis import style
from seqdyn.runs.display import plain_console
from seqdyn.theory import MeanField

DRIVE = 0.5
"""s, the deviation per unit of fresh input at each step."""
MARKS = {"Gaussian": ("o", style.BLUE, -0.015), "orthogonal": ("s", style.VERMILION, 0.015)}
"""By kind of U: marker, colour, and how far aside its differences stand where there are both."""


def table(rows: list[dict[str, Any]]) -> Table:
    """One row a quantity: measured ± standard error, predicted, difference, agrees to."""
    drawn = Table(title="measured with the library against seqdyn.theory")
    for heading in ("quantity", "at", "measured", "predicted", "difference", "agrees to"):
        drawn.add_column(heading, no_wrap=True, justify="left" if heading in ("quantity", "at") else "right")
    before = None
    for row in rows:
        if before not in (None, row["quantity"]):
            drawn.add_section()
        before = row["quantity"]
        small = abs(row["measured"]) < 1e-4
        measured = f"{row['measured']:.1e}" if small else f"{row['measured']:.4f}"
        error = row.get("error")
        error = "" if error is None or np.isnan(error) else f" ± {error:.4f}"
        difference = f"{100 * row['difference']:+.2f}%" if row.get("relative") else f"{row['difference']:+.1e}"
        within = row["within"]
        allowed = "–" if within is None else f"{100 * within:g}%" if row.get("relative") else f"{within:g}"
        mark = {True: " ✓", False: " ✗", None: "  "}[row["agrees"]]
        drawn.add_row(
            row["quantity"], row["at"], measured + error, f"{row['predicted']:.4f}", difference, allowed + mark
        )
    return drawn


def points(ax: Axes, x: Any, y: Any, error: Any, kind: str, **more: Any) -> None:
    """Open markers with error bars."""
    marker, color, _ = MARKS[kind]
    look = {"markersize": 3.5, "markerfacecolor": "none", "capsize": 1.5, "elinewidth": 0.8, "linestyle": ""}
    ax.errorbar(x, y, np.nan_to_num(error), marker=marker, color=color, **look, **more)


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Above, measurements on the curves of theory; below, how far they are off, and the band they must stay in."""
    fig, axes = style.panels(2, 3, 1.5, sharex="col", height_ratios=[2, 1])
    for (above, below), name in zip(axes.T[:2], ("growth", "largest exponent"), strict=True):
        of = [row for row in rows if row["quantity"] == name]
        x, measured, predicted, error = (
            np.asarray([r[k] for r in of]) for k in ("gain", "measured", "predicted", "error")
        )
        kinds = np.asarray([row["kind"] for row in of])
        gains = np.linspace(x.min() - 0.05, x.max() + 0.05, 60)
        fields = [MeanField("tanh", gain, DRIVE) for gain in gains]
        curve = [f.chi1 if name == "growth" else f.exponent for f in fields]
        above.plot(gains, curve, color="black", zorder=1, label="theory")
        above.axhline(1.0 if name == "growth" else 0.0, color="0.7", linewidth=0.6, zorder=0)  # the edge of chaos
        unit = predicted / 100 if name == "growth" else np.ones_like(predicted)
        for kind in dict.fromkeys(kinds.tolist()):
            at = kinds == kind
            aside = MARKS[kind][2] if len(set(kinds)) > 1 else 0.0
            points(above, x[at], measured[at], error[at], kind, label=kind)
            points(below, x[at] + aside, ((measured - predicted) / unit)[at], (error / unit)[at], kind)
    spectrum = next(row for row in rows if "spectrum" in row)
    above, below = axes[:, 2]
    i, found, exact = (
        np.arange(1, len(spectrum["exact"]) + 1),
        *(np.asarray(spectrum[k]) for k in ("spectrum", "exact")),
    )
    above.plot(i, exact, color="black", zorder=1)
    points(above, i, found, spectrum["errors"], "Gaussian")
    points(below, i, found - exact, spectrum["errors"], "Gaussian")
    for ax, within in zip(axes[1], (4.0, 0.01, spectrum["within"]), strict=True):
        ax.axhspan(-within, within, color="0.92", linewidth=0, zorder=0, label="agreement asked for")
        ax.axhline(0.0, color="black", linewidth=0.6, zorder=1)
    labels = (
        ("growth of E‖∂L/∂h‖² a step", "gain g", "χ₁", "difference (%)"),
        ("largest Lyapunov exponent", "gain g", "½ log χ₁", "difference"),
        ("product of Gaussian matrices", "i", "λᵢ (Newman 1986)", "difference"),
    )
    for column, (title, x, y, below) in zip(axes.T, labels, strict=True):
        column[0].set_title(title)
        column[0].set_ylabel(y)
        column[1].set_xlabel(x)
        column[1].set_ylabel(below)
    fig.align_ylabels(axes)
    style.legend(fig, style.drawn(axes))
    return fig


def show(out: Path) -> list[Path]:
    """Prints the table of a measurement, writes it and the figure beside it, and returns both files."""
    rows = json.loads((out / "theory_check.json").read_text(encoding="utf-8"))["rows"]
    console = plain_console(width=130, record=True)
    console.print(table(rows))
    with style.look():
        drawn = style.save(figure(rows), out / "theory_check")
    console.print(str(drawn), soft_wrap=True)
    text = out / "theory_check.txt"
    text.write_text(console.export_text(), encoding="utf-8")
    return [drawn, text]
