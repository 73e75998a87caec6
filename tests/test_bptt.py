"""Laws of `seqdyn.nets.bptt`: the hand-written backward pass against autodiff, loops, and closed forms."""

import os
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _processes import Process
from _programs import optimised, program

from seqdyn.nets import bptt
from seqdyn.nets.bptt import (
    Backprop,
    Tap,
    at_end,
    log2_norm,
    taps,
    unroll,
    valid_steps,
    window,
)
from seqdyn.nets.cells import gru, gru_reset_before, lstm, rnn, step
from seqdyn.nets.inits import Identity, Orthogonal
from seqdyn.nets.stack import unroll_autodiff, unroll_by_step, unroll_loop, unroll_stack
from seqdyn.types import ConfigError

D, H, T, B = 3, 5, 7, 4
F64 = dict(dtype=jnp.float64)
CELLS = {
    "rnn": lambda d=D, h=H, **kw: rnn(d, h, **kw),
    "lstm": lambda d=D, h=H, **kw: lstm(d, h, **kw),
    "gru": lambda d=D, h=H, **kw: gru(d, h, **kw),
    "gru_reset_before": lambda d=D, h=H, **kw: gru_reset_before(d, h, **kw),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def problem(cell, seed=0, t=T, b=(B,), d=D, dtype=jnp.float64):
    """Random parameters, initial carry, inputs, and a loss that reads every output and the last carry."""
    rng = np.random.default_rng(seed)

    def draw(tree, scale=1.0):
        return jax.tree.map(lambda leaf: np.asarray(scale * rng.standard_normal(leaf.shape), dtype), tree)

    params = draw(jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0))), 0.6)
    carry = draw(jax.eval_shape(lambda: cell.initial_carry(b)))
    xs = draw(jax.ShapeDtypeStruct((t, *b, d), dtype))
    weights = draw(jax.ShapeDtypeStruct((t, *carry.h.shape), dtype))

    def loss(hs, last):
        return jnp.sum(weights * jnp.sin(hs)) + sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

    return params, carry, xs, loss


def batched(cell, n, **sizes):
    """n problems with a leading axis of runs, and the first one's loss."""
    many = [problem(cell, seed, **sizes) for seed in range(n)]
    return *jax.tree.map(lambda *leaves: np.stack(leaves), *[m[:3] for m in many]), many[0][3]


def gradients(unrolled, cell, loss, cut=Backprop(), watch=Tap()):
    """(params, carry, xs) -> (the loss, its gradients and, fourth of these, what `watch` reads).

    Never called uncompiled but with jit off: a plain scan outside `compiled` meets the compiler's fault, too."""

    def of(params, carry, xs, watch):
        return loss(*unrolled(cell, params, carry, xs, cut, watch))

    slopes = jax.value_and_grad(of, argnums=(0, 1, 2, 3))
    return lambda *given: slopes(*jax.tree.map(jnp.asarray, given), watch)


def at(place, tree):
    return jax.tree.map(lambda leaf: leaf[place], tree)


def assert_close(ours, theirs, rtol=1e-9, atol=1e-11):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


# --- programs that several laws run -------------------------------------------------------------------------


@cache
def free(name):
    """(params, carry, xs) -> `gradients` of the whole sequence."""
    cell = CELLS[name](**F64)
    return program(gradients(unroll, cell, problem(cell)[3]))


@cache
def ending(name, by):
    """(params, carry, xs, lengths) -> `gradients` of sequences of these lengths."""
    cell = CELLS[name](**F64)
    loss = problem(cell)[3]
    return program(lambda *given: gradients(by, cell, loss, Backprop(mask=valid_steps(given[3], T)))(*given[:3]))


@cache
def cut_short(name):
    """(params, carry, xs, window, bound) -> `gradients` and every reading."""
    cell = CELLS[name](**F64)
    loss = problem(cell)[3]

    def of(params, carry, xs, length, bound):
        watch = taps(cell, T, (B,), clipped=True, adjoint=True)
        return gradients(unroll, cell, loss, Backprop(keep=window(T, length), clip=bound), watch)(params, carry, xs)

    return program(of)


@cache
def stepped(name):
    """(params, carry, x, adjoint after) -> (the carry after one step, the gradients that autodiff has of it)."""
    cell = CELLS[name](**F64)

    def of(params, carry, x, adjoint):
        after, transpose = jax.vjp(lambda *given: step(cell, *given), params, carry, x)
        return after, transpose(adjoint)

    return program(of)


def path(name, params, carry, xs):
    """The carries before and after every step."""
    carries = [carry]
    for x in xs:
        carries.append(stepped(name)(params, carries[-1], x, carry)[0])
    return carries


# Every path of the loop drawn unrolled, of the shapes that break concatenations: see the laws of the compiler.
DRAWN = {"rnn": (2, 3), "lstm": (4,), "gru": (4,), "gru_reset_before": (2, 3)}


@cache
def drawn_unrolled(name):
    """Two problems of three steps, and the gradients of a loop in Python."""
    cell = CELLS[name](2, **F64)
    *given, loss = batched(cell, 2, t=3, d=2, b=DRAWN[name])
    return cell, given, loss, program(jax.vmap(gradients(lambda *a: unroll_loop(*a[:4]), cell, loss)))(*given)


# --- against autodiff ---------------------------------------------------------------------------------------


@every_cell
def test_backward_equals_autodiff_of_the_plain_scan(name):
    *given, _ = problem(CELLS[name](**F64))
    assert_close(free(name)(*given), ending(name, unroll_autodiff)(*given, np.full(B, T)))


@every_cell
def test_backward_equals_autodiff_of_a_network_drawn_unrolled_under_vmap(name):
    """With one axis of examples or two."""
    cell, given, loss, theirs = drawn_unrolled(name)
    assert_close(program(jax.vmap(gradients(unroll, cell, loss)))(*given), theirs)


@pytest.mark.parametrize("t", [2, 6])
def test_loops_of_several_steps_a_turn_as_on_an_accelerator_give_the_same(t, monkeypatch):
    cell = CELLS["lstm"](**F64)
    *given, loss = problem(cell, t=t)

    def found():
        def of(*given):
            mask = valid_steps(jnp.array([t, 1, t, 2]), t)
            return gradients(unroll, cell, loss, Backprop(mask=mask), taps(cell, t, (B,), ranged=True))(*given)

        return program(of)(*given)

    one = found()
    turns = []
    monkeypatch.setattr(bptt, "unrolled", lambda: turns.append(4) or 4)
    assert_close(found(), one)
    assert turns == [4, 4], "forward and backward"


@every_cell
def test_a_padded_batch_equals_each_sequence_alone(name):
    """Padded before or after; alone without an axis of examples but for two that are as long."""
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)
    alone = {7: 0, 1: 1, 4: slice(2, 4)}

    def loss(_, last):
        return jnp.sum(jnp.sin(last.h))

    def of(before, params, carry, xs, parts):
        lengths = jnp.array([7, 1, 4, 4])
        mask = jnp.where(before, *(valid_steps(lengths, T, pad) for pad in ("before", "after")))
        _, whole = gradients(unroll, cell, loss, Backprop(mask=mask), taps(cell, T, (B,)))(params, carry, xs)
        ended = jax.tree.map(lambda reading: at_end(reading, mask), whole[3])
        one = [
            gradients(unroll, cell, loss, Backprop(), taps(cell, len(x), x.shape[1:-1]))(params, c, x) for c, x in parts
        ]
        return (*whole[:3], ended), [found for _, found in one]

    both = program(of)
    for before in (True, False):
        spans = {length: np.s_[T - length :] if before else np.s_[:length] for length in alone}
        parts = [(at(rows, carry), xs[spans[length], rows]) for length, rows in alone.items()]
        whole, one = both(before, params, carry, xs, parts)
        for (length, rows), found in zip(alone.items(), one, strict=True):
            assert_close(at(rows, whole[1]), found[1])
            assert_close(whole[2][spans[length], rows], found[2])
            assert not np.any(np.delete(whole[2][:, rows], spans[length], axis=0))
            assert_close(at(np.s_[T - length :, rows], whole[3]), found[3])
        assert_close(whole[0], jax.tree.map(lambda *parts: sum(parts), *[found[0] for found in one]))


@every_cell
def test_a_padded_batch_equals_autodiff_when_every_output_is_read(name):
    *given, _ = problem(CELLS[name](**F64))
    ours, theirs = (ending(name, by)(*given, np.array([7, 2, 4, 6])) for by in (unroll, unroll_autodiff))
    assert_close(ours, theirs)


@every_cell
def test_reverse_reads_each_sequence_from_its_own_end(name):
    """The equations again in NumPy."""
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)
    lengths = np.array([7, 1, 4, 6])
    hs, last = program(
        lambda *given: unroll(cell, *given, Backprop(mask=valid_steps(jnp.asarray(lengths), T)), reverse=True)
    )(params, carry, xs)
    for b, length in enumerate(lengths):
        state = tuple(leaf[b] for leaf in carry)
        for t in reversed(range(length)):
            state = numpy_step(name, params, state, xs[t, b])
            assert_close(hs[t, b], state[-1])
        assert_close(tuple(leaf[b] for leaf in last), state)


@every_cell
def test_truncation_and_clipping_equal_an_explicit_loop(name):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    bound, length = 1.5, 3
    _, got = cut_short(name)(params, carry, xs, length, bound)

    carries = path(name, params, carry, xs)
    hs = np.stack([c.h for c in carries[1:]])
    local, arrives = program(jax.grad(loss, argnums=(0, 1)))(hs, carries[-1])
    d_params, d_xs = jax.tree.map(np.zeros_like, params), []
    adjoints, from_next, scales = [], [jax.tree.map(np.zeros_like, carry)], []
    for t in reversed(range(T)):
        whole = arrives._replace(h=arrives.h + local[t])
        adjoints.append(whole)
        joint = np.sqrt(sum(np.sum(leaf**2, axis=-1) for leaf in whole))
        scales.append(np.minimum(1, bound / joint))
        whole = jax.tree.map(lambda leaf: leaf * scales[-1][:, None], whole)
        _, (dp, arrives, dx) = stepped(name)(params, carries[t], xs[t], whole)
        d_params = jax.tree.map(np.add, d_params, dp)
        d_xs.append(dx)
        if t % length == 0 and t > 0:
            arrives = jax.tree.map(np.zeros_like, arrives)
        from_next.append(arrives)
    assert np.min(scales) < 0.9
    assert_close(got[:3], (d_params, arrives, np.stack(d_xs[::-1])))

    def sizes(trees):
        return jax.tree.map(lambda *leaves: np.linalg.norm(np.stack(leaves[::-1]), axis=-1), *trees)

    reading = got[3]
    assert_close(reading.adjoint, jax.tree.map(lambda *leaves: np.stack(leaves[::-1]), *adjoints))
    assert_close((reading.adjoint_norm, reading.from_next_norm), (sizes(adjoints), sizes(from_next[:-1])))
    assert_close(reading.scale, np.stack(scales[::-1]))


@every_cell
def test_a_window_that_covers_the_sequence_truncates_nothing_and_infinity_clips_nothing(name):
    *given, _ = problem(CELLS[name](**F64))
    _, full = free(name)(*given)
    _, same = cut_short(name)(*given, T, np.inf)
    assert_close(same[:3], full[:3], rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(same[3].scale, 1)
    _, shorter = cut_short(name)(*given, T - 1, np.inf)
    assert not np.allclose(shorter[0].u, full[0].u)


@every_cell
def test_clipping_bounds_what_travels(name):
    *given, _ = problem(CELLS[name](**F64))
    (_, wide), (_, tight) = (cut_short(name)(*given, T, bound) for bound in (np.inf, 1e-3))
    assert np.max(np.abs(tight[2])) < 1e-3 * np.max(np.abs(wide[2]))


@pytest.mark.parametrize(
    "name, cut",
    [("rnn", "plain"), ("lstm", "plain"), ("lstm", "mask"), ("gru_reset_before", "mask"), ("gru", "clip")],
)
def test_hessian_vector_product_equals_finite_differences(name, cut):
    """Of the gradients that the laws above hold against others."""
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    lengths, v = np.array([7, 2, 4, 6]), problem(cell, seed=1)[0]

    def slope(params):
        mask = valid_steps(jnp.asarray(lengths), T)
        cuts = {"plain": Backprop(), "mask": Backprop(mask=mask), "clip": Backprop(clip=jnp.asarray(jnp.inf))}
        watch = taps(cell, T, (B,), ranged=True)
        g, *_ = gradients(unroll, cell, loss, cuts[cut], watch)(params, carry, xs)[1]
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), g, v)))

    hvp = program(jax.grad(slope))(params)
    grad = {"plain": free, "mask": lambda name: ending(name, unroll), "clip": cut_short}[cut](name)
    rest = {"plain": (), "mask": (lengths,), "clip": (T, np.inf)}[cut]
    shifted = lambda e: jax.tree.map(lambda p, d: p + e * d, params, v)  # noqa: E731
    e = 1e-6
    ahead, behind = (grad(shifted(s * e), carry, xs, *rest)[1][0] for s in (1, -1))
    assert_close(hvp, jax.tree.map(lambda a, b: (a - b) / (2 * e), ahead, behind), rtol=1e-5, atol=1e-6)


# The compiler is not trusted either: here the equations again in NumPy, and finite differences of them, over shapes
# that XLA's fusions split differently. Every cell meets its four rows of five doubles.
SHAPES = [
    *((name, jnp.float64, (1, 4, 5)) for name in CELLS),
    ("lstm", jnp.float32, (3, 5, 33)),
    *(
        pytest.param(*one, marks=pytest.mark.slow)
        for one in (
            *((name, jnp.float64, (2, 8, 9)) for name in ("lstm", "gru")),
            *((name, jnp.float32, (2, 4, 5)) for name in ("rnn", "gru_reset_before")),
            ("gru", jnp.float32, (3, 5, 33)),
        )
    ),
]


def numpy_step(name, p, carry, x):
    """One step of a cell as its docstring has it, on NumPy arrays."""
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    zx, h = x @ p.w + p.b, carry[-1]
    gates = {"rnn": 1, "lstm": 4}.get(name, 3)
    x_, h_ = np.split(zx, gates, -1), np.split(h @ p.u, gates, -1)
    if name == "rnn":
        return (np.tanh(zx + h @ p.u),)
    if name == "lstm":
        i, f, o = (sigmoid(a + b) for a, b in zip(x_[:3], h_[:3], strict=True))
        c = f * carry[0] + i * np.tanh(x_[3] + h_[3])
        return c, o * np.tanh(c)
    r, z = sigmoid(x_[0] + h_[0]), sigmoid(x_[1] + h_[1])
    un = r * (h_[2] + p.bn) if name == "gru" else (r * h) @ np.split(p.u, 3, -1)[2]
    return ((1 - z) * np.tanh(x_[2] + un) + z * h,)


def numpy_loss(name, arguments, weights):
    params, carry, xs = arguments
    carry, total = tuple(carry), 0.0
    for x, weight in zip(xs, weights, strict=True):
        carry = numpy_step(name, params, carry, x)
        total += np.sum(weight * np.sin(carry[-1]))
    return total + sum(np.sum(np.cos(leaf)) for leaf in carry)


@pytest.mark.parametrize("name, dtype, shape", SHAPES)
@optimised()
def test_compiled_equals_finite_differences_in_numpy_over_shapes_alone_and_under_vmap_and_map(name, dtype, shape):
    rng = np.random.default_rng(1)
    d, b, h = shape
    cell = CELLS[name](d, h, dtype=dtype)
    *arguments, _ = batched(cell, 2, t=3, b=(b,), d=d, dtype=dtype)
    weights = rng.standard_normal((3, b, h))

    def loss(hs, last):
        ends = sum(jnp.sum(jnp.cos(leaf)) for leaf in last)
        return jnp.sum(jnp.asarray(weights, hs.dtype) * jnp.sin(hs)) + ends

    of = gradients(unroll, cell, loss)
    vmapped, mapped, alone = program(lambda s: (jax.vmap(of)(*s), jax.lax.map(lambda a: of(*a), s), of(*at(0, s))))(
        arguments
    )
    for run, (value, grads) in [(0, alone), *((r, at(r, g)) for g in (vmapped, mapped) for r in (0, 1))]:
        here = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), at(run, arguments))
        np.testing.assert_allclose(value, numpy_loss(name, here, weights), rtol=1e-4 if dtype == jnp.float32 else 1e-12)
        for _ in range(4):
            v = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), here)
            ahead, behind = (jax.tree.map(lambda a, d, e=e: a + e * d, here, v) for e in (1e-6, -1e-6))
            slope = (numpy_loss(name, ahead, weights) - numpy_loss(name, behind, weights)) / 2e-6
            pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(v), strict=True)
            ours = sum(np.sum(np.asarray(g, np.float64) * d) for g, d in pairs)
            np.testing.assert_allclose(ours, slope, rtol=1e-6, atol=1e-3 if dtype == jnp.float32 else 1e-6)


def own_jits():
    """Four rows of five doubles: a GRU alone, an LSTM under vmap were 1 off, by jit and un-jitted grad alike."""
    jax.config.update("jax_enable_x64", True)
    for name in ("gru", "lstm"):
        with optimised():
            cell, given, loss, right = drawn_unrolled(name)
            ours = gradients(unroll, cell, loss)
            assert_close(jax.jit(jax.vmap(ours))(*given), right)
            assert_close(ours(*at(0, given)), at(0, right))


@pytest.mark.slow
def test_a_user_s_own_jit_is_right_where_xla_s_concatenations_are_not():
    """In a process that has XLA's fusion emitters, which are off in that of the tests."""
    flags = os.environ["XLA_FLAGS"].replace("--xla_cpu_use_fusion_emitters=false", "")
    process = Process(["-c", "import test_bptt; test_bptt.own_jits()"], XLA_FLAGS=flags)
    said = process.finish()
    assert process.returncode == 0, said


def test_a_sentence_says_which_inputs_and_types_do_not_fit():
    cell = CELLS["rnn"](**F64)
    _, carry, xs = jax.tree.map(jnp.asarray, problem(cell)[:3])
    for wrong, words in [(xs[:, :3], r"shape \(7, 3, 3\)"), (xs[0], "shape"), (xs.astype(int), "dtype int64")]:
        with pytest.raises(ConfigError, match=f"xs has the {words}"):
            bptt.check_given(carry, wrong, Tap())  # `unroll` itself is under the tests' own type checks
    with pytest.raises(ConfigError, match="dtype is float16; .* bfloat16"):
        taps(CELLS["rnn"](dtype=jnp.float16), T, ranged=True)
    taps(CELLS["rnn"](dtype=jnp.bfloat16), T, ranged=True)


# --- readings -----------------------------------------------------------------------------------------------


@every_cell
def test_adjoint_norm_is_that_of_the_product_of_step_jacobians(name):
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)
    weight = np.linspace(-1, 1, H)

    def loss(_, last):
        return jnp.sum(last.h @ weight)

    watch = taps(cell, T, (B,), adjoint=True)
    _, (*_, reading) = program(gradients(unroll, cell, loss, Backprop(), watch))(params, carry, xs)
    carries = path(name, params, carry, xs)
    adjoint = jax.tree.map(np.zeros_like, carry)._replace(h=np.tile(weight, (B, 1)))
    for t in reversed(range(T)):
        size = jax.tree.map(lambda part: np.linalg.norm(part, axis=-1), adjoint)
        read = at(t, reading)
        assert_close((read.adjoint, read.adjoint_norm), (adjoint, size))
        assert_close(read.from_next_norm, size if t < T - 1 else jax.tree.map(np.zeros_like, size))
        adjoint = stepped(name)(params, carries[t], xs[t], adjoint)[1][1]


def test_readings_scale_with_the_loss_and_do_not_change_the_gradient():
    cell = CELLS["lstm"](**F64)
    params, carry, xs, loss = problem(cell)

    def read(watch):
        def of(factor, *given):
            return gradients(unroll, cell, lambda *ran: factor * loss(*ran), Backprop(), watch)(*given)[1]

        return program(of)

    (*silent, _), both = read(Tap())(1.0, params, carry, xs), read(taps(cell, T, (B,)))
    *one, reading = both(1.0, params, carry, xs)
    *_, tenfold = both(10.0, params, carry, xs)
    assert_close(one, silent, rtol=0, atol=0)
    assert_close(tenfold, jax.tree.map(lambda r: 10 * r, reading))


def test_orthogonal_linear_rnn_preserves_the_adjoint_norm_over_200_steps():
    cell = rnn(1, 16, "identity", u=Orthogonal(), dtype=jnp.float64)
    params, carry, xs, _ = problem(cell, t=200, b=(), d=1)

    @program
    def read(params, carry, xs):
        drawn = params._replace(u=cell.init(jax.random.key(0)).u)
        return jax.grad(lambda w: jnp.sum(unroll(cell, drawn, carry, xs, Backprop(), w)[1].h))(taps(cell, 200))

    assert_close(read(params, carry, xs).adjoint_norm.h, np.full(200, 4.0), rtol=1e-12)


def test_identity_rnn_gives_exactly_the_gain_to_the_power_of_the_lag_in_float32():
    steps = 100
    cell = rnn(1, 4, "identity", u=Identity(), w=Identity())

    @program
    def read(gain):
        params = cell.init(jax.random.key(0))
        params, carry, xs = (
            params._replace(u=gain * params.u),
            cell.initial_carry(()),
            jnp.zeros((steps, 1), jnp.float32),
        )
        return jax.grad(lambda w: jnp.sum(unroll(cell, params, carry, xs, Backprop(), w)[1].h))(taps(cell, steps))

    for gain in (0.5, 2.0):
        lag = np.arange(steps)[::-1]
        np.testing.assert_array_equal(np.asarray(read(np.float32(gain)).adjoint_norm.h, np.float64), 2 * gain**lag)


# --- never underflow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_log_norms_fall_or_rise_by_the_log_of_the_gain_over_2000_steps(dtype):
    steps = 2000
    cell = rnn(1, 4, "identity", u=Identity(), w=Identity(), dtype=dtype)

    @program
    def read(gain):
        params = cell.init(jax.random.key(0))
        params = params._replace(u=gain * params.u)

        def loss(watch):
            return jnp.sum(
                unroll(cell, params, cell.initial_carry((2,)), jnp.zeros((steps, 2, 1), dtype), Backprop(), watch)[1].h
            )

        reading = jax.grad(loss)(taps(cell, steps, (2,), ranged=True))
        return reading, log2_norm(reading.adjoint_norm.h, reading.exponent)

    for gain in (0.5, 2.0):
        reading, log2 = read(np.asarray(gain, dtype))
        mantissa, exponent = np.asarray(reading.adjoint_norm.h, np.float64), np.asarray(reading.exponent, np.float64)
        assert reading.exponent.dtype == jnp.float32 and reading.adjoint_norm.h.dtype == dtype
        natural = np.log(mantissa) + exponent * np.log(2)
        np.testing.assert_allclose(-np.diff(natural, axis=0), np.log(gain), atol=1e-5)
        np.testing.assert_allclose(natural[0] - natural[-1], (steps - 1) * np.log(gain), rtol=1e-7)
        np.testing.assert_allclose(log2, natural / np.log(2), atol=2e-4)


def extremes(cell, case):
    """Small weights, so that within 40 steps the adjoint falls through many binary orders that a double still has."""
    params, carry, xs, _ = problem(cell, t=40)
    small = jax.tree.map(lambda leaf: leaf * 1e-3, params)
    weights = np.where(np.arange(40) % 13 == 0, 1e-13, 1e-60)

    def decays(hs, last):
        return 1e-20 * sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

    def meets(hs, last):
        return decays(hs, last) + weights @ jnp.sum(jnp.sin(hs), axis=(1, 2))

    return small, carry, xs, {"decays": decays, "meets": meets}[case]


@pytest.mark.parametrize(
    "name, case",
    [("rnn", "meets"), ("lstm", "decays"), ("lstm", "meets"), ("gru", "decays"), ("gru_reset_before", "meets")],
)
@optimised()
def test_an_exponent_changes_no_bit_of_a_gradient_and_says_what_plain_norms_say(name, case):
    """Alone the adjoint decays; met by local errors, tiny ones at all steps but a few, it begins anew at those."""
    cell = CELLS[name](**F64)
    params, carry, xs, loss = extremes(cell, case)

    def found(ranged):
        def of(*given):
            cut = Backprop(mask=valid_steps(jnp.array([40, 22, 40, 31]), 40, "before"))
            watch = taps(cell, 40, (B,), ranged=ranged, adjoint=True)
            return gradients(unroll, cell, loss, cut, watch)(*given)[1]

        return program(of)(params, carry, xs)

    (*plain, read), (*ours, ranged) = found(False), found(True)
    assert_close(ours, plain, rtol=0, atol=0)
    power = np.exp2(np.asarray(ranged.exponent, np.float64))
    assert power.min() < 1e-10 and power.max() == 1
    assert_close(jax.tree.map(lambda r: r * power, ranged.adjoint_norm), read.adjoint_norm, rtol=1e-12, atol=0)
    assert_close(jax.tree.map(lambda r: r * power[..., None], ranged.adjoint), read.adjoint, rtol=0, atol=0)
    assert_close(ranged.from_next_norm, read.from_next_norm, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["rnn", "lstm"])
@optimised()
def test_an_exponent_survives_a_cut_and_a_step_without_slope(name):
    """Where nothing came from the next step but a local error enters, what goes on is in that error's units."""
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell, t=20)
    xs[12] = 1e6  # saturated: every slope of an rnn is 0 there

    def reading(ranged):
        def of(params, size, length):
            def sized(hs, last):
                return size * loss(hs, last)

            watch = taps(cell, 20, (B,), ranged=ranged)
            found = gradients(unroll, cell, sized, Backprop(keep=window(20, length)), watch)(params, carry, xs)
            return found[1][0], found[1][3]

        return program(of)

    one, other = reading(False), reading(True)
    for given in [(size, length) for size in (1e-13, 1e13) for length in (20, 5)]:
        (plain, read), (ours, ranged) = one(params, *given), other(params, *given)
        assert np.ptp(ranged.exponent) > 0
        assert_close(ours, plain, rtol=1e-14, atol=0)
        power = np.exp2(np.asarray(ranged.exponent, np.float64))
        assert_close(ranged.adjoint_norm.h * power, read.adjoint_norm.h, rtol=1e-12, atol=0)
        assert_close(ranged.from_next_norm, read.from_next_norm, rtol=1e-12, atol=0)


def test_an_error_that_arrives_far_back_is_met_at_its_own_size():
    """In float32 what came from the next step is 2^−600 when the second loss, read at step 5 of 605, comes in."""
    cell, steps, early = rnn(1, 4, "identity", u=Identity(0.5)), 606, 5

    @program
    def read():
        params, carry, xs = cell.init(jax.random.key(0)), cell.initial_carry(()), jnp.zeros((steps, 1), jnp.float32)

        def loss(watch):
            hs, last = unroll(cell, params, carry, xs, Backprop(), watch)
            return jnp.sum(last.h) + jnp.sum(hs[early])

        reading = jax.grad(loss)(taps(cell, steps, ranged=True))
        return reading, log2_norm(reading.adjoint_norm.h, reading.exponent)

    reading, log2 = read()
    lag = np.arange(steps)[::-1]  # a norm of 2 at each loss, halved at every step back
    expected = 1.0 - np.where(lag < steps - 1 - early, lag, lag - (steps - 1 - early))
    np.testing.assert_allclose(log2, expected, rtol=1e-6)
    np.testing.assert_array_equal(reading.from_next_norm.h[early], 0)


def test_adjoint_clipping_bounds_a_mantissa_as_it_bounds_the_adjoint():
    cell = CELLS["lstm"](**F64)
    params, carry, xs, _ = problem(cell, t=40)

    def loss(_, last):
        return sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

    def reading(ranged):
        def of(params, bound):
            watch = taps(cell, 40, (B,), clipped=True, ranged=ranged)
            _, found = gradients(unroll, cell, loss, Backprop(clip=bound), watch)(params, carry, xs)
            return found[0], found[3]

        return program(of)

    one, other = reading(False), reading(True)
    for bound, least in ((1e-14, -40), (0.1, 0)):
        (plain, read), (ours, ranged) = one(params, bound), other(params, bound)
        assert np.min(read.scale) < 1
        assert_close(ours, plain, rtol=1e-13, atol=0)
        assert_close(ranged.scale, read.scale, rtol=1e-13)
        assert np.min(ranged.exponent) <= least


def test_the_gradient_of_what_overflowed_is_not_finite_and_its_norms_are():
    cell, steps = rnn(1, 4, "identity", u=Identity(2.0)), 300

    @program
    def read():
        params, carry, xs = (
            cell.init(jax.random.key(0)),
            cell.initial_carry(()),
            jnp.ones((steps, 1), jnp.float32) * 1e-38,
        )

        def loss(params, watch):
            return jnp.sum(unroll(cell, params, carry, xs, Backprop(), watch)[1].h)

        grads, reading = jax.grad(loss, argnums=(0, 1))(params, taps(cell, steps, ranged=True))
        return grads, log2_norm(reading.adjoint_norm.h, reading.exponent)

    grads, log2 = read()
    assert not np.isfinite(grads.w).all()
    expected = 1.0 + np.arange(steps)[::-1]
    np.testing.assert_allclose(log2, expected, rtol=1e-6)


# --- composition --------------------------------------------------------------------------------------------


@every_cell
def test_stack_of_one_is_the_cell(name):
    cell = CELLS[name](**F64)

    def both(params, carry, xs):
        hs, (last,), _ = unroll_stack((cell,), (params,), (carry,), xs)
        return (hs, last), unroll(cell, params, carry, xs)

    assert_close(*program(both)(*problem(cell)[:3]), rtol=0, atol=0)


def test_stack_equals_all_layers_at_one_step_then_the_next():
    cells = (CELLS["rnn"](D, 4, **F64), CELLS["lstm"](4, 6, **F64), CELLS["gru"](6, 2, **F64))
    params, carries, _, _ = zip(*map(problem, cells), strict=True)
    xs = np.random.default_rng(0).standard_normal((T, B, D))
    at_once, by_step = program(lambda *given: (unroll_stack(cells, *given)[:2], unroll_by_step(cells, *given)))(
        params, carries, xs
    )
    assert_close(at_once, by_step, rtol=1e-12)


def test_both_directions_of_a_level_are_two_layers_side_by_side():
    """A level's second layer is the first, turned round: on sequences of their own lengths, one level above another."""
    sizes = {"rnn": (D, 4), "lstm": (D, 4), "gru": (8, 3), "gru_reset_before": (8, 3)}
    cells = tuple(CELLS[name](*size, **F64) for name, size in sizes.items())
    params, carries, _, _ = zip(*map(problem, cells), strict=True)
    xs = np.random.default_rng(0).standard_normal((T, B, D))

    def both(params, carries, xs):
        cut = Backprop(mask=valid_steps(jnp.array([7, 2, 4, 6]), T, "before"))
        level, ends = xs, []
        for i in (0, 2):
            there, end = unroll(cells[i], params[i], carries[i], level, cut)
            back, start = unroll(cells[i + 1], params[i + 1], carries[i + 1], level, cut, reverse=True)
            ends += [(level, end), (level[::-1], start)]
            level = jnp.concatenate([there, back], axis=-1)
        hs, last, layers = unroll_stack(cells, params, carries, xs, cut, bidirectional=True)
        ours = [(layer.xs, end) for layer, end in zip(layers, last, strict=True)]
        return (hs, ours), (level, ends), (layers[0].mask, layers[1].mask)

    ours, apart, (mask, back) = program(both)(params, carries, xs)
    assert_close(ours, apart, rtol=0, atol=0)
    np.testing.assert_array_equal(back, mask[::-1])
    np.testing.assert_array_equal(mask.sum(axis=0), [7, 2, 4, 6])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_carry_handed_on_continues_the_sequence(name):
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)

    @program
    def ran(params, carry, xs):
        first, middle = unroll(cell, params, carry, xs[:3])
        second, end = unroll(cell, params, middle, xs[3:])
        return (jnp.concatenate([first, second]), end), unroll(cell, params, carry, xs)

    assert_close(*ran(params, carry, xs), rtol=1e-12)


def test_forward_mode_says_it_is_not_there():
    cell = CELLS["rnn"](**F64)
    params, carry, xs = jax.tree.map(jnp.asarray, problem(cell)[:3])
    with pytest.raises(TypeError):
        jax.jvp(lambda x: unroll(cell, params, carry, x)[0], (xs,), (xs,))


def test_autodiff_oracle_refuses_what_it_cannot_do():
    cell = CELLS["rnn"](**F64)
    params, carry, xs = jax.tree.map(jnp.asarray, problem(cell)[:3])
    with pytest.raises(ValueError, match="cannot truncate"):
        unroll_autodiff(cell, params, carry, xs, Backprop(keep=window(T, 2)))
