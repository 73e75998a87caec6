"""Laws of `seqdyn.measure.lag_signal`: against autodiff of a loop whose every step has parameters of its own, NumPy's
covariance and SciPy's stable laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _network import RESIDUAL
from _programs import program
from _refusals import refusal
from _training import having, start
from jax.flatten_util import ravel_pytree
from scipy.stats import levy_stable

import seqdyn as sd
from seqdyn.data.tasks import Batch
from seqdyn.learn import model
from seqdyn.learn.objective import layer_passes
from seqdyn.measure.lag_signal import LagSignal, of_examples, of_layer, tail_index
from seqdyn.nets.bptt import taps, valid_steps
from seqdyn.nets.cells import step

T, B = 5, 7


def batch(masked):
    keys = jax.random.split(jax.random.key(3), 2)
    xs = jax.random.normal(keys[0], (T, B, 2))
    mask = valid_steps(jnp.asarray([5, 4, 3, 5, 5, 2, 5]), T) if masked else None
    return Batch(xs, jax.random.normal(keys[1], (B,)), mask)


def exact(spec, params, given):
    """[layer] of g [t, b, n]: what each step's own parameters get of each example's loss, in order of time."""
    cells, (weights, bias) = model.layers(spec), (params.readout.w, params.readout.b)
    flat = [ravel_pytree(of) for of in params.layers]

    def loss(off, x, y, valid):
        """Of one example, the parameters of layer l at step t moved by off[l][t]."""
        hs = x
        for cell, (vector, back), moved in zip(cells, flat, off, strict=True):
            carry, out = cell.initial_carry(()), []
            for t in range(T):
                new = step(cell, back(vector + moved[t]), carry, hs[t])
                carry = jax.tree.map(partial(jnp.where, valid[t]), new, carry)
                out.append(carry.h)
            hs = jnp.stack(out)
        return jnp.sum((hs[-1] @ weights + bias - y) ** 2)

    zeros = [jnp.zeros((T, vector.size)) for vector, _ in flat]
    mask = jnp.ones((T, B), bool) if given.mask is None else given.mask
    found = program(jax.vmap(jax.grad(loss), (None, 1, 0, 1)))(zeros, given.xs, given.ys, mask)
    return [np.moveaxis(of, 0, 1) for of in found], np.asarray(mask)


def numpys(g):
    """(‖E g‖ without bias, √ tr Cov) of gradients [b, n]."""
    scatter = np.trace(np.atleast_2d(np.cov(g, rowvar=False)))
    square = np.sum(g.mean(0) ** 2) - scatter / len(g)
    return np.sqrt(square) if square > 0 else np.nan, np.sqrt(scatter)


@pytest.mark.parametrize("cell, masked", [("rnn", True), ("lstm", True), ("gru", False)])
def test_what_a_step_gives_is_the_slope_by_parameters_of_its_own(cell, masked):
    spec = sd.Spec("adding", steps=T, batch=B, hidden=(3, 2), cell=cell, dtype="float64")
    spec, given = having(spec, sd.Numbers().arrays()), batch(masked)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start(spec).params)
    watches = tuple(taps(of, T, (B,), ranged=True, adjoint=True) for of in model.layers(spec))

    @program
    def ours(params):
        return [of_layer(layer) for layer in layer_passes(spec, params, given, watches)]

    wanted, mask = exact(spec, params, given)
    for (each, whole), g in zip(ours(params), wanted, strict=True):
        for lag in range(T):
            rows = mask.sum(axis=0) > lag
            last = mask.sum(axis=0) - 1 - lag
            at_lag = np.stack([g[last[b], b] for b in range(B) if rows[b]])
            signal, scatter = numpys(at_lag)
            np.testing.assert_allclose(each["scatter"][T - 1 - lag], scatter, rtol=1e-9)
            np.testing.assert_allclose(each["signal"][T - 1 - lag], signal, rtol=1e-7)
        signal, scatter = numpys(g.sum(axis=0))
        np.testing.assert_allclose([whole["signal"], whole["scatter"]], [signal, scatter], rtol=1e-7)


def test_signal_and_scatter_have_no_bias_and_no_scale():
    """The mean over many batches is that of the law they are drawn from, also where gradients are 1e-30 as large."""
    rng, mean = np.random.default_rng(0), np.asarray([0.3, -0.2, 0.1])
    g = mean + rng.normal(size=(2000, 20, 3)) * [1.0, 0.5, 0.2]
    some = np.arange(24) < 20
    padded = np.concatenate([g, np.full((2000, 4, 3), np.nan)], axis=1)

    def both(scale, kind):
        of = program(jax.vmap(lambda g: of_examples(g, jnp.asarray(some))))
        return {name: np.asarray(x, float) / scale for name, x in of(jnp.asarray(padded * scale, kind)).items()}

    found, faint = both(1.0, jnp.float64), both(1e-30, jnp.float32)
    for name in ("signal", "scatter"):
        np.testing.assert_allclose(faint[name], found[name], rtol=1e-3)
    square = np.mean(found["scatter"] ** 2)
    assert abs(square - 1.29) < 0.02
    at = np.mean(np.sum(g.mean(1) ** 2, -1) - found["scatter"] ** 2 / 20)
    assert abs(at - np.sum(mean**2)) < 0.02
    seen = np.isfinite(found["signal"])
    np.testing.assert_allclose(
        found["signal"][seen] ** 2, (np.sum(g.mean(1) ** 2, -1) - found["scatter"] ** 2 / 20)[seen], rtol=1e-9
    )


@pytest.mark.parametrize("alpha", [2.0, 1.7, 1.3, 1.0, 0.7])
def test_a_stable_law_has_its_index_whatever_its_scale(alpha):
    x = levy_stable.rvs(alpha, 0.0, size=50_001, random_state=0)
    found = [float(tail_index(jnp.asarray(scale * x + at))) for scale, at in ((1.0, 0.0), (1e-6, 3e-6), (50.0, -7.0))]
    np.testing.assert_allclose(found, alpha, atol=0.03)
    some = jnp.arange(len(x) + 1) < len(x)
    assert float(tail_index(jnp.append(jnp.asarray(x), 1e9), some)) == found[0]
    assert np.isnan(tail_index(jnp.zeros(9)))


def test_heavy_tails_of_gradients_are_found_along_their_mean():
    """Examples that scatter by a stable law along one direction, and little along the others."""
    rng = np.random.default_rng(1)
    g = 1e-3 * rng.normal(size=(4000, 3))
    g[:, 0] += 5 + levy_stable.rvs(1.4, 0.0, size=4000, random_state=2)
    assert abs(float(of_examples(jnp.asarray(g), jnp.ones(4000, bool))["tail_index"]) - 1.4) < 0.1


def test_a_network_that_is_no_stack_is_refused_before_it_trains(tmp_path):
    e = sd.Experiment("x", RESIDUAL, updates=1, probes=(LagSignal(),))
    jax.config.update("jax_enable_x64", False)
    assert "probes has LagSignal" in refusal(sd.run, e, tmp_path / "out")
    assert not (tmp_path / "out").exists()
