"""Laws of `learn.penalties`: each is its formula, acts before clipping, and leaves the recorded adjoints alone."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from _programs import program
from _training import having, scene, start

from seqdyn.learn import model, penalties, train
from seqdyn.learn.config import Spec
from seqdyn.norms import tree_norm
from seqdyn.numbers import Numbers

X64 = False
PLAIN = Spec(steps=7, batch=3, hidden=(5,))


def orthogonal(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@cache
def formula():
    """Ω and its gradients by u, adjoint and slope."""
    return program(
        lambda u, adjoint, slope, exponent=None, mask=None: jax.value_and_grad(penalties.omega, argnums=(0, 1, 2))(
            u, adjoint, slope, exponent=exponent, mask=mask
        )
    )


def omega(*given, **more):
    return formula()(*given, **more)[0]


def loop(u, adjoint, slope, bound=1e-20):
    """Ω as Pascanu, Mikolov & Bengio write it, a step and an example at a time; their W is u.T."""
    found = []
    for t in range(1, len(adjoint)):
        for lam, phi in zip(adjoint[t], slope[t], strict=True):
            if lam @ lam >= bound:
                back = (lam * phi) @ u.T
                found.append((back @ back / (lam @ lam) - 1) ** 2)
    return np.mean(found) if found else 0.0


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("double")
def test_omega_is_its_formula_and_its_gradient_that_of_u_alone():
    u, adjoint, slope = random(4, 4), random(6, 3, 4, seed=1), random(6, 3, 4, seed=2)
    adjoint[3, 1] *= 1e-12  # left out
    value, (grad, *of_rest) = formula()(u, adjoint, slope)
    np.testing.assert_allclose(value, loop(u, adjoint, slope), rtol=1e-12)
    for i, j in ((0, 0), (1, 3), (2, 1)):
        e = np.zeros((4, 4))
        e[i, j] = 1e-6
        apart = loop(u + e, adjoint, slope) - loop(u - e, adjoint, slope)
        np.testing.assert_allclose(grad[i, j], apart / 2e-6, rtol=1e-6)
    assert all((g == 0).all() for g in of_rest)


@pytest.mark.usefixtures("double")
def test_omega_is_0_where_every_step_keeps_the_norm_and_where_every_adjoint_is_faint():
    adjoint, one = random(5, 2, 4), np.ones((5, 2, 4))
    assert omega(orthogonal(4), adjoint, one) < 1e-28
    np.testing.assert_allclose(omega(0.5 * orthogonal(4), adjoint, one), 0.75**2)
    assert omega(random(4, 4), adjoint * 1e-11, one) == 0


@pytest.mark.usefixtures("double")
def test_omega_leaves_out_padding_and_takes_the_exponent_for_a_factor():
    u, adjoint, slope = random(4, 4), random(6, 3, 4, seed=1), random(6, 3, 4, seed=2)
    mask = np.ones((6, 3), bool)
    mask[4:] = False
    ended = omega(u, adjoint, slope, mask=mask)
    np.testing.assert_allclose(ended, omega(u, adjoint[:4], slope[:4]), rtol=1e-12)
    same = omega(u, adjoint * 2.0**10, slope, exponent=np.full((6, 3), -10.0, np.float32))
    np.testing.assert_allclose(same, omega(u, adjoint, slope), rtol=1e-12)
    assert omega(u, adjoint, slope, exponent=np.full((6, 3), -50.0, np.float32)) == 0


@cache
def gradient(spec):
    """(its gradient, readings, penalties, the layer's outputs): cells are functions and cannot leave."""

    def run(h, params, batch):
        found = train.gradient(having(spec, h), params, batch)
        return found.grads, found.readings[0], found.penalties, found.forward.path[0].hs

    return program(run)


@cache
def outputs(spec):
    return program(lambda params, batch: model.run(having(spec, Numbers().arrays()), params, batch).stacked.hs)


def by_hand(name, spec, params, batch):
    """Each penalty in NumPy."""
    ws = [w for layer in params.layers for w in (layer.w, layer.u)] + [params.readout.w]
    if name == "l1":
        return sum(np.abs(w).sum() for w in ws)
    if name == "l2":
        return sum(np.square(w).sum() for w in ws) / 2
    if name == "orthogonality":
        us = [u for layer in params.layers for u in np.split(np.asarray(layer.u), layer.u.shape[1] // 5, axis=1)]
        return sum(np.square(u.T @ u - np.eye(5)).sum() for u in us)
    return np.square(outputs(spec)(params, batch)).mean()


NAMES = ("l1", "l2", "activity", "orthogonality")


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_adds_its_own_gradient_and_leaves_the_adjoints_alone(name, cell):
    """The others at a weight of 0, where they add nothing."""
    bare = dataclasses.replace(PLAIN, cell=cell)
    spec = dataclasses.replace(bare, penalties=NAMES)
    h, state, batch = scene(spec, **{name: 0.3})
    plain = gradient(bare)(h, state.params, batch)
    both = gradient(spec)(h, state.params, batch)
    assert not plain[2] and set(both[2]) == set(NAMES)
    np.testing.assert_allclose(both[2][name], by_hand(name, bare, state.params, batch), rtol=1e-5)
    np.testing.assert_allclose(both[1].adjoint_norm.h, plain[1].adjoint_norm.h, rtol=1e-6)
    extra = jax.tree.map(lambda a, b: (a.astype(float) - b) / 0.3, both[0], plain[0])
    direction = jax.tree.map(lambda p: random(*p.shape, seed=p.size), state.params)

    def at(sign):
        moved = jax.tree.map(lambda p, d: np.float32(p + sign * 1e-3 * d), state.params, direction)
        return float(by_hand(name, bare, moved, batch))

    slope = sum(np.vdot(g, d) for g, d in zip(jax.tree.leaves(extra), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(slope, (at(1) - at(-1)) / 2e-3, rtol=1e-2, atol=1e-3)


def test_omega_in_training_is_that_of_the_recorded_adjoint_and_is_clipped_with_the_rest():
    spec = dataclasses.replace(PLAIN, penalties=("omega",))
    h, state, batch = scene(spec, omega=2.0, clip=1e-3, lr=1.0)
    grads, reading, found, hs = gradient(spec)(h, state.params, batch)
    plain = gradient(PLAIN)(h, state.params, batch)[0]
    factor = np.exp2(reading.exponent.astype(float))[..., None]
    lam, slope = reading.adjoint.h * factor, 1 - hs.astype(float) ** 2
    u = np.asarray(state.params.layers[0].u, np.float64)
    for t in range(len(lam) - 1, 0, -1):  # the loss reads h_T alone
        np.testing.assert_allclose(lam[t - 1], (lam[t] * slope[t]) @ u.T, rtol=1e-4, atol=1e-7)
    with_first = [np.concatenate([a[:1], a]) for a in (lam, slope)]  # a row for h_0: all T steps count
    value = loop(u, with_first[0], with_first[1])
    np.testing.assert_allclose(found["omega"], value, rtol=1e-5)
    others = jax.tree.map(lambda a, b: np.abs(a - b).max(), grads, plain)
    assert others.layers[0].u > 1e-4
    assert max(jax.tree.leaves(others._replace(layers=(others.layers[0]._replace(u=0.0),)))) == 0
    sgd = dataclasses.replace(spec, optimizer="sgd")

    @program
    def moved(h, state, grads):
        move = train.optimizer_step(having(sgd, h), state, grads)
        return move.size, tree_norm(move.updates)

    size, update = moved(h, start(sgd), grads)
    assert size > np.linalg.norm(plain.layers[0].u) + 1e-3  # Ω is in what is clipped
    np.testing.assert_allclose(update, 1e-3, rtol=1e-4)


def test_omega_of_sequences_of_several_lengths_sees_their_steps_alone():
    spec = dataclasses.replace(PLAIN, steps=9, shortest=4, penalties=("omega",))
    h, state, batch = scene(spec)
    _, reading, found, hs = gradient(spec)(h, state.params, batch)
    lam = reading.adjoint.h * np.exp2(reading.exponent.astype(float))[..., None]
    slope, u = 1 - hs.astype(float) ** 2, np.asarray(state.params.layers[0].u)
    terms = []
    for b, length in enumerate(np.asarray(batch.mask).sum(axis=0)):
        back = (lam[:length, b] * slope[:length, b]) @ u.T
        terms += list(((back**2).sum(-1) / (lam[:length, b] ** 2).sum(-1) - 1) ** 2)
    np.testing.assert_allclose(found["omega"], np.mean(terms), rtol=1e-5)


def test_omega_brings_the_gradient_s_growth_to_1():
    """Descended, each step's factor comes closer to 1 than where it is only measured."""
    spec = dataclasses.replace(PLAIN, penalties=("omega",), u_init="gaussian", batch=8)

    @program
    def run(h):
        return train.chunk(having(spec, h), train.init(having(spec, h)), None, 150)[1]["penalty_omega"]

    def late(weight):
        return run(Numbers(omega=weight, gain=0.5, lr=1e-2).arrays())[-20:].mean()

    assert late(1e3) < 0.6 * late(0.0)
