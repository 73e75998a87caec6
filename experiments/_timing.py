"""What an update costs: programs that differ in one thing, side by side in one process."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from seqdyn import backend
from seqdyn.learn import train
from seqdyn.learn.config import Spec


class Timed(NamedTuple):
    """One run to be timed."""

    spec: Spec
    data: Any = None


def milliseconds(cases: Mapping[str, Timed], updates: int, rounds: int) -> dict[str, float]:
    """An update of one run on one device, in chunks of `updates`: medians over rounds, in each of which all take their
    turn."""
    programs = {name: _warm(case, updates) for name, case in cases.items()}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(t)) / updates for name, t in taken.items()}


def _warm(case: Timed, updates: int) -> Any:
    """A run's chunk, compiled and called once."""
    spec, data = case.spec.arrays(), jax.device_put(case.data)
    chunk = backend.compiled(lambda spec, state, data: train.chunk(spec, state, data, updates))
    state = backend.compiled(train.init)(spec, data)
    jax.block_until_ready(chunk(spec, state, data))
    return lambda: chunk(spec, state, data)
