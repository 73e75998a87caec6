"""Run directories laid over each other, of any experiments: what differs, from where on, and whether it matters.

    python -m analysis.compare A B …

Every directory is held against the first. Runs are told apart by what varies inside a directory, and compared with
those of the same setting elsewhere; where no setting is in two directories, all are drawn together. Lags are aligned at
0, updates at the first, up to what the shortest has made. A band is the 95% interval of a median over runs, and a test
is that of the median of differences paired by seed, as in `analysis.claims`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from analysis import claims, report, style
from analysis.compare_differences import DECIDED, pairs
from analysis.compare_differences import first_bits as first_bits
from analysis.compare_differences import first_setting as first_setting
from analysis.compare_differences import tests as tests
from analysis.compare_overlays import figures as figures
from analysis.compare_overlays import interval as interval
from analysis.compare_overlays import panels
from analysis.compare_sides import QUANTITIES, Read, Side, setting_text
from analysis.compare_sides import read as read
from seqdyn.runs.display import plain_console
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

ROWS = 60
"""Rows of a table that are printed, those that decide something first; the page has all."""


def summary(found: Read) -> list[dict[str, Any]]:
    """A row a setting and directory that has it, shared settings alone if there are any: runs, those that diverged,
    medians of `QUANTITIES`."""
    rows = []
    for title, lines in panels(found):
        for line in lines:
            of = {name: values[line.runs] for name, values in line.side.values.items()}
            row = {"setting": title, "directory": line.label, "runs": len(line.runs)}
            row |= {"diverged": int(np.isinf(of["training loss"]).sum())}
            rows.append(row | {name: float(style.median(of[name])) if name in of else np.nan for name in QUANTITIES})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    settings = any(row["setting"] for row in rows)
    return [
        ({"setting": row["setting"]} if settings else {})
        | {name: str(row[name]) for name in ("directory", "runs", "diverged")}
        | {name: _number(row[name]) for name in QUANTITIES}
        for row in rows
    ]


def tested(found: Read, rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`tests` for the reader."""
    return [
        {"directory": row["directory"]}
        | ({"setting": setting_text(found, row["setting"])} if found.varied else {})
        | {"quantity": row["quantity"], "pairs": str(row["n"]), "difference": _number(row["median"])}
        | {"interval": f"{_number(row['low'])} … {_number(row['high'])}", "verdict": row["verdict"]}
        for row in rows
    ]


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if abs(value) >= np.finfo(np.float32).max:  # medians have it for infinity
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}".replace("-", "−")


def text(found: Read) -> list[str]:
    """What differs, from where on, and what is not shared."""
    first, said = found.sides[0], []
    for other in found.sides[1:]:
        differs = first_setting(first.path, other.path)
        if differs:
            name, here, there = differs
            said.append(
                f"{first.name} and {other.name}: first setting that differs: {name}, {here!s:.80} and {there!s:.80}."
            )
        else:
            said.append(f"{first.name} and {other.name} have the same settings.")
    if len(found.sides) == 2:
        said.append(_bits(first, found.sides[1]))
    said.append(
        f"Compared are the first {found.stop:,} updates, which all have made; held-out losses after {found.look:,}."
    )
    for side in found.sides:
        made = int(side.ds["recorded"].values.sum(axis=1).max())
        own = [s for s in dict.fromkeys(side.settings) if s not in found.shared]
        if made > found.stop:
            said.append(f"{side.name} has made {made:,} updates; what follows is not compared.")
        if found.shared and own:
            names = "; ".join(setting_text(found, s) for s in own[:10]) + ("; …" if len(own) > 10 else "")
            said.append(f"Only {side.name} has: {names}.")
    if not found.shared:
        said.append("No setting is in two directories: all are drawn together, and no test pairs them.")
    return said


def _bits(one: Side, other: Side) -> str:
    count = len(pairs(one, other))
    if not count:
        return "No run of the one has setting and seed of a run of the other, so their bits are not compared."
    found = first_bits(one, other)
    if found is None:
        return f"Of {count} pairs of runs of one setting and seed all that both have recorded is the same, bit for bit."
    update, name, a, b = found
    return (
        f"Of {count} pairs of runs of one setting and seed the first difference in a bit is in {name} at update "
        f"{update:,} (run {a} of {one.name}, run {b} of {other.name})."
    )


def show(paths: Sequence[str | Path], into: Path, at: Sequence[int] = ()) -> list[Path]:
    """Draws the directories over each other into a folder, prints what differs and the tables, returns the files.

    Raises ConfigError, before anything is written, for a folder that is a run directory or a file.
    """
    report.check_folder(into, "the comparison")
    found = read(paths)
    longest = max(side.ds.sizes["step"] for side in found.sides)
    for done in at:
        if not 0 <= done <= longest:
            raise ConfigError(f"at is {done}; it must be numbers of updates from 0 to {longest}.")
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out is {into}, which cannot be made ({error.strerror}); choose another.") from None
    said, of = text(found), sorted(tests(found), key=lambda row: row["verdict"] not in DECIDED)
    console = plain_console()
    for sentence in said:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    first = found.sides[0]
    caption = (
        f"Against {first.name}, paired by seed: median of the differences, intervals right together with "
        f"{1 - claims.ERROR:.0%}, without bounds where pairs are too few"
    )
    tables = [("Medians over runs", table(summary(found)))] + ([(caption, tested(found, of))] if of else [])
    title = f"{', '.join(side.name for side in found.sides)}, compared"
    said.append(f"How it was made, below, is that of {first.name}.")
    printed = [rows[:ROWS] for _, rows in tables]
    if any(len(rows) > ROWS for _, rows in tables):
        console.print(f"Of each table the first {ROWS} rows; the page has all.", soft_wrap=True)
    return report.publish(first.path, title, said, figures(found, at), tables, into, printed)


@dataclass
class Config:
    """Which directories."""

    directories: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories; each is held against the first."""
    at: tuple[int, ...] = ()
    """Updates after which norms are drawn by lag; the first and the last that all have made, where none are given."""
    out: Path = Path("runs/compared")
    """Where figures and report.html lie."""


def main(config: Config) -> None:
    """Compares them."""
    show(config.directories, config.out, config.at)


if __name__ == "__main__":
    script(Config, main, __doc__)
