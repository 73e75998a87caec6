"""What reproductions share: panels of cases, each case an experiment whose runs differ in their seed alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdyn.learn.config import Experiment, Spec
from seqdyn.numbers import Numbers
from seqdyn.runs.script import Claiming, Presets, Seeds, launch_all
from seqdyn.types import ConfigError

Panels = Mapping[str, Mapping[str, Path]]
"""Run directories by panel (a length, a task) and case (a cell, a cure)."""


@dataclass(frozen=True, kw_only=True)
class Trained(Presets):
    """How long and how often each case is trained."""

    seeds: Seeds = 5
    updates: int = 5000
    chunk: int = 250
    probe_every: int = 250
    tile: int = 3


@dataclass(frozen=True, kw_only=True)
class Claimed(Trained, Claiming):
    """Enough seeds to decide claims."""

    seeds: Seeds = 12
    tile: int = 6


TINY: dict[str, Any] = dict(seeds=2, updates=20, chunk=10, probe_every=10, tile=2)
"""Of --smoke."""


def case(c: Trained, name: str, spec: Spec, numbers: Numbers, **looking: Any) -> Experiment:
    """One case, an experiment called `name`; `looking` are the `Experiment`'s fields of probes."""
    return Experiment(name, (spec,), numbers, c.updates, c.chunk, c.probe_every, c.tile, **looking)


def launch_cases(wanted: Mapping[str, Mapping[str, Experiment]], config: Trained) -> tuple[Path, Panels]:
    """Trains (or goes on) all cases in one directory, and returns it with theirs, <panel>/<case> within it."""
    parts = {f"{_folder(p)}/{_folder(c)}": e for p, cases in wanted.items() for c, e in cases.items()}
    if len(parts) < sum(map(len, wanted.values())):
        raise ConfigError(f"the cases are {', '.join(parts)}; each may be there once.")
    done = launch_all(parts, config)
    out = next(iter(done.values())).parents[1]
    return out, {p: {c: done[f"{_folder(p)}/{_folder(c)}"] for c in cases} for p, cases in wanted.items()}


def _folder(name: str) -> str:
    """'clipped, Ω' → 'clipped_Ω'"""
    return re.sub(r"[^\w.-]+", "_", name)
