"""What is claimed of runs, as tests of their data: a statement, a value a seed, a threshold, a verdict.

    python -m analysis.claims [DIR …]

A proportion has the interval of Clopper & Pearson 1934, which covers at least its level whatever the proportion;
Wilson's does so on the average, and not at the levels below. Medians, also of paired differences and of slopes, have
the interval between order statistics that the sign test gives (`scipy.stats.quantile_test`; Conover 1999, §3.2): it
covers at least its level whatever the distribution, takes infinities, and is unbounded where seeds are too few, where a
bootstrap of few equal values has no width at all.

A claim *holds* where the whole interval lies on its side of the threshold, *does not hold* where all of it lies on the
other, and is *undecided* otherwise. The m claims of one experiment are made at once, each at the level 1 − 0.05/m
(Bonferroni): so all their intervals are right together with 95%, and can be printed, as those of Holm's steps cannot.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import tyro

from analysis import claimants, outcomes, replicated
from seqdyn.runs.display import plain_console
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

ERROR = 0.05
"""How often one of the claims of an experiment at most gets a verdict that it does not deserve."""
TOLD = "verdicts.json"
"""Where a script that has no run directory keeps the rows of its table of claims: see `measured.show`."""
Kind = Literal["proportion", "median", "difference", "slope"]
Statistic = Callable[["xr.Dataset"], "xr.DataArray"]


class NotRun(LookupError):
    """The runs that a claim is about are not there."""


# --- statistics ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of a column over some runs of each seed, see `of`."""

    name: str
    where: Mapping[str, Any]

    @property
    def settings(self) -> int:
        """Of how many settings it is the mean, as far as they are named."""
        return math.prod(len(_several(wanted)) for wanted in self.where.values())

    def __call__(self, runs: "xr.Dataset") -> "xr.DataArray":
        chosen = np.ones(runs.sizes["run"], bool)
        for key, wanted in self.where.items():
            chosen &= _is(runs[key].values, wanted) if key in runs else False
        chosen &= ~np.isnan(runs[self.name].values)
        for key, wanted in self.where.items():  # the mean of three is not the mean of two
            for one in _several(wanted):
                if not (chosen.any() and np.any(chosen & _is(runs[key].values, one))):
                    raise NotRun(f"no run that has ended with {self.where}, {key} {one}")
        if not chosen.any():
            raise NotRun("no run that has ended")
        part = runs[[self.name, "seed"]].isel(run=np.flatnonzero(chosen))
        return part[self.name].groupby(part["seed"]).mean()


def of(name: str, **where: Any) -> Mean:
    """A column of the runs (see `outcomes.columns`), a value a seed: the mean over those runs of a seed that are as
    `where` says, a value or several, and have a value. Of each value of `where` there must be some such run.

    >>> of("learned", label=("lstm", "gru"), gain=0.5)     # the share of a seed's runs of both cells
    """
    return Mean(name, where)


def _several(wanted: Any) -> tuple[Any, ...]:
    return wanted if isinstance(wanted, tuple) else (wanted,)


def _is(values: np.ndarray, wanted: Any) -> np.ndarray:
    several = _several(wanted)
    if values.dtype.kind in "UO":
        return np.isin(values.astype(str), several)
    return np.logical_or.reduce([np.isclose(values, one, rtol=1e-5, atol=0, equal_nan=True) for one in several])


def minus(one: Statistic, other: Statistic) -> Statistic:
    """Seed by seed, of the seeds that both have."""
    return lambda runs: one(runs) - other(runs)


def prevails(one: Statistic, other: Statistic) -> Statistic:
    """Of the seeds whose values differ (McNemar 1947): 1 where the first is larger, 0 where the other is.

    ValueError for means of unlike numbers of settings, as far as they are named: where few learn, a mean of two is more
    often above a single one than below it, though nothing tells them apart.
    """
    if isinstance(one, Mean) and isinstance(other, Mean) and one.settings != other.settings:
        raise ValueError(f"means of {one.settings} and of {other.settings} settings differ by chance alone.")

    def values(runs: "xr.Dataset") -> "xr.DataArray":
        change = minus(one, other)(runs)
        change = change[(change.values != 0) & ~np.isnan(change.values)]
        return (change > 0).astype(float)

    return values


# --- claims and verdicts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A statement that data may contradict."""

    statement: str
    """In words, without measured numbers."""
    kind: Kind
    """A share of seeds (or of the seeds that differ), or a median over seeds: of a value, of a paired difference, of a
    slope."""
    statistic: Statistic
    """Runs -> values, one a seed; `outcomes.columns` says what a run counts as that diverged or is censored."""
    threshold: float
    side: Literal["above", "below", "within"] = "above"
    """Where the share or median is claimed to lie; 'within': nearer to 0 than the threshold."""
    source: str | None = None
    """Who says so, if others do."""
    paper: str = ""
    """What they say of its number."""


class Verdict(NamedTuple):
    """What the data say of a claim, of n seeds."""

    claim: Claim
    n: int
    value: float
    low: float
    high: float
    verdict: str
    """holds, does not hold, undecided"""
    least: int
    """Seeds that would decide it if all agreed."""


def interval(kind: Kind, values: np.ndarray, level: float) -> tuple[float, float]:
    """Of a share (of values 0 and 1) or a median, at a level; all that is possible where there are too few."""
    n = len(values)
    if kind == "proportion":
        from scipy.stats import binomtest  # here: SciPy loads OpenBLAS, for which `backend.start` comes first

        if not n:
            return 0.0, 1.0
        found = binomtest(int(np.sum(values)), n).proportion_ci(level, method="exact")
        return float(found.low), float(found.high)
    if np.isnan(values).any():
        return -np.inf, np.inf
    low, high = ranks(n, level)
    ordered = np.sort(values)
    return -np.inf if low is None else float(ordered[low]), np.inf if high is None else float(ordered[high])


@functools.cache
def ranks(n: int, level: float) -> tuple[int | None, int | None]:
    """Between which of n ordered values, counted from 0, the median lies at a level; None where there is no bound.

    As `scipy.stats.quantile_test` has them, whose import takes a second: the numbers of values below the median have
    the distribution of n coins, whose tails here are exact.
    """
    tail, term, total, below = Fraction((1 - level) / 2) * 2**n, 1, 0, n
    for k in range(n + 1):
        total += term
        if total >= tail:
            below = min(below, k)
        if total > tail:  # of n − k values or more below the median it is as much
            return below - 1 if below else None, n - k if k else None
        term = term * (n - k) // (k + 1)
    raise ValueError(f"level is {level}; it must lie between 0 and 1.")


def decide(low: float, high: float, threshold: float, side: str) -> str:
    """Of an interval."""
    if side == "within":
        holds, fails = -threshold < low and high < threshold, low > threshold or high < -threshold
    else:
        holds, fails = (low > threshold, high < threshold) if side == "above" else (high < threshold, low > threshold)
    return "holds" if holds else "does not hold" if fails else "undecided"


def tested(claim: Claim, values: np.ndarray, level: float) -> Verdict:
    """The verdict at a level."""
    values = np.asarray(values, float)
    low, high = interval(claim.kind, values, level)
    value = np.nan if not len(values) else np.mean(values) if claim.kind == "proportion" else np.median(values)
    verdict = decide(low, high, claim.threshold, claim.side)
    return Verdict(claim, len(values), float(value), low, high, verdict, least(claim, level))


def least(claim: Claim, level: float) -> int:
    """Seeds that decide a claim if all agree with it."""
    agreed = {"above": max(1.0, claim.threshold + 1), "below": min(0.0, claim.threshold - 1), "within": 0.0}[claim.side]
    agreed = float(claim.side == "above") if claim.kind == "proportion" else agreed
    of_n = (decide(*interval(claim.kind, np.full(n, agreed), level), claim.threshold, claim.side) for n in count(1))
    return next(n for n, verdict in enumerate(of_n, 1) if verdict == "holds" or n == 1000)


Columns = Callable[..., "xr.Dataset"]
"""Parts of an experiment -> what claims are about, one value a run; `outcomes.columns` is one."""


def verdicts(claims: Sequence[Claim], *parts: Path, columns: Columns = outcomes.columns) -> list[Verdict]:
    """Of the claims whose runs are there, corrected for their number."""
    return judged(claims, columns(*parts)) if claims else []


def judged(claims: Sequence[Claim], runs: "xr.Dataset") -> list[Verdict]:
    """`verdicts` of values that are there: a column each, one value a run, `seed` among them."""
    found = []
    for claim in claims:
        try:
            found.append((claim, claim.statistic(runs).values))
        except NotRun:
            continue
    return [tested(claim, values, 1 - ERROR / len(found)) for claim, values in found]


# --- for the reader -------------------------------------------------------------------------------------------


def caption(found: Sequence[Verdict]) -> str:
    """Of `table`."""
    return (
        f"What is claimed: shares and medians over n seeds, intervals right together with {1 - ERROR:.0%} "
        f"({1 - ERROR / len(found):.2%} each); least: seeds that decide a claim if all agree."
    )


def table(found: Sequence[Verdict]) -> list[dict[str, str]]:
    """A row a claim."""
    return [
        {
            "claim": v.claim.statement + (f" [{v.claim.source}]" if v.claim.source else ""),
            "is": f"{v.claim.kind} {v.claim.side} {v.claim.threshold:.3g}",
            "n": str(v.n),
            "least": str(v.least),
            "value": _number(v.value),
            "interval": f"{_number(v.low)} … {_number(v.high)}",
            "verdict": v.verdict,
        }
        for v in found
    ]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}".replace("-", "−").replace("inf", "∞")


def show(found: Sequence[Verdict], markdown: bool = False) -> None:
    """Prints `table`."""
    if found:
        replicated.printed(table(found), caption(found), markdown)


def tables(found: Sequence[Verdict]) -> list[tuple[str, list[dict[str, str]]]]:
    """For the page: `table` with its caption, none without claims."""
    return [(caption(found), table(found))] if found else []


def keep(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes the table of a script that has no run directory, for this module's command."""
    (folder / TOLD).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def kept(folder: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """For the page: what `keep` has written with its caption; none if it was not called. ConfigError as `_told`."""
    file = folder / TOLD
    return [("What is claimed: shares and medians over seeds", _told(file))] if file.exists() else []


def report(
    claims: Sequence[Claim],
    parts: Sequence[Path],
    draw: Callable[[Sequence[Verdict]], object],
    columns: Columns = outcomes.columns,
) -> dict[str, str]:
    """Tests the claims, has the analysis draw with its verdicts, prints them: statement -> verdict."""
    found = verdicts(claims, *parts, columns=columns)
    draw(found)
    show(found)
    return {v.claim.statement: v.verdict for v in found}


def redrawn(out: Path, draw: Callable[[Sequence[Verdict]], object]) -> None:
    """What an analysis does as a command: `report` of a run directory, whoever has made it."""
    parts = next(iter(claimants.experiments([out] if out.is_dir() else []).values()), [])
    report(claimants.claims(parts[0]) if parts else (), parts, draw, claimants.columns)


@dataclass(frozen=True)
class Config:
    """Where to look."""

    directories: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """Run directories, or folders of them."""
    markdown: bool = False
    """Tables for a README."""


def _told(file: Path) -> list[dict[str, str]]:
    """The table that a script has written; ConfigError for a file of another kind, or damaged."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        rows = None
    if isinstance(rows, list) and all(isinstance(row, dict) and {"claim", "verdict"} <= row.keys() for row in rows):
        return rows
    raise ConfigError(f"{file} is no table of claims, or damaged; remove it, or make its script write it again.")


def main(config: Config) -> None:
    """Prints every claim of the directories, and of all below them; then what became of those made more than once."""
    found = claimants.experiments(config.directories)
    told = {file: _told(file) for root in config.directories for file in sorted(root.rglob(TOLD))}
    if not found and not told:
        raise ConfigError(f"{', '.join(map(str, config.directories))} has no run of which claims are made.")
    of_all = []
    for directory, parts in found.items():
        plain_console().print(str(directory), soft_wrap=True)
        try:
            told_here = verdicts(claimants.claims(parts[0]), *parts, columns=claimants.columns)
        except ConfigError as unread:  # of an older version, or damaged: the others can be read
            plain_console().print(str(unread), soft_wrap=True)
            continue
        show(told_here, config.markdown)
        plain_console().print(claimants.cost(claimants.script_of(parts[0])), soft_wrap=True)
        of_all.append(replicated.made(claimants.row_of(parts[0]), parts, told_here))
    for file, rows in told.items():
        plain_console().print(str(file.parent), soft_wrap=True)
        replicated.printed(rows, f"{len(rows)} claims, made at once.", config.markdown)
        plain_console().print(claimants.cost(claimants.script_beside(file)), soft_wrap=True)
    replicated.show(of_all, config.markdown)


if __name__ == "__main__":
    from analysis import claims  # the one that scripts state their claims with, whose `NotRun` is caught here

    script(claims.Config, claims.main, __doc__)
