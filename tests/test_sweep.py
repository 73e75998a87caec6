"""Laws of `runs.sweep`: a run in a tile is the run alone, whatever else looks at it."""

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


def one(spec, seeds, probes):
    """All that is known of the first of `seeds` runs of a tile: its state, its records, and what `probes` see of it.
    It starts from parameters drawn by NumPy: that `init` has the same bits is a law of whole runs in test_run."""
    runs, programs = grid(spec, seeds=seeds).arrays(), sweep.programs(spec, 1)
    begun = jax.tree.map(lambda *leaves: np.stack(leaves), *[start(spec, seed=seed) for seed in range(seeds)])
    states, metrics = programs.chunk(runs, begun, None, 3)
    seen = sweep.measure(spec, 1, ProbeConfig(probes, 4, "holdout", 8))(runs, states, None)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf)[0], (states, metrics, programs.evaluate(runs, states, None), seen)
    )


# Whole runs of an rnn and an LSTM are in test_run; each probe has its own program. Of these the units of a wide rnn are
# what tells vmapped runs from mapped ones.
@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, hidden, probes",
    [("lstm", (16, 12), tuple(PROBES)[::2]), ("gru", (5,), tuple(PROBES)[1::2]), ("rnn", (64,), ("units",))],
)
@optimised()
def test_a_run_alone_in_its_tile_has_the_bits_it_has_beside_others(cell, hidden, probes):
    spec = Spec("adding", steps=30, batch=4, holdout=4, cell=cell, hidden=hidden)
    jax.tree.map(np.testing.assert_array_equal, one(spec, 1, probes), one(spec, 2, probes))


def test_what_a_probe_sees_is_the_same_program_whichever_others_look():
    spec = Spec("adding", steps=5, batch=2, hidden=(3,))
    runs = grid(spec, seeds=1).arrays()
    states = jax.tree.map(lambda leaf: leaf[None], start(spec))
    together = sweep.measure(spec, 1, ProbeConfig(("weights", "units"), 2, "holdout", 3))(runs, states, None)
    known = sweep._probe_program.cache_info().misses
    alone = sweep.measure(spec, 1, ProbeConfig(("units",), 2, "holdout", 3))(runs, states, None)
    assert set(together) == {"weights", "units"} and sweep._probe_program.cache_info().misses == known
    jax.tree.map(np.testing.assert_array_equal, alone["units"], together["units"])
