"""Laws of `seqdyn.measure.updates`: against what training then does, gradients by hand, closed forms and NumPy."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _training import having, over

from seqdyn.backend import compiled
from seqdyn.data.tasks import TASKS, Batch
from seqdyn.learn import model, optim, train
from seqdyn.learn.config import Spec
from seqdyn.measure.updates import DECADES, adjoint_log10, histogram, measure, next_updates
from seqdyn.measure.view import View
from seqdyn.nets.bptt import at_end, valid_steps
from seqdyn.numbers import Numbers

X64 = False
T = 6
SGD = Spec(steps=T, batch=4, hidden=(4,), optimizer="sgd", schedule="exponential")
ADAM = dataclasses.replace(SGD, optimizer="adam", schedule="constant", clip="value")


def numbers(**changes):
    return Numbers(**changes).arrays()


@cache
def _updates(spec):
    return compiled(over(next_updates, spec))


@cache
def _chunk(spec):
    return compiled(over(train.chunk, spec), static_argnums=3)


@cache
def _looks(spec):
    return compiled(over(measure, spec))


def at(spec, h, n):
    """The state after n updates."""
    state = train.init(having(spec, h))
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(n):
            state, _ = _chunk(spec)(h, state, None, 1)
    return state


def norms(tree):
    """‖·‖ of each group, in float64."""
    flat = [np.concatenate([np.ravel(np.float64(x)) for x in jax.tree.leaves(g)]) for g in model.groups(tree).values()]
    return np.array([np.linalg.norm(g) for g in flat])


def cosines(a, b):
    """Of each group, and of all parameters together."""
    groups = [
        [np.concatenate([np.ravel(np.float64(x)) for x in jax.tree.leaves(g)]) for g in model.groups(t).values()]
        for t in (a, b)
    ]
    pairs = [*zip(*groups, strict=True), (np.concatenate(groups[0]), np.concatenate(groups[1]))]
    all_of = [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in pairs]
    return all_of[:-1], all_of[-1]


# --- the next updates ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tried_updates_are_those_that_training_then_makes():
    """Plain descent shows its gradients in its steps."""
    h = numbers(lr=0.25, decay_rate=1.0)
    p = [at(SGD, h, n).params for n in (3, 4, 5)]
    moves = [jax.tree.map(jnp.subtract, a, b) for a, b in ((p[1], p[0]), (p[2], p[1]))]
    got = _updates(SGD)(h, at(SGD, h, 3), None)
    np.testing.assert_allclose(got["group_weight_norm"], norms(p[0]), rtol=1e-5)
    np.testing.assert_allclose(got["group_update_ratio"], norms(moves[0]) / norms(p[0]), rtol=1e-4)
    np.testing.assert_allclose(got["group_gradient_ratio"], 4 * got["group_update_ratio"], rtol=1e-6)
    by_group, whole = cosines(*moves)
    np.testing.assert_allclose(got["group_gradient_cosine"], by_group, atol=1e-4)
    np.testing.assert_allclose(got["gradient_cosine"], whole, atol=1e-4)
    np.testing.assert_allclose(got["gradient_update_cosine"], 1, rtol=1e-5)
    assert abs(whole) < 0.999 and np.ptp(by_group) > 1e-3


@pytest.mark.slow
def test_ratios_and_cosines_are_those_of_a_loop_by_hand():
    spec, n = ADAM, 3
    h = numbers(lr=0.05, clip=0.01, warmup=10)
    state, task = at(spec, h, n), TASKS[spec.task](spec)
    keys = [jax.random.fold_in(train.keys(having(spec, h))[1], k) for k in (n, n + 1)]
    gradient = compiled(jax.grad(lambda p, b: model.loss(having(spec, h), p, b)))
    batches = [task.batch(None, "train", key) for key in keys]
    g = gradient(state.params, batches[0])
    size = np.linalg.norm(norms(g))
    clipped = jax.tree.map(lambda x: jnp.clip(x, -0.01, 0.01), g)
    with jax.numpy_dtype_promotion("standard"):
        direction, _ = optax.scale_by_adam().update(clipped, state.opt)
    move = jax.tree.map(lambda d: -np.float32(0.05 * (n + 1) / 10) * d, direction)
    later = gradient(jax.tree.map(jnp.add, state.params, move), batches[1])

    got = _updates(spec)(h, state, None)
    w = norms(state.params)
    np.testing.assert_allclose(got["group_gradient_ratio"], norms(g) / w, rtol=1e-4)
    np.testing.assert_allclose(got["group_update_ratio"], norms(move) / w, rtol=1e-4)
    by_group, whole = cosines(g, later)
    np.testing.assert_allclose(got["group_gradient_cosine"], by_group, atol=1e-4)
    np.testing.assert_allclose(got["gradient_cosine"], whole, atol=1e-4)
    turned = -cosines(g, move)[1]
    np.testing.assert_allclose(got["gradient_update_cosine"], turned, atol=1e-4)
    assert 0 < turned < 0.99
    left = np.linalg.norm(norms(clipped)) / size
    assert left < 0.5
    np.testing.assert_allclose(got["effective_lr"], 0.05 * (n + 1) / 10 * left, rtol=1e-4)


@pytest.mark.slow
def test_the_effective_rate_is_the_length_of_descent_s_step_over_that_of_the_gradient():
    for h in (
        numbers(lr=0.3, clip=1e-3, decay_rate=0.5, decay_steps=2),
        numbers(lr=0.3, decay_rate=0.5, decay_steps=2),
    ):
        state = at(SGD, h, 3)
        got = _updates(SGD)(h, state, None)
        g, move = (got[f"group_{name}_ratio"][:2] * got["group_weight_norm"][:2] for name in ("gradient", "update"))
        np.testing.assert_allclose(got["effective_lr"], move / g, rtol=1e-4)
        rate = optim.of_words(having(SGD, h)).rate(state.step)
        assert (got["effective_lr"] == rate) if np.isinf(h.clip) else (got["effective_lr"] < 0.1 * rate)


def test_a_group_of_zeros_has_no_ratio():
    h = numbers()
    got = _updates(SGD)(h, train.init(having(SGD, h)), None)
    zero = np.asarray(got["group_weight_norm"]) == 0
    assert 0 < zero.sum() < len(zero)
    for name in ("group_gradient_ratio", "group_update_ratio"):
        np.testing.assert_array_equal(np.isnan(got[name]), zero)


# --- the histogram ------------------------------------------------------------------------------------------


def numpy_counts(log10):
    """NumPy's histogram, the first and last bins open."""
    inner = np.clip(log10, DECADES[0], DECADES[-1] - 0.5)
    return np.histogram(inner, DECADES)[0]


def test_counts_are_numpy_s_and_zeros_and_what_is_not_finite_are_told_apart():
    rng = np.random.default_rng(0)
    log10 = rng.uniform(-90, 40, (50, 7)).astype(np.float32)
    mask = rng.random(log10.shape) < 0.8
    regular = numpy_counts(log10[mask])
    planted = rng.permutation(np.argwhere(mask))[:30]
    values = np.array([-np.inf] * 12 + [np.inf] * 10 + [np.nan] * 8, np.float32)
    lost = numpy_counts(log10[tuple(planted.T)])
    log10[tuple(planted.T)] = values
    log10[~mask] = rng.choice([np.nan, -np.inf, 3.0], np.sum(~mask))  # padding counts nowhere
    counts, zero, strange = compiled(histogram)(jnp.asarray(log10), jnp.asarray(mask))
    np.testing.assert_array_equal(counts, regular - lost)
    assert counts[0] > 5 and counts[-1] > 5 and counts.shape == (len(DECADES) - 1,) == (80,)
    np.testing.assert_allclose((zero, strange), (12 / mask.sum(), 18 / mask.sum()), rtol=1e-6)


@pytest.mark.slow
def test_an_identity_network_loses_one_decade_a_step_far_below_the_range_of_floats():
    """p = h_T · w + b and ∂h_T/∂h_t = 0.1^(T − t), so log₁₀‖λ_t‖ = log₁₀(2 |p − y| ‖w‖) − (T − t), exactly."""
    spec = Spec(steps=100, batch=9, hidden=(5,), activation="identity", u_init="identity", optimizer="sgd")
    h = numbers(gain=0.1)
    state = train.init(having(spec, h))
    batch = TASKS["adding"](dataclasses.replace(spec, batch=3)).batch(None, "train", jax.random.key(5))
    p = compiled(over(model.predict, spec))(h, state.params, batch)
    end = np.log10(2 * np.abs(p[:, 0] - batch.ys) * np.linalg.norm(state.params.readout.w))
    expected = end[None] - np.arange(99, -1, -1)[:, None]
    got = compiled(over(adjoint_log10, spec))(h, state.params, batch)
    np.testing.assert_allclose(got[0], expected, atol=1e-4)
    counts, zero, strange = compiled(histogram)(got[0], jnp.ones(got[0].shape, bool))
    np.testing.assert_array_equal(counts, numpy_counts(expected))
    assert counts[0] >= 3 * 38 and zero == strange == 0


TEXT = Spec(
    task="labelled",
    steps=T,
    batch=4,
    vocabulary=9,
    embedding=2,
    hidden=(3, 2),
    cell="lstm",
    readout="mean",
    clip="adjoint",
)


def text_scene(seed=0):
    rng = np.random.default_rng(seed)
    mask = valid_steps(jnp.array([6, 2, 4, 5]), T, "before")
    ids = jnp.asarray(rng.integers(1, 9, (T, 4)), jnp.int32)
    h = numbers(clip=0.05)
    return h, train.init(having(TEXT, h)), Batch(ids, jnp.asarray([0.0, 1.0, 1.0, 0.0]), mask)


@pytest.mark.slow
def test_the_adjoints_are_those_that_training_records_padding_and_clipping_included():
    h, state, batch = text_scene()
    logs = compiled(over(adjoint_log10, TEXT))(h, state.params, batch)
    _, metrics = compiled(over(train.step, dataclasses.replace(TEXT, optimizer="sgd")))(h, state, batch)
    assert 0 < metrics["clipped"] < 1
    count = np.maximum(np.asarray(metrics["adjoint_count"]), 1)
    for layer, norm in zip(logs, metrics["adjoint_norm"], strict=True):
        squares = np.where(batch.mask, 10.0 ** (2 * np.float64(layer)), 0)
        ended = np.asarray(at_end(jnp.asarray(squares, jnp.float32), batch.mask))
        np.testing.assert_allclose(np.sqrt(ended.sum(axis=1) / count), norm, rtol=1e-4)


@pytest.mark.slow
def test_truncation_leaves_zeros():
    spec = dataclasses.replace(SGD, truncate=True)
    h = numbers(window=2)
    batch = TASKS["adding"](spec).batch(None, "train", jax.random.key(5))
    logs = compiled(over(adjoint_log10, spec))(h, train.init(having(spec, h)).params, batch)
    counts, zero, _ = compiled(histogram)(logs[0], jnp.ones((T, 4), bool))
    np.testing.assert_allclose(zero, (T - 2) / T, rtol=1e-6)
    assert np.sum(counts) == 2 * 4


# --- the probe ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_looks_under_vmap_and_map_are_the_looks_of_each_and_a_run_that_ended_has_none():
    batch = TASKS["adding"](SGD).batch(None, "train", jax.random.key(5))
    grid = [numbers(seed=s, lr=0.1, clip=0.1) for s in (0, 1, 2)]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    h, states = stack(grid), stack([at(SGD, h, 3) for h in grid])
    poisoned = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), states.params)
    states = states._replace(params=poisoned, alive=jnp.array([True, False, True]))
    many = compiled(
        lambda h, states, view: (
            jax.vmap(over(measure, SGD), in_axes=(0, 0, None))(h, states, view),
            jax.lax.map(lambda a: measure(having(SGD, a[0]), a[1], view), (h, states)),
        )
    )(h, states, View(batch, None, 3))
    alone = _looks(SGD)(grid[0], at(SGD, grid[0], 3), View(batch, None, 3))
    for looked in many:
        for name, value in alone.items():
            np.testing.assert_allclose(looked[name][0], value, rtol=1e-4, atol=1e-6, err_msg=name)
            assert np.all(np.isfinite(value)) and np.all(np.isnan(looked[name][1]))
            if not name.startswith("adjoint"):
                assert name == "effective_lr" or np.all(np.isnan(looked[name][2]))
        # Parameters of NaN in a run that has not noticed yet: every adjoint is told to be none.
        assert np.all(looked["adjoint_nonfinite"][2] == 1) and not np.any(looked["adjoint_histogram"][2])
    assert math.isclose(np.sum(alone["adjoint_histogram"]), T * 4)
