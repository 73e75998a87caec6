"""Laws of `seqdyn.measure.flossing`: its gradient, what it brings to 0, what it leaves alone, and where it stands."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import having

from seqdyn.backend import compiled
from seqdyn.data.tasks import TASKS
from seqdyn.learn import model, train
from seqdyn.learn.config import Spec, grid
from seqdyn.measure import flossing
from seqdyn.measure.lyapunov import lyapunov_spectrum
from seqdyn.nets.bptt import valid_steps
from seqdyn.nets.cells import lstm, rnn
from seqdyn.numbers import Numbers
from seqdyn.runs import sweep

X64 = False
KEY = jax.random.key(0)
SPEC = Spec(task="delayed_xor", steps=20, batch=2, hidden=(6,), w_init="gaussian", u_init="gaussian")
FLOSSED = dataclasses.replace(SPEC, floss=5, floss_steps=10)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("make, k", [pytest.param(rnn, 4, marks=pytest.mark.slow), (lstm, 7)])
def test_the_gradient_through_the_qr_is_that_of_finite_differences(make, k):
    """Along a random direction of all parameters, with padding, in float64."""
    with jax.enable_x64(True):
        cell = make(2, 5, dtype=jnp.float64)
        params, xs = cell.init(KEY), jax.random.normal(jax.random.key(1), (9, 2, 2), jnp.float64)
        mask = valid_steps(jnp.asarray([9, 6]), 9, "after")
        loss = compiled(jax.value_and_grad(lambda p: flossing.exponents_square(cell, p, xs, KEY, k, mask)))
        way = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), params)
        h = 1e-5
        there, back = (loss(jax.tree.map(lambda x, d, s=s: x + s * h * d, params, way))[0] for s in (1, -1))
        grads = zip(leaves(loss(params)[1]), leaves(way), strict=True)
        np.testing.assert_allclose(sum(np.vdot(g, d) for g, d in grads), (there - back) / (2 * h), rtol=1e-6)


def test_the_loss_is_the_sum_of_the_squares_of_the_exponents_that_are_measured():
    cell, xs = rnn(1, 6), jnp.sign(jax.random.normal(KEY, (30, 2, 1)))
    params = cell.init(KEY)
    found = compiled(partial(lyapunov_spectrum, cell, k=4, burn=3, key=KEY))(
        params, cell.initial_carry((2,)), xs
    ).exponents
    loss = compiled(lambda p: flossing.exponents_square(cell, p, xs, KEY, 4))(params)
    np.testing.assert_allclose(loss, np.mean(np.sum(np.square(found), axis=-1)), rtol=1e-5)


def exponents(spec, numbers, params):
    """All of the layer, on sequences that were not flossed."""
    (cell,), batch = model.layers(having(spec, numbers)), TASKS[spec.task](spec).diagnostic(None, KEY, "holdout", 16)
    spectrum = lyapunov_spectrum(cell, params.layers[0], cell.initial_carry((16,)), batch.xs, KEY, burn=2)
    return jnp.mean(spectrum.exponents, axis=0)


def test_flossing_brings_the_exponents_that_it_counts_near_0_and_no_others():
    """The last one is left, and falls. At twenty times the rate, so that few steps do."""
    numbers = Numbers(input_gain=0.5).arrays()

    def both(numbers):
        before = train.init(having(SPEC, numbers)).params
        after, losses = flossing.floss(having(SPEC, numbers), before, k=5, steps=150, lr=2e-2)
        return *(exponents(SPEC, numbers, params) for params in (before, after)), losses

    before, after, losses = compiled(both)(numbers)
    assert losses.shape == (150,) and losses[-1] < losses[0] / 50
    assert np.abs(before[:5]).max() > 0.5
    assert np.abs(after[:5]).max() < 0.1
    assert after[5] < -0.5


def test_no_steps_change_no_bit():
    numbers = Numbers().arrays()
    start = train.init(having(SPEC, numbers)).params
    same, losses = compiled(lambda p: flossing.floss(having(SPEC, numbers), p, k=5, steps=0))(start)
    assert losses.shape == (0,)
    for a, b in zip(leaves(start), leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)


@cache
def start(seeds):
    """The states of a tile of runs with these seeds before the first update."""
    runs = grid(FLOSSED, seeds=seeds).arrays()
    return sweep.programs(FLOSSED, 1).init(runs, jnp.ones(len(seeds), bool), None)


def test_a_flossed_start_differs_in_the_recurrent_layer_alone_and_whoever_asks_for_none_gets_none():
    numbers, flossed = Numbers(seed=7).arrays(), jax.tree.map(lambda x: x[1], start((3, 7)))
    plain, none = train.init(having(SPEC, numbers)), flossing.init(having(SPEC, numbers))
    for a, b in zip(leaves(plain), leaves(none), strict=True):
        np.testing.assert_array_equal(a, b)
    same = plain._replace(params=plain.params._replace(layers=flossed.params.layers))
    for a, b in zip(leaves(same), leaves(flossed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)  # one was not compiled
    for a, b in zip(leaves(plain.params.layers), leaves(flossed.params.layers), strict=True):
        assert np.abs(a - b).max() > 1e-3


def test_a_run_starts_with_the_same_bits_whatever_runs_beside_it():
    """What resuming rests on: the start is a function of (spec, numbers)."""
    for a, b in zip(leaves(start((3, 7))), leaves(start((7, 8))), strict=True):
        np.testing.assert_array_equal(a[1], b[0])
    u = start((3, 7)).params.layers[0].u
    assert not np.array_equal(u[0], u[1])
