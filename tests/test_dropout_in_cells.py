"""Laws of `seqdyn.nets.dropped`: each kind is the equations its paper prints, its gradient is autodiff's, masks of 1
are no masks, and zoneout's expectation is the mean over its masks."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _programs import optimised, program

from seqdyn.measure.jacobians import step_jacobians
from seqdyn.nets import cells, dropped
from seqdyn.nets.bptt import Backprop, Tap, unroll, valid_steps, where_valid
from seqdyn.nets.stack import unroll_autodiff, unroll_loop

MAKE = {"rnn": cells.rnn, "lstm": cells.lstm, "gru": cells.gru, "gru_reset_before": cells.gru_reset_before}
KINDS = {
    "recurrent": dropped.recurrent,
    "candidate": dropped.candidate,
    "zoneout": dropped.zoneout,
    "expected": lambda cell: dropped.expected(cell, 0.3),
}
PAIRS = [(kind, name) for kind in KINDS for name in MAKE if (kind, name) != ("candidate", "rnn")]
every_pair = pytest.mark.parametrize("kind, name", PAIRS)
T, B, D, H = 7, 3, 2, 4


def made(kind, name, t=T, b=B, d=D, h=H, dtype=jnp.float64):
    """(cell, params, first carry, x, masks)."""
    plain, rng = MAKE[name](d, h, dtype=dtype), np.random.default_rng(h + 10 * b)

    def near(tree, size):
        return jax.tree.map(lambda leaf: np.asarray(size * rng.normal(size=leaf.shape), dtype), tree)

    params = near(jax.eval_shape(plain.init, jax.eval_shape(lambda: jax.random.key(1))), 0.6)
    carry = near(jax.eval_shape(lambda: plain.initial_carry((b,))), 0.5)
    parts = {"expected": 0, "zoneout": len(carry)}.get(kind, 1)
    masks = (rng.random((t, b, parts * h)) < 0.6) / (1 if kind == "zoneout" else 0.6)
    return KINDS[kind](plain), params, carry, np.asarray(rng.normal(size=(t, b, d)), dtype), np.asarray(masks, dtype)


def judged(hs, last):
    weight = jnp.asarray(np.random.default_rng(5).normal(size=hs.shape), hs.dtype)
    return jnp.sum(weight * jnp.sin(hs)) + sum(jnp.sum(leaf**2) for leaf in last)


def loss(by, cell, params, carry, x, masks):
    return judged(*by(cell, params, carry, jnp.concatenate([x, masks], axis=-1)))


def close(a, b, rtol=1e-9):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=rtol, atol=rtol), a, b)


@cache
def both(kind, name):
    """(params, carry, x, masks, lengths) -> (outputs and last carry, gradients and λ, what autodiff has for those).

    λ_t = ∂L/∂h_t, of h as the step gives it out: what a nudge of it, after zoneout, does to the loss."""
    cell = KINDS[kind](MAKE[name](D, H, dtype=jnp.float64))

    def of(params, carry, x, masks, lengths):
        mask = valid_steps(lengths, T, "before")

        def ours(params, carry, x, adjoint):
            xs = jnp.concatenate([x, masks], axis=-1)
            found = unroll(cell, params, carry, xs, Backprop(mask=mask), Tap(adjoint=adjoint))
            return judged(*found), found

        def theirs(params, carry, x, nudges):
            def body(carry, inputs):
                x, nudge, mask = inputs
                new = cells.step(cell, params, carry, x)
                new = where_valid(mask, new._replace(h=new.h + nudge), carry)
                return new, new.h

            last, hs = jax.lax.scan(body, carry, (jnp.concatenate([x, masks], axis=-1), nudges.h, mask))
            return judged(hs, last)

        zeros = jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape)), carry)
        grads, found = jax.grad(ours, argnums=(0, 1, 2, 3), has_aux=True)(params, carry, x, zeros)
        right = jax.grad(theirs, argnums=(0, 1, 2, 3))(params, carry, x, zeros)
        return found, (*grads[:3], grads[3].h), (*right[:3], right[3].h)

    return program(of)


LENGTHS = np.array([7, 1, 4])


@every_pair
def test_the_gradient_and_the_adjoint_through_each_kind_are_autodiffs_with_padding(kind, name):
    _, ours, theirs = both(kind, name)(*made(kind, name)[1:], LENGTHS)
    close(ours, theirs)


@pytest.mark.parametrize(
    "kind, name, b, h, dtype",
    [
        ("recurrent", "lstm", 4, 5, jnp.float64),
        ("candidate", "gru", 4, 5, jnp.float64),
        ("zoneout", "gru", 4, 5, jnp.float64),
        pytest.param("zoneout", "lstm", 8, 9, jnp.float32, marks=pytest.mark.slow),
        pytest.param("recurrent", "gru", 1, 1, jnp.float64, marks=pytest.mark.slow),
    ],
)
def test_the_gradient_is_autodiffs_at_the_shapes_where_the_compiler_has_failed(kind, name, b, h, dtype):
    """The oracle is a loop in Python."""
    cell, *given = made(kind, name, t=4, b=b, h=h, dtype=dtype)

    def gradients(by):
        return program(jax.grad(lambda *given: loss(by, cell, *given), argnums=(0, 1, 2)))(*given)

    with optimised():
        ours = gradients(unroll)
    close(ours, gradients(unroll_loop), 1e-9 if dtype == jnp.float64 else 3e-5)


@pytest.mark.parametrize(
    "kind, name",
    [
        ("zoneout", "lstm"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("recurrent", "gru"), ("candidate", "lstm"))),
    ],
)
def test_it_is_differentiable_twice_and_under_vmap(kind, name):
    """Hessian-vector products, each run of a batch of runs with masks of its own."""
    cell, params, carry, x, masks = made(kind, name)

    def product(by, params, carry, x, masks):
        def one(masks):
            def slope(p):
                grads = jax.grad(lambda p: loss(by, cell, p, carry, x, masks))(p)
                return sum(jnp.sum(jnp.cos(g) * g) for g in jax.tree.leaves(grads))

            return jax.grad(slope)(params)

        return jax.vmap(one)(masks)

    runs = program(lambda *given: [product(by, *given) for by in (unroll, unroll_autodiff)])
    ours, theirs = runs(params, carry, x, np.stack([masks, masks[::-1]]))
    close(ours, theirs, 1e-8)


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
        if name == "gru":
            n = np.tanh(xn + r * (un + np.asarray(params.bn)))
        else:
            n = np.tanh(xn + (r * entered) @ u[:, 2 * H :])
        new = ((1 - gate) * (g_mask * n) + gate * h,)
    if kind == "zoneout":
        return tuple(np.where(keep == 1, n, o) for keep, n, o in zip(m, new, carry, strict=True))
    return tuple(0.7 * n + 0.3 * o for n, o in zip(new, carry, strict=True)) if kind == "expected" else new


@every_pair
def test_each_kind_is_the_equations_of_its_paper(kind, name):
    _, params, carry, x, masks = made(kind, name)
    (hs, last), _, _ = both(kind, name)(params, carry, x, masks, LENGTHS)
    state = tuple(carry)
    for t in range(T):
        mask = (t >= T - LENGTHS)[:, None]
        m = [masks[t, :, k * H : (k + 1) * H] for k in range(masks.shape[2] // H)]
        new = papers(kind, name, params, state, x[t], m)
        state = tuple(np.where(mask, n, o) for n, o in zip(new, state, strict=True))
        np.testing.assert_allclose(hs[t], state[-1], rtol=1e-10)
    close(tuple(last), state, 1e-10)


@cache
def bare(name):
    return program(lambda *given: unroll(MAKE[name](D, H, dtype=jnp.float64), *given))


@pytest.mark.parametrize("kind, name", [pair for pair in PAIRS if pair[0] != "expected"])
def test_masks_of_1_are_no_masks(kind, name):
    _, *given, masks = made(kind, name)
    found, _, _ = both(kind, name)(*given, np.ones_like(masks), np.full(B, T))
    close(found, bare(name)(*given), 1e-14)


# --- zoneout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKE)
def test_the_mean_of_a_step_over_zoneouts_masks_is_the_expected_step(name):
    """Over every mask of one unit, each as likely as it is: a step is linear in m."""
    plain = MAKE[name](D, H, dtype=jnp.float64)
    _, *given, _ = made("expected", name)
    parts = 2 if name == "lstm" else 1
    every_mask = [[k >> i & 1 for i in range(parts)] for k in range(2**parts)]

    @program
    def steps(params, carry, x):
        masks = [jnp.concatenate([jnp.full((B, H), float(m)) for m in mask], axis=-1) for mask in every_mask]
        masked = [jnp.concatenate([x[0], mask], axis=-1) for mask in masks]
        drawn = [cells.step(dropped.zoneout(plain), params, carry, x) for x in masked]
        return drawn, cells.step(dropped.expected(plain, 0.3), params, carry, x[0])

    drawn, expected = steps(*given)
    likely = [np.prod([0.7 if m else 0.3 for m in mask]) for mask in every_mask]
    close(jax.tree.map(lambda *leaves: np.tensordot(likely, leaves, 1), *drawn), expected, 1e-12)


@pytest.mark.parametrize("name", MAKE)
def test_the_step_jacobian_of_zoneouts_evaluation_is_that_of_the_expected_step(name):
    cell, *given, _ = made("expected", name)
    plain = MAKE[name](D, H, dtype=jnp.float64)

    @program
    def jacobians(params, carry, x):
        def step(state):
            like = jax.tree.unflatten(jax.tree.structure(carry), jnp.split(state, len(carry)))
            return jnp.concatenate(cells.step(cell, params, like, x[0, 0]))

        there = jax.jacfwd(step)(jnp.concatenate([leaf[0] for leaf in carry]))
        return *(step_jacobians(c, params, carry, x)[0, 0] for c in (cell, plain)), there

    found, bare, there = jacobians(*given)
    np.testing.assert_allclose(found, there, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found, 0.7 * bare + 0.3 * np.eye(len(bare)), rtol=1e-9, atol=1e-12)
