"""Laws of accelerators that hold without one: all that trains or looks lowers for a TPU and for CUDA as it stands."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from seqdyn.learn import train
from seqdyn.learn.config import Spec, grid
from seqdyn.learn.probe_config import ProbeConfig
from seqdyn.measure import probes
from seqdyn.runs import sweep

X64 = False
BACKENDS = {"tpu": "tpu", "cuda": "gpu"}


@pytest.fixture(params=BACKENDS)
def lowered(request, monkeypatch):
    """`lowered(function, *arguments)` traces as on that machine, and gives the program for it."""
    monkeypatch.setattr(jax, "default_backend", lambda: BACKENDS[request.param])
    return lambda function, *given: export.export(jax.jit(function), platforms=[request.param])(*given).mlir_module()


def tile(cell):
    return grid(Spec("adding", steps=6, batch=3, holdout=3, cell=cell, hidden=(4,)), gain=[0.9, 1.1]).arrays()


def states(runs):
    return sweep._over(2, lambda r: train.init(r), runs)


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_a_tile_trains_and_is_evaluated(lowered, cell):
    def trained(runs):
        after, metrics = sweep._over(2, lambda r, s: train.chunk(r, s, None, 3), runs, states(runs))
        return metrics, sweep._over(2, lambda r, s: train.evaluate(r, s, None), runs, after)

    assert "stablehlo.while" in lowered(trained, tile(cell))


@pytest.mark.slow
@pytest.mark.parametrize("probe", probes.PROBES)
def test_every_probe_looks(monkeypatch, probe):
    """On both machines, in one trace: whether it is a CPU is all that is asked of the backend."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def seen(runs):
        looking = ProbeConfig((probe,), 2, "holdout", 3)
        return sweep._over(2, lambda r, s: probes.measure(r, looking, s, None), runs, states(runs))

    assert export.export(jax.jit(seen), platforms=list(BACKENDS))(tile("lstm")).platforms == tuple(BACKENDS)


def test_what_only_a_cpu_can_do_is_noticed(monkeypatch):
    with pytest.raises(NotImplementedError, match="tpu"):
        export.export(jax.jit(jnp.linalg.eigvals), platforms=["tpu"])(jnp.eye(2))
