"""What the experiments on cures share: temporal order, on which a tanh rnn fails and its cures can be told apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from analysis import claims
from analysis.claims import Claim, Statistic, Verdict
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.learn.probe_config import ProbeName
from seqdyn.runs import script


@dataclass(frozen=True, kw_only=True)
class Common(script.Presets, script.Claiming):
    """What a cure is tried on."""

    seeds: script.Seeds = 12
    steps: tuple[int, ...] = (50,)
    """T, time steps of a sequence: one experiment each."""
    hidden: int = 32
    batch: int = 20
    lr: float = 3e-3
    updates: int = 1500
    chunk: int = 250
    tile: int = 5


C = TypeVar("C", bound=Common)


TINY: dict[str, Any] = dict(seeds=2, steps=(10,), hidden=6, batch=4, updates=20, chunk=10, tile=4)
"""Of --smoke."""
FULL: dict[str, Any] = dict(seeds=24, hidden=50, updates=30_000)
"""Of --paper: as many units as Pascanu et al. 2013 have, twenty times the updates and twice the seeds."""


def with_preset(c: C, smoke: dict[str, Any], paper: dict[str, Any] | None = None) -> C:
    """The config at the size that was asked for, with what a script changes of `TINY` and `FULL`."""
    return script.with_preset(c, TINY | smoke, FULL | (paper or {}))


def spec(c: Common, name: str, steps: int, **changes: Any) -> Spec:
    """A tanh rnn with an orthogonal recurrence on temporal order, with `changes`."""
    usual: dict[str, Any] = dict(
        task="temporal_order", steps=steps, batch=c.batch, hidden=(c.hidden,), holdout=50 * c.batch
    )
    return Spec(**(usual | changes), name=name)


def experiment(
    c: Common, name: str, specs: tuple[Spec, ...], probes: tuple[ProbeName, ...] = ("weights",), **axes: Any
) -> Experiment:
    """Specs × axes × seeds; six looks, the first before training."""
    every = c.chunk * max(1, c.updates // c.chunk // 6)
    numbers = grid(seeds=c.seeds, **({"lr": c.lr} | axes))
    return Experiment(name, specs, numbers, c.updates, c.chunk, every, c.tile, probes=probes)


def of(column: str, **where: Any) -> Statistic:
    """`analysis.claims.of` at the default length."""
    return claims.of(column, **({"steps": 50} | where))


def report(
    stated: Sequence[Claim], parts: Mapping[str, Path], draw: Callable[[str, Path, Sequence[Verdict]], object]
) -> Mapping[str, str]:
    """Tests the claims on all parts together, has each drawn with the verdicts, prints them: statement -> verdict."""

    def all_of(found: Sequence[Verdict]) -> None:
        for name, out in parts.items():
            draw(name, out, found)

    return claims.report(stated, list(parts.values()), all_of)
