"""What an update costs: programs that differ in one thing, side by side in one process."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn import backend
from seqdyn.learn import train
from seqdyn.learn.config import Spec
from seqdyn.runs.sweep import Programs
from seqdyn.types import Device


class Timed(NamedTuple):
    """One run to be timed."""

    spec: Spec
    data: Any = None


def milliseconds(cases: Mapping[str, Timed], updates: int, rounds: int) -> dict[str, float]:
    """An update of one run on one device, in chunks of `updates`: medians over rounds, in each of which all take their
    turn."""
    found = seconds([_warm(case, updates) for case in cases.values()], rounds)
    return {name: 1e3 * taken / updates for name, taken in zip(cases, found, strict=True)}


def seconds(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Of each call, which is compiled: medians over rounds, in each of which all take their turn."""
    taken = np.zeros((rounds, len(calls)))
    for of_round in taken:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            of_round[i] = time.perf_counter() - start
    return np.median(taken, axis=0).tolist()


def chunk(programs: Programs, runs: Spec, updates: int, device: Device | None = None) -> Callable[[], Any]:
    """So many updates of all runs of a tile, from their initialisation, on one device."""
    tile = jax.device_put(runs, device)
    states = programs.init(tile, jnp.ones(len(tile), bool), None)
    return lambda: jax.block_until_ready(programs.chunk(tile, states, None, updates))


def _warm(case: Timed, updates: int) -> Any:
    """A run's chunk, compiled and called once."""
    spec, data = case.spec.arrays(), jax.device_put(case.data)
    chunk = backend.compiled(lambda spec, state, data: train.chunk(spec, state, data, updates))
    state = backend.compiled(train.init)(spec, data)
    jax.block_until_ready(chunk(spec, state, data))
    return lambda: chunk(spec, state, data)
