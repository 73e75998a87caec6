"""A sequence in segments, whose steps are made again on the way back, is the sequence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _programs import program
from _refusals import refusal
from _training import having

from seqdyn.backend import compiled
from seqdyn.learn import train, verify
from seqdyn.learn.config import Spec
from seqdyn.nets import cells
from seqdyn.nets.bptt import Backprop, Tap, taps, unroll, valid_steps, window
from seqdyn.nets.segments import checkpointed, in_segments
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.numbers import Numbers

T, B, D, H = 12, 3, 2, 4
CELLS = {
    "lstm": cells.lstm(D, H, dtype=jnp.float64),
    "gru": cells.gru(D, H, dtype=jnp.float64),
    "gru_reset_before": cells.gru_reset_before(D, H, dtype=jnp.float64),  # whose gate has parameters
}


def given(cell):
    keys = jax.random.split(jax.random.key(1), 2)
    return cell.init(keys[0]), cell.initial_carry((B,)), jax.random.normal(keys[1], (T, B, D), jnp.float64)


def close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "name", [name if name == "lstm" else pytest.param(name, marks=pytest.mark.slow) for name in CELLS]
)
def test_gradients_and_readings_are_those_of_all_steps_at_once(name):
    """Padded, truncated and clipped, of the last output and of all, in both directions."""
    cell = CELLS[name]
    cut = Backprop(valid_steps(jnp.array([T, 7, 2]), T), window(T, 5), jnp.asarray(0.3))
    watch = taps(cell, T, (B,), clipped=True, ranged=True, adjoint=True)

    def found(by):
        def loss(params, carry, xs, watch, ahead):
            hs, last = by(cell, params, carry, xs, cut, watch)
            back, first = by(cell, params, carry, xs, cut, watch, reverse=True)
            of_last = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves((last, first)))
            return of_last + ahead * jnp.sum(hs**3 + back**3)

        made = program(jax.value_and_grad(loss, argnums=range(4)))
        return [made(*given(cell), watch, ahead) for ahead in (0.0, 1.0)]

    close(found(in_segments(4)), found(unroll))


def test_it_can_be_differentiated_twice():
    cell = CELLS["lstm"]
    params, carry, xs = given(cell)

    def product(by):
        """Of the Hessian and the parameters."""

        def loss(params):
            return jnp.sum(by(cell, params, carry, xs)[1].h ** 2)

        return jax.grad(lambda p: sum(jnp.vdot(a, b) for a, b in zip(jax.grad(loss)(p), params, strict=True)))(params)

    close(compiled(lambda: product(in_segments(3)))(), compiled(lambda: product(unroll))())


@pytest.mark.parametrize("by", [in_segments, lambda length: checkpointed(unroll_autodiff, length)])
def test_what_is_kept_grows_as_the_root_of_the_steps(by):
    """Four times the steps in segments twice as long take twice the memory beside inputs and outputs."""
    cell = cells.lstm(D, 16)

    def kept(root):
        xs = jax.ShapeDtypeStruct((root * root, 8, D), np.float32)
        params, carry = jax.eval_shape(lambda: (cell.init(jax.random.key(0)), cell.initial_carry((8,))))

        def loss(params, carry, xs):
            return jnp.sum(by(root)(cell, params, carry, xs)[1].h)

        return compiled(jax.grad(loss)).lower(params, carry, xs).compile().memory_analysis().temp_size_in_bytes

    few, many = kept(32), kept(64)
    assert few < many < 3 * few


@pytest.mark.slow
def test_a_run_in_segments_is_the_run():
    """Also the oracle that its gradient is held against; a term reads the adjoints."""
    whole = Spec(cell="lstm", hidden=(4, 3), steps=T, batch=4, holdout=4, shortest=5, dtype="float64", clip="adjoint")
    numbers = Numbers(seed=0, clip=0.5).arrays(jnp.float64)
    states = []
    for spec in (whole, dataclasses.replace(whole, segment=3)):
        state = train.init(having(spec, numbers))
        states.append(compiled(lambda s, spec=spec: train.chunk(having(spec, numbers), s, None, 2))(state))
        assert verify.gradient_error(having(spec, numbers), None) < 1e-12
    close(*states)


def test_what_does_not_fit_is_a_sentence():
    assert "segment is 5; it must divide steps, 12" in refusal(train_of, segment=5)
    assert "segment is -1" in refusal(train_of, segment=-1)
    assert "'batch', which sees all steps at once; it must be 0" in refusal(train_of, segment=4, normalise="batch")
    assert "'dense_per_position', which sees" in refusal(train_of, segment=4, cell="dense_per_position")
    cell = CELLS["gru"]
    assert "segment is 5; it must divide the 12 steps" in refusal(in_segments(5), cell, *given(cell), Backprop(), Tap())


def train_of(**fields):
    from seqdyn import Experiment

    return Experiment("long", Spec(steps=T, **fields), updates=1)
