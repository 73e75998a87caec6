"""How many seeds does a claim need? Of all seeds that were run, sets of n are drawn and each is judged.

    python -m analysis.power [DIR …] --seeds 24 40

Runs of one script with the same settings and instructions and different seeds are taken together, as `--replicate`
makes them. For each n the table says how often a set of n seeds, drawn from them with replacement (Efron 1979), would
find that a claim holds, or that it does not: the power of its test, if the seeds at hand stand for all. Beside it are
the verdicts of the sets of n that there are, without replacement: seeds in their order, n at a time.

A claim that holds in few of the sets says something of its seeds. A share of the seeds that differ needs fewer than the
median of a difference that is 0 for many; a median between two heaps of values needs more than anybody has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro

from analysis import claimants, claims, replicated
from analysis.claims import Claim, NotRun
from seqdyn.runs.script import script
from seqdyn.types import ConfigError, whole

if TYPE_CHECKING:
    import xarray as xr

DRAWS = 400
"""Sets drawn for each claim and n: a power of 0.95 is known to ±0.02."""


@dataclass(frozen=True)
class Config:
    """Where to look, and what to plan."""

    directories: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """Run directories, or folders of them."""
    seeds: tuple[int, ...] = (24, 40)
    """Numbers of seeds to plan with."""
    markdown: bool = False
    """Tables for a README."""


def pooled(directories: Sequence[Path]) -> dict[str, tuple[list[Path], Sequence[Claim]]]:
    """Script -> the parts of all its runs that go together, and its claims. A run with settings or instructions other
    than the script's first, or with seeds that another has, is left out."""
    firsts: dict[str, replicated.Made] = {}
    found: dict[str, tuple[list[Path], Sequence[Claim]]] = {}
    for parts in claimants.experiments(directories).values():
        made = replicated.made(claimants.row_of(parts[0]), parts, ())
        first = firsts.setdefault(made.script, made._replace(seeds=frozenset()))
        alike = (made.settings, made.instructions) == (first.settings, first.instructions)
        if alike and not made.seeds & first.seeds:
            firsts[made.script] = first._replace(seeds=first.seeds | made.seeds)
            found.setdefault(made.script, ([], claimants.claims(parts[0])))[0].extend(parts)
    return found


def sets(seeds: Sequence[int], n: int) -> list[list[int]]:
    """The seeds in order, n at a time; those that are left over are in none."""
    ordered = sorted(seeds)
    return [ordered[at : at + n] for at in range(0, len(ordered) - n + 1, n)]


def power(
    claim: Claim, values: dict[int, float], seeds: Sequence[int], n: int, level: float
) -> tuple[float, float, list[str]]:
    """How often n drawn seeds find that a claim holds, and that it does not; the verdicts of the sets there are.

    values: seed -> value; a seed without one says nothing of the claim, and is drawn as any other.
    """

    def verdict(which: Sequence[int]) -> str:
        told = np.array([values[seed] for seed in which if seed in values])
        return claims.decide(*claims.interval(claim.kind, told, level), claim.threshold, claim.side)

    draws = np.random.default_rng(0).choice(np.asarray(seeds), (DRAWS, n)).tolist()
    drawn = [verdict(which) for which in draws]
    shares = [drawn.count(which) / DRAWS for which in ("holds", "does not hold")]
    return shares[0], shares[1], [verdict(which) for which in sets(seeds, n)]


def rows(stated: Sequence[Claim], runs: "xr.Dataset", planned: Sequence[int]) -> list[dict[str, str]]:
    """A row a claim that the runs decide something of."""
    seeds, told = sorted(set(runs["seed"].values.tolist())), []
    for claim in stated:
        try:
            values = claim.statistic(runs)
        except NotRun:
            continue
        told.append((claim, dict(zip(values["seed"].values.tolist(), values.values.tolist(), strict=True))))
    found = []
    for claim, values in told:
        level = 1 - claims.ERROR / len(told)
        together = claims.tested(claim, np.array([*values.values()]), level).verdict
        row = {"claim": claim.statement, "seeds": f"{len(values)} of {len(seeds)}", "all": together}
        for n in planned:
            holds, fails, verdicts = power(claim, values, seeds, n, level)
            row[f"{n} seeds"] = f"{holds:.0%} / {fails:.0%}"
            row[f"sets of {n}"] = (
                ", ".join(f"{verdicts.count(which)} {which}" for which in dict.fromkeys(verdicts)) or "–"
            )
        found.append(row)
    return found


def main(config: Config) -> None:
    """Prints a table for each script of which runs are there."""
    for n in config.seeds:
        whole("seeds", n)
    found = pooled(config.directories)
    if not found:
        raise ConfigError(f"{', '.join(map(str, config.directories))} has no run of which claims are made.")
    for name, (parts, stated) in found.items():
        caption = (
            f"{name}: how often n seeds, drawn from those at hand, find that a claim holds / that it does not. seeds: "
            "those that say something of it, of all. all: the verdict of all together. sets of n: those of the seeds "
            "in order, n at a time."
        )
        replicated.printed(rows(stated, claimants.columns(*parts), config.seeds), caption, config.markdown)


if __name__ == "__main__":
    from analysis import power as itself

    script(itself.Config, itself.main, __doc__)
