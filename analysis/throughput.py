"""Tables of `experiments/throughput.py`: milliseconds a step, and how many times ours each contender takes."""

import json
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from rich.table import Table

from seqdyn.runs.display import plain_console


def table(title: str, rows: list[dict[str, Any]], ours: str = "ours") -> Table:
    """One row a shape and cell, ms × ratio of medians; below, the ratios' geometric mean and range."""
    others = [name for name in rows[0]["ms"] if name != ours]
    middle = [{name: median(times) for name, times in row["ms"].items()} for row in rows]
    drawn = Table(title=title)
    for heading in ("sizes", "cell", "apart", ours, *others):
        drawn.add_column(heading, no_wrap=True)
    for row, ms in zip(rows, middle, strict=True):
        apart = "" if row["apart"] is None else f"{row['apart']:.0e}"
        against = (f"{ms[name]:.3g} ×{ms[name] / ms[ours]:.2f}" for name in others)
        drawn.add_row(",".join(map(str, row["sizes"])), row["cell"], apart, f"{ms[ours]:.3g}", *against)
    drawn.add_section()
    for label, reduced in (("geometric mean", geometric_mean), ("least", min), ("most", max)):
        drawn.add_row(label, "", "", "", *(f"×{reduced([ms[n] / ms[ours] for ms in middle]):.3f}" for n in others))
    return drawn


def probe_table(rows: list[dict[str, Any]]) -> Table:
    """One row a probe, one column a cell: ms a look × training updates it takes the time of, and kB a look and run."""
    sizes = ",".join(map(str, rows[0]["sizes"]))
    drawn = Table(
        title=f"ms a look × updates it costs, kB it records;\nsizes {sizes} are time, batch, hidden, sequences"
    )
    drawn.add_column("probe", no_wrap=True)
    for row in rows:
        drawn.add_column(row["cell"], no_wrap=True)
    middle = [{name: median(times) for name, times in row["ms"].items()} for row in rows]
    drawn.add_row("one update", *(f"{ms['ours']:.3g}" for ms in middle))
    for probe in rows[0]["bytes"]:
        told = (
            f"{ms[probe]:.3g} ×{ms[probe] / ms['ours']:.1f}, {row['bytes'][probe] / 1e3:.2g} kB"
            for row, ms in zip(rows, middle, strict=True)
        )
        drawn.add_row(probe, *told)
    return drawn


def show(out: Path) -> list[Path]:
    """Prints the tables of a measurement and writes them into a file beside it, which it returns."""
    found = json.loads((out / "throughput.json").read_text(encoding="utf-8"))
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    console = plain_console(width=200, record=True)  # of ten contenders, none cut short
    console.print(f"{machine['model']}, {machine['cores']} cores, load {machine['load']:.2f} at the start; {versions}")
    if found["shapes"]:
        console.print(table("ms a step × ratio to ours; sizes are time, batch, input, hidden", found["shapes"]))
    if found["grid"]:
        console.print(table("ms a run and step × ratio;\nsizes are time, batch, hidden, runs", found["grid"]))
    if found.get("looks"):
        title = "ms an update of PyTorch's on one core × ratio, one in 50 looked at; sizes are time, batch, hidden"
        console.print(table(title, found["looks"], ours="torch-1"))
    if found["probes"]:
        console.print(probe_table(found["probes"]))
    text = out / "throughput.txt"
    text.write_text(console.export_text(), encoding="utf-8")
    return [text]
