"""Laws of `seqdyn.nets.dropped`: each kind is the equations its paper prints, its gradient is autodiff's, masks of 1
are no masks, and zoneout's expectation is the mean over its masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.measure.jacobians import step_jacobians
from seqdyn.nets import cells, dropped
from seqdyn.nets.bptt import Cut, Watch, live_steps, unroll
from seqdyn.nets.stack import unroll_autodiff

OPTIMISED = True
MAKE = {"rnn": cells.rnn, "lstm": cells.lstm, "gru": cells.gru}
KINDS = {
    "recurrent": dropped.recurrent,
    "candidate": dropped.candidate,
    "zoneout": dropped.zoneout,
    "expected": lambda cell: dropped.expected(cell, 0.3),
}
PAIRS = [(kind, name) for kind in KINDS for name in MAKE if (kind, name) != ("candidate", "rnn")]
every_pair = pytest.mark.parametrize("kind, name", PAIRS)
T, B, D, H = 7, 3, 2, 4


def made(kind, name, t=T, b=B, d=D, h=H, ones=False, dtype=jnp.float64):
    """(cell, params, first carry, [x, masks])."""
    plain, rng = MAKE[name](d, h, dtype=dtype), np.random.default_rng(h + 10 * b)
    params = jax.tree.map(
        lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), dtype), plain.init(jax.random.key(1))
    )
    carry = jax.tree.map(lambda c: c + jnp.asarray(0.5 * rng.normal(size=c.shape), dtype), plain.rest((b,)))
    parts = {"expected": 0, "zoneout": len(carry)}.get(kind, 1)
    masks = (rng.random((t, b, parts * h)) < 0.6) / (1 if kind == "zoneout" else 0.6)
    masks = np.ones_like(masks) if ones else masks
    xs = jnp.asarray(np.concatenate([rng.normal(size=(t, b, d)), masks], axis=-1), dtype)
    return KINDS[kind](plain), params, carry, xs


def loss(by, cell, cut, params, carry, x, masks):
    hs, last = by(cell, params, carry, jnp.concatenate([x, masks], axis=-1), cut)
    weight = jnp.asarray(np.random.default_rng(5).normal(size=hs.shape), hs.dtype)
    return jnp.sum(weight * jnp.sin(hs)) + sum(jnp.sum(leaf**2) for leaf in last)


def gradients(by, kind, name, cut=Cut(), **sizes):
    cell, params, carry, xs = made(kind, name, **sizes)
    d = params.w.shape[0]
    of = jax.grad(lambda *given: loss(by, cell, cut, *given, xs[..., d:]), argnums=(0, 1, 2))
    return compiled(of)(params, carry, xs[..., :d])


def close(a, b, rtol=1e-9):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=rtol, atol=rtol), a, b)


@every_pair
def test_the_gradient_through_each_kind_is_autodiffs_with_padding(kind, name):
    cut = Cut(live=live_steps(jnp.asarray([7, 1, 4]), T, "before"))
    close(gradients(unroll, kind, name, cut), gradients(unroll_autodiff, kind, name, cut))


@pytest.mark.parametrize(
    "kind, name, b, h, dtype",
    [
        ("recurrent", "lstm", 4, 5, jnp.float64),
        ("candidate", "gru", 4, 5, jnp.float64),
        ("zoneout", "gru", 4, 5, jnp.float64),
        ("zoneout", "lstm", 8, 9, jnp.float32),
        ("recurrent", "gru", 1, 1, jnp.float64),
    ],
)
def test_the_gradient_is_autodiffs_at_the_shapes_where_the_compiler_has_failed(kind, name, b, h, dtype):
    """The oracle runs operation by operation."""
    sizes = dict(t=4, b=b, h=h, dtype=dtype)
    with jax.disable_jit():
        cell, params, carry, xs = made(kind, name, **sizes)
        theirs = jax.grad(lambda *given: loss(unroll_autodiff, cell, Cut(), *given, xs[..., D:]), argnums=(0, 1, 2))(
            params, carry, xs[..., :D]
        )
    close(gradients(unroll, kind, name, **sizes), theirs, 1e-9 if dtype == jnp.float64 else 3e-5)


@pytest.mark.parametrize("kind, name", [("recurrent", "gru"), ("candidate", "lstm"), ("zoneout", "lstm")])
def test_it_is_differentiable_twice_and_under_vmap(kind, name):
    """Hessian-vector products, each run of a batch of runs with masks of its own."""
    cell, params, carry, xs = made(kind, name)

    def product(by):
        def one(masks):
            def slope(p):
                grads = jax.grad(lambda p: loss(by, cell, Cut(), p, carry, xs[..., :D], masks))(p)
                return sum(jnp.sum(jnp.cos(g) * g) for g in jax.tree.leaves(grads))

            return jax.grad(slope)(params)

        return compiled(jax.vmap(one))(jnp.stack([xs[..., D:], xs[::-1, :, D:]]))

    close(product(unroll), product(unroll_autodiff), 1e-8)


# --- the equations ------------------------------------------------------------------------------------------


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def papers(kind, name, params, carry, x, m):
    """One step in NumPy as the papers print it, weights from the right."""
    w, u, b, h = (np.asarray(a) for a in (params.w, params.u, params.b, carry[-1]))
    entered = m[0] * h if kind == "recurrent" else h
    g_mask = m[0] if kind == "candidate" else 1.0
    z = x @ w + b
    if name == "rnn":
        new = (np.tanh(z + entered @ u),)
    elif name == "lstm":
        i, f, o, g = np.split(z + entered @ u, 4, axis=1)
        c = sigmoid(f) * carry[0] + sigmoid(i) * (g_mask * np.tanh(g))
        new = (c, sigmoid(o) * np.tanh(c))
    else:
        (xr, xz, xn), (ur, uz, un) = np.split(z, 3, axis=1), np.split(entered @ u, 3, axis=1)
        r, gate = sigmoid(xr + ur), sigmoid(xz + uz)
        n = np.tanh(xn + r * (un + np.asarray(params.bn)))
        new = ((1 - gate) * (g_mask * n) + gate * h,)
    if kind == "zoneout":
        return tuple(np.where(keep == 1, n, o) for keep, n, o in zip(m, new, carry, strict=True))
    return tuple(0.7 * n + 0.3 * o for n, o in zip(new, carry, strict=True)) if kind == "expected" else new


@every_pair
def test_each_kind_is_the_equations_of_its_paper(kind, name):
    cell, params, carry, xs = made(kind, name)
    hs, last = unroll(cell, params, carry, xs)
    state, x = tuple(np.asarray(leaf) for leaf in carry), np.asarray(xs)
    for t in range(T):
        masks = [x[t, :, D + k * H : D + (k + 1) * H] for k in range((x.shape[2] - D) // H)]
        state = papers(kind, name, params, state, x[t, :, :D], masks)
        np.testing.assert_allclose(hs[t], state[-1], rtol=1e-10)
    close(tuple(last), state, 1e-10)


@every_pair
def test_the_adjoint_is_of_h_as_the_step_gives_it_out(kind, name):
    """λ_t = ∂L/∂h_t: what a nudge of the output of step t, after zoneout, does to the loss."""
    cell, params, carry, xs = made(kind, name)

    def ours(watch):
        return jnp.sum(jnp.sin(unroll(cell, params, carry, xs, Cut(), watch)[0]))

    zeros = jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape)), carry)

    def nudged(nudges):
        state, total = carry, 0.0
        for t in range(T):
            state = cells.step(cell, params, state, xs[t])
            state = state._replace(h=state.h + nudges[t])
            total += jnp.sum(jnp.sin(state.h))
        return total

    adjoint = compiled(jax.grad(ours))(Watch(adjoint=zeros)).adjoint.h
    np.testing.assert_allclose(adjoint, compiled(jax.grad(nudged))(jnp.zeros((T, B, H))), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind, name", [pair for pair in PAIRS if pair[0] != "expected"])
def test_masks_of_1_are_no_masks(kind, name):
    cell, params, carry, xs = made(kind, name, ones=True)
    plain = MAKE[name](D, H, dtype=jnp.float64)
    close(unroll(cell, params, carry, xs), unroll(plain, params, carry, xs[..., :D]), 1e-14)


# --- zoneout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKE)
def test_the_mean_of_a_step_over_zoneouts_masks_is_the_expected_step(name):
    """Over every mask of one unit, each as likely as it is: a step is linear in m."""
    plain = MAKE[name](D, H, dtype=jnp.float64)
    _, params, carry, xs = made("expected", name)
    parts = len(carry)
    every_mask = [[k >> i & 1 for i in range(parts)] for k in range(2**parts)]
    mean = jax.tree.map(jnp.zeros_like, carry)
    for mask in every_mask:
        likely = np.prod([0.7 if m else 0.3 for m in mask])
        beside = jnp.concatenate([jnp.full((B, H), float(m)) for m in mask], axis=-1)
        step = cells.step(dropped.zoneout(plain), params, carry, jnp.concatenate([xs[0], beside], axis=-1))
        mean = jax.tree.map(lambda a, b, likely=likely: a + likely * b, mean, step)
    close(mean, cells.step(dropped.expected(plain, 0.3), params, carry, xs[0]), 1e-12)


@pytest.mark.parametrize("name", MAKE)
def test_the_step_jacobian_of_zoneouts_evaluation_is_that_of_the_expected_step(name):
    cell, params, carry, xs = made("expected", name)
    found = compiled(lambda: step_jacobians(cell, params, carry, xs))()[0, 0]

    def step(state):
        like = jax.tree.unflatten(jax.tree.structure(carry), jnp.split(state, len(carry)))
        return jnp.concatenate(cells.step(cell, params, like, xs[0, 0]))

    there = jax.jacfwd(step)(jnp.concatenate([leaf[0] for leaf in carry]))
    np.testing.assert_allclose(found, there, rtol=1e-9, atol=1e-12)
    plain = MAKE[name](D, H, dtype=jnp.float64)
    bare = compiled(lambda: step_jacobians(plain, params, carry, xs))()[0, 0]
    np.testing.assert_allclose(found, 0.7 * bare + 0.3 * np.eye(len(bare)), rtol=1e-9, atol=1e-12)
