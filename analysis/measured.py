"""What scripts found that keep a row for each seed: the paper's statements beside ours, the figure.

One row a seed and setting, so that `claims.of` reads a column of them as it reads one of runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, style
from analysis.claims import Claim, Verdict
from seqdyn.runs.display import plain_console, table

if TYPE_CHECKING:
    import xarray as xr

CAPTION = f"Shares and medians over n seeds; the intervals are right together with {1 - claims.ERROR:.0%}."
"""Of the table *paper | ours*."""
Rows = Sequence[Mapping[str, Any]]
"""One a seed and setting, of the same keys."""


def columns(rows: Rows) -> "xr.Dataset":
    """The same as `outcomes.columns` gives of runs."""
    import xarray as xr

    return xr.Dataset({name: ("run", np.asarray([row[name] for row in rows])) for name in rows[0]})


def judged(stated: Sequence[Claim], rows: Rows) -> list[dict[str, str]]:
    """`beside` of claims whose settings were measured."""
    return beside(claims.judged(stated, columns(rows)))


def beside(found: Sequence[Verdict]) -> list[dict[str, str]]:
    """*paper | ours* with the verdicts: a row a claim."""
    return [
        {"claim": row["claim"], "paper": of.claim.paper or "–", "ours": row["value"]}
        | {name: row[name] for name in ("interval", "is", "n", "verdict")}
        for of, row in zip(found, claims.table(found), strict=True)
    ]


def show(kept: Path, stated: Sequence[Claim], figure: Callable[[dict[str, Any]], Figure]) -> list[Path]:
    """Prints the table of claims, writes it (also for `analysis.claims`) and the figure beside what was measured, and
    returns both files."""
    found = json.loads(kept.read_text(encoding="utf-8"))
    console = plain_console(width=150, record=True)
    told = judged(stated, found["rows"])
    console.print(table(told))
    console.print(CAPTION)
    with style.look():
        drawn = style.save(figure(found), kept.with_suffix(""))
    console.print(str(drawn), soft_wrap=True)
    claims.keep(kept.parent, told)
    text = kept.with_suffix(".txt")
    text.write_text(console.export_text(), encoding="utf-8")
    return [drawn, text]
