"""Laws of `runs.sweep`: a run in a tile is the run alone, whatever else looks at it."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest
from _programs import optimised
from _training import start

from seqdyn.learn.config import Spec, grid
from seqdyn.learn.probe_config import ProbeConfig
from seqdyn.measure.probes import PROBES
from seqdyn.runs import sweep

X64 = False


OPTIMISED_QUICKLY = ("weights", "units", "lyapunov")
"""Probes that LLVM's optimiser is done with in three seconds."""


# Training and evaluation are in test_run. At this width vmapped runs have other bits than mapped ones, in the units of
# an rnn, which at 16 they have not, and in the curvature of a GRU.
@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, probes, compiled",
    [
        ("rnn", OPTIMISED_QUICKLY, optimised),
        ("gru", tuple(probe for probe in PROBES if probe not in OPTIMISED_QUICKLY), nullcontext),
    ],
)
def test_a_run_alone_in_its_tile_has_the_bits_it_has_beside_others(cell, probes, compiled):
    spec = Spec("adding", steps=30, batch=4, holdout=4, cell=cell, hidden=(64,))
    runs = grid(spec, seeds=2).arrays()
    begun = jax.tree.map(lambda *leaves: np.stack(leaves), *[start(spec, seed=seed) for seed in range(2)])
    states = jax.tree.map(np.asarray, sweep.programs(spec, 1).chunk(runs, begun, None, 3)[0])
    look = sweep.measure(spec, 1, ProbeConfig(probes, 4, "holdout", 8))
    with compiled():
        beside = look(runs, states, None)
        alone = look(*jax.tree.map(lambda leaf: leaf[:1], (runs, states)), None)
    assert set(alone) == set(probes)
    jax.tree.map(lambda one, of: np.testing.assert_array_equal(one[0], of[0]), alone, beside)


def test_what_a_probe_sees_is_the_same_program_whichever_others_look():
    spec = Spec("adding", steps=5, batch=2, hidden=(3,))
    runs = grid(spec, seeds=1).arrays()
    states = jax.tree.map(lambda leaf: leaf[None], start(spec))
    together = sweep.measure(spec, 1, ProbeConfig(("weights", "units"), 2, "holdout", 3))(runs, states, None)
    known = sweep._probe_program.cache_info().misses
    alone = sweep.measure(spec, 1, ProbeConfig(("units",), 2, "holdout", 3))(runs, states, None)
    assert set(together) == {"weights", "units"} and sweep._probe_program.cache_info().misses == known
    jax.tree.map(np.testing.assert_array_equal, alone["units"], together["units"])
