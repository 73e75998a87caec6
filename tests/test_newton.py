"""Laws of `measure.newton`: what it finds for all steps at once is what `unroll` finds one after the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal

import seqdyn as sd
from seqdyn.measure.jacobians import step_jacobians, vector
from seqdyn.measure.newton import adjoints, newton
from seqdyn.nets import cells
from seqdyn.nets.bptt import Backprop, Tap, unroll
from seqdyn.nets.inits import Orthogonal

T, B, D, H = 12, 3, 2, 4
XS = np.random.default_rng(1).normal(size=(T, B, D))


def xs():
    return jnp.asarray(XS)


def own():
    """A bare step function of an array."""
    init = lambda key: {"w": jax.random.normal(key, (D, H))}  # noqa: E731
    return sd.cell(init, lambda p, h, x: 0.5 * h + jnp.tanh(x @ p["w"] - h[..., ::-1]), lambda b: jnp.zeros((*b, H)))


CELLS = {
    "rnn": lambda: cells.rnn(D, H, "tanh", dtype=jnp.float64),
    "lstm": lambda: cells.lstm(D, H, dtype=jnp.float64),
    "gru_reset_before": lambda: cells.gru_reset_before(D, H, dtype=jnp.float64),
    "own": own,
}


@pytest.mark.parametrize(
    "name, sequential",
    [
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in ("rnn", "gru_reset_before")),
        *(("lstm", False), ("lstm", True), ("own", False)),
    ],
)
def test_states_and_gradients_are_those_of_unroll(name, sequential):
    cell = CELLS[name]()
    params = cell.init(jax.random.key(0))
    carry = jax.tree.map(lambda leaf: leaf + 0.1, cell.initial_carry((B,)))

    def loss(hs, last):
        return jnp.sum(hs**3) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(last))

    def ours(*given):
        found = newton(cell, *given, tolerance=1e-13, sequential=sequential)
        return loss(found.states.h, jax.tree.map(lambda leaf: leaf[-1], found.states)), found.steps

    (value, steps), found = jax.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))(params, carry, xs())
    theirs = jax.jit(jax.value_and_grad(lambda *given: loss(*unroll(cell, *given)), (0, 1, 2)))(params, carry, xs())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), (value, found), theirs)
    steps = np.asarray(steps)
    # A step makes one more state exact, whatever the others are, and no prefix takes longer than what it begins.
    assert (steps <= np.arange(1, T + 1)[:, None]).all() and (np.diff(steps, axis=0) >= 0).all()


@pytest.mark.slow
def test_adjoints_of_all_steps_are_those_that_unroll_reads():
    cell = CELLS["lstm"]()
    params, carry = cell.init(jax.random.key(0)), cell.initial_carry((B,))
    weights = jax.random.normal(jax.random.key(2), (T, B, H))

    def loss(watch):
        return jnp.sum(weights * unroll(cell, params, carry, xs(), Backprop(), watch)[0])

    watch = Tap(adjoint=jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape)), carry))
    read = vector(jax.jit(jax.grad(loss))(watch).adjoint)
    local = vector(cells.Memory(jnp.zeros_like(weights), weights))
    jacobians = step_jacobians(cell, params, carry, xs())
    for sequential in (False, True):
        np.testing.assert_allclose(adjoints(jacobians, local, sequential), read, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_few_steps_where_states_forget_and_as_many_as_there_are_states_where_they_do_not():
    """h' = tanh(g Q h) at 400 steps: its exponents are below log g for g < 1; chaos at g = 3."""
    steps, inputs = {}, jax.random.normal(jax.random.key(3), (400, 16)) / 10
    for gain in (0.7, 3.0):
        cell = cells.rnn(16, 16, "tanh", u=Orthogonal(gain), dtype=jnp.float64)
        found = newton(cell, cell.init(jax.random.key(0)), cell.initial_carry(()), inputs, sequential=True)
        assert np.isfinite(found.states.h).all()
        steps[gain] = np.asarray(found.steps)
    assert steps[0.7][-1] <= steps[0.7][100] + 1 < 10
    assert steps[3.0][-1] > 40 and steps[3.0][-1] > 2 * steps[3.0][100]


@pytest.mark.slow
def test_what_overflows_on_the_way_is_found_all_the_same_and_what_may_not_go_on_says_so():
    # At 0 a step is 10⁸ Q: of 60 the product is beyond floating point. In truth all units saturate.
    cell = cells.rnn(D, H, "tanh", u=Orthogonal(1e8), dtype=jnp.float64)
    params, carry, inputs = cell.init(jax.random.key(0)), cells.Hidden(jnp.full((1, H), 1e-3)), jnp.zeros((60, 1, D))
    given = cell, params, carry, inputs
    found = newton(*given, guess=cells.Hidden(jnp.zeros((60, 1, H))))
    np.testing.assert_allclose(found.states.h, unroll(*given)[0], atol=1e-12)
    assert (np.asarray(found.steps) <= np.arange(1, 61)[:, None]).all()
    short = newton(*given, guess=cells.Hidden(jnp.zeros((60, 1, H))), most=1)
    assert short.steps[0, 0] == 1 and short.steps[-1, 0] == 2


@pytest.mark.parametrize("wrong", [dict(tolerance=0.0), dict(tolerance=float("nan")), dict(most=0)])
def test_what_is_wrong_is_one_sentence(wrong):
    cell = CELLS["rnn"]()
    sentence = refusal(newton, cell, cell.init(jax.random.key(0)), cell.initial_carry((B,)), xs(), **wrong)
    assert next(iter(wrong)) in sentence
