"""Laws of `seqdyn.learn.optim`: what clipping does to a gradient, and optax's own optimisers and schedules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _training import having

from seqdyn.backend import compiled
from seqdyn.learn import optim
from seqdyn.learn.config import Spec
from seqdyn.norms import tree_norm
from seqdyn.numbers import Numbers

X64 = False
CLIPS = {"norm": optim.clip_by_norm, "value": optim.clip_by_value}
every_clip = pytest.mark.parametrize("kind", CLIPS)


def gradient(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    leaves = {"u": rng.normal(size=(3, 4)), "b": (rng.normal(size=5), rng.normal(size=(1,)))}
    return jax.tree.map(lambda leaf: jnp.asarray(scale * leaf, jnp.float32), leaves)


def flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


_clips = {kind: compiled(lambda g, bound, clip=clip: clip(g, bound, tree_norm(g))) for kind, clip in CLIPS.items()}


def clip(kind, grads, bound):
    with jax.numpy_dtype_promotion("standard"):
        return _clips[kind](grads, jnp.float32(bound))


# --- clipping -----------------------------------------------------------------------------------------------


@every_clip
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_clipping_never_increases_the_norm_and_says_by_how_much_it_shrank(kind, scale):
    grads = gradient(scale)
    size = np.linalg.norm(flat(grads))
    for bound in (1e-3 * scale, 0.5 * scale, 3 * scale, 100 * scale, math.inf):
        clipped = clip(kind, grads, bound)
        after = np.linalg.norm(flat(clipped.grads))
        assert after <= size * (1 + 1e-6)
        np.testing.assert_allclose(clipped.scale, after / size, rtol=1e-5)
        assert np.all(flat(clipped.grads) * flat(grads) >= 0)


def test_clipping_by_norm_ends_at_the_bound_and_keeps_the_direction():
    grads = gradient()
    clipped = clip("norm", grads, 0.25)
    np.testing.assert_allclose(np.linalg.norm(flat(clipped.grads)), 0.25, rtol=1e-6)
    np.testing.assert_allclose(flat(clipped.grads) / 0.25, flat(grads) / np.linalg.norm(flat(grads)), rtol=1e-5)
    assert float(clipped.fraction) == 1


@every_clip
@pytest.mark.parametrize("bound", [1e3, math.inf])
def test_a_gradient_under_the_bound_keeps_its_bits(kind, bound):
    grads = gradient()
    clipped = clip(kind, grads, bound)
    jax.tree.map(np.testing.assert_array_equal, clipped.grads, grads)
    assert float(clipped.scale) == 1 and float(clipped.fraction) == 0


def test_a_gradient_at_the_bound_is_not_clipped():
    grads = {"u": jnp.asarray([3.0, 0.0, -4.0], jnp.float32)}
    assert float(clip("norm", grads, 5.0).fraction) == 0
    assert float(clip("value", grads, 4.0).fraction) == 0


def test_clipping_by_value_bounds_each_entry_and_counts_those_it_changed():
    grads = gradient()
    clipped = clip("value", grads, 0.5)
    over = np.abs(flat(grads)) > 0.5
    assert 0 < over.sum() < over.size
    np.testing.assert_array_equal(flat(clipped.grads)[over], 0.5 * np.sign(flat(grads)[over]))
    np.testing.assert_array_equal(flat(clipped.grads)[~over], flat(grads)[~over])
    np.testing.assert_allclose(clipped.fraction, over.mean(), rtol=1e-6)


def test_clipping_by_value_may_turn_the_gradient_and_by_norm_not():
    grads = gradient()
    cosine = {k: flat(grads) @ flat(c := clip(k, grads, 0.5).grads) / np.linalg.norm(flat(c)) for k in CLIPS}
    size = np.linalg.norm(flat(grads))
    assert cosine["norm"] / size > 1 - 1e-6 and cosine["value"] / size < 0.99


@every_clip
def test_a_gradient_of_zero_stays_zero(kind):
    clipped = clip(kind, jax.tree.map(jnp.zeros_like, gradient()), 1.0)
    assert not np.any(flat(clipped.grads)) and float(clipped.scale) == 1 and float(clipped.fraction) == 0


# --- rules --------------------------------------------------------------------------------------------------

MOMENTUM, DECAY, LR = 0.7, 0.3, 0.05
OPTAX = {
    "sgd": lambda: optax.sgd(LR),
    "momentum": lambda: optax.sgd(LR, momentum=MOMENTUM),
    "rmsprop": lambda: optax.rmsprop(LR, decay=MOMENTUM),
    "adam": lambda: optax.adam(LR),
    "adamw": lambda: optax.adamw(LR, weight_decay=DECAY),
}


def trained(rule, rate, params, updates=5):
    """Parameters after updates with gradients that differ, so that a forgotten state would show."""
    state, path = rule.init(params), []
    for n in range(updates):
        moves, state = rule.update(gradient(seed=n + 1), state, params)
        params = jax.tree.map(lambda p, m: p + rate * m, params, moves)
        path.append(params)
    return path


@pytest.mark.parametrize("name", OPTAX)
def test_each_rule_is_optaxs_optimizer(name):
    spec = Spec(optimizer=name)

    def ours(numbers, params):
        direction = optim.of_words(having(spec, numbers)).direction(lambda tree: jax.tree.map(lambda _: True, tree))
        return trained(direction, -numbers.lr, params)

    numbers = Numbers(lr=LR, momentum=MOMENTUM, weight_decay=DECAY).arrays()
    with jax.numpy_dtype_promotion("standard"):
        got = compiled(ours)(numbers, gradient())
        expected = compiled(lambda params: trained(OPTAX[name](), 1.0, params))(gradient())
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(flat(a), flat(b), rtol=2e-5, atol=1e-6)
    assert not np.allclose(flat(got[-1]), flat(got[-2]), rtol=1e-3)


# --- schedules ----------------------------------------------------------------------------------------------

UPDATES = jnp.arange(60)


def rates(schedule, **numbers):
    rate = jax.vmap(lambda h, n: optim.of_words(having(Spec(schedule=schedule), h)).rate(n), in_axes=(None, 0))
    return np.asarray(compiled(rate)(Numbers(**{"lr": 0.3, **numbers}).arrays(), UPDATES.astype(jnp.int32)))


SCHEDULES = {
    "constant": optax.constant_schedule(0.3),
    "cosine": optax.cosine_decay_schedule(0.3, 40),
    "exponential": optax.exponential_decay(0.3, 40, 0.1),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_schedule_is_optaxs(schedule):
    got = rates(schedule, decay_steps=40, decay_rate=0.1)
    np.testing.assert_allclose(got, [float(SCHEDULES[schedule](int(n))) for n in UPDATES], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_rises_linearly_and_then_the_schedule_begins(schedule):
    got = rates(schedule, decay_steps=40, decay_rate=0.1, warmup=8)
    np.testing.assert_allclose(got[:8], 0.3 * np.arange(1, 9) / 8, rtol=1e-6)
    np.testing.assert_allclose(got[8:], rates(schedule, decay_steps=40, decay_rate=0.1)[:-8], rtol=1e-6, atol=1e-9)


def test_inverse_falls_as_one_over_the_updates():
    np.testing.assert_allclose(
        rates("inverse", decay_steps=20)[[0, 20, 39]], [0.3, 0.15, 0.3 / (1 + 39 / 20)], rtol=1e-6
    )


def test_exponential_falls_by_its_rate_in_its_steps_and_a_rate_of_zero_stops_after_the_first():
    got = rates("exponential", decay_steps=20, decay_rate=0.25)
    np.testing.assert_allclose(got[20:] / got[:-20], 0.25, rtol=1e-5)
    np.testing.assert_array_equal(rates("exponential", decay_steps=20, decay_rate=0.0)[:3], np.float32([0.3, 0, 0]))
