"""Tables and figure of `experiments/costs.py`: milliseconds an update and bytes a run as sizes grow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from rich.table import Table

from analysis import style
from seqdyn.runs.display import plain_console

PLAN = {"runs": 1_000, "updates": 10_000, "steps": 1_000}
"""A sweep that is large for one machine."""


def exponent(sizes: list[int], ms: list[float]) -> float:
    """p of ms ∝ size^p, by least squares over the upper half of the sizes, at least two."""
    last = -max(2, (len(sizes) + 1) // 2)
    return float(np.polyfit(np.log(sizes[last:]), np.log(ms[last:]), 1)[0])


def table(found: dict[str, Any]) -> Table:
    """One row an axis and cell: milliseconds at each size, and the exponent."""
    base = ", ".join(f"{axis} {size}" for axis, size in found["base"].items())
    drawn = Table("grows", "cell", "ms an update, at each size", "exponent", title=f"all else: {base}", box=None)
    for row in sorted(found["time"], key=lambda row: list(found["base"]).index(row["axis"])):
        at = ", ".join(f"{size}: {ms:.3g}" for size, ms in zip(row["sizes"], row["ms"], strict=True))
        drawn.add_row(row["axis"], row["cell"], at, f"{exponent(row['sizes'], row['ms']):.2f}")
    return drawn


def bytes_of(row: dict[str, Any], kind: str) -> float:
    """Of one run and update."""
    return row[kind] / (row["runs"] * row["updates"])


def disk(found: dict[str, Any]) -> Table:
    """One row a setting: bytes of a run and update, in float32 and on disk, of which so many lags."""
    drawn = Table("T", "lags kept", "bytes a run and update", "on disk", title="the records of an LSTM", box=None)
    for row in found["disk"]:
        drawn.add_row(
            str(row["steps"]),
            str(row["lags"]),
            f"{bytes_of(row, 'bytes'):,.0f}",
            f"{bytes_of(row, 'disk'):,.0f}",
        )
    return drawn


def text(found: dict[str, Any]) -> str:
    """What `PLAN` takes on disk, by the longest sequences that were measured."""
    longest = max(row["steps"] for row in found["disk"])
    made = PLAN["runs"] * PLAN["updates"] * PLAN["steps"] / longest / 1e9
    told = [
        f"{made * bytes_of(row, 'disk'):,.1f} GB with {row['lags']:,} lags"
        for row in found["disk"]
        if row["steps"] == longest
    ]
    sweep = f"{PLAN['runs']:,} runs × {PLAN['updates']:,} updates at T = {PLAN['steps']:,}"
    return f"{sweep} would take, at the rate of T = {longest:,}: {', '.join(told)}."


def figure(found: dict[str, Any]) -> Figure:
    """A panel an axis, a line a cell."""
    names = list(found["base"])
    fig, axes = style.panels(1, len(names), 1.7, sharey=True)
    cells = list(dict.fromkeys(row["cell"] for row in found["time"]))
    for row in found["time"]:
        ax, color = axes[0, names.index(row["axis"])], style.shades(len(cells))[cells.index(row["cell"])]
        ax.plot(row["sizes"], row["ms"], "o-", markersize=2.5, color=color, label=row["cell"])
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.xaxis.set_major_locator(FixedLocator(row["sizes"][:: max(1, len(row["sizes"]) // 3)]))
        ax.xaxis.set_major_formatter(lambda size, _: f"{size:.0f}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(row["axis"])
    axes[0, 0].set_ylabel("ms an update")
    style.legend(fig, style.drawn(axes))
    return fig


def show(out: Path) -> list[Path]:
    """Prints the tables, writes them and the figure beside what was measured, and returns both files."""
    found = json.loads((out / "costs.json").read_text(encoding="utf-8"))
    console = plain_console(width=130, record=True)
    console.print(table(found))
    console.print(disk(found))
    console.print(text(found))
    with style.look():
        drawn = style.save(figure(found), out / "costs")
    console.print(str(drawn), soft_wrap=True)
    told = out / "costs.txt"
    told.write_text(console.export_text(), encoding="utf-8")
    return [drawn, told]
