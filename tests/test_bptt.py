"""Laws of `seqdyn.nets.bptt`: the hand-written backward pass against autodiff, loops, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.nets import bptt
from seqdyn.nets.activations import ACTIVATIONS
from seqdyn.nets.bptt import (
    Cut,
    Watch,
    at_end,
    live_steps,
    log2_norm,
    unroll,
    watching,
    window,
)
from seqdyn.nets.cells import gru, gru_reset_before, lstm, rnn, step
from seqdyn.nets.inits import gaussian, identity, orthogonal
from seqdyn.nets.stack import unroll_autodiff, unroll_by_step, unroll_loop, unroll_stack
from seqdyn.types import ConfigError

D, H, T, B = 3, 5, 7, 4
F64 = dict(dtype=jnp.float64)
OPTIMISED = True
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
        return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape), dtype), tree)

    params = draw(jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0))), 0.6)
    carry = draw(jax.eval_shape(lambda: cell.rest(b)))
    xs = draw(jax.ShapeDtypeStruct((t, *b, d), dtype))
    weights = draw(jax.ShapeDtypeStruct((t, *carry.h.shape), dtype))

    def loss(hs, last):
        return jnp.sum(weights * jnp.sin(hs)) + sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

    return params, carry, xs, loss


def batched(cell, n, **sizes):
    """n problems with a leading axis of runs, and the first one's loss."""
    many = [problem(cell, seed, **sizes) for seed in range(n)]
    return *jax.tree.map(lambda *leaves: jnp.stack(leaves), *[m[:3] for m in many]), many[0][3]


def gradients(unrolled, cell, loss, cut=Cut()):
    """Never called uncompiled but with jit off: a plain scan outside `compiled` meets the compiler's fault, too."""

    def of(params, carry, xs):
        return loss(*unrolled(cell, params, carry, xs, cut))

    return jax.value_and_grad(of, argnums=(0, 1, 2))


def assert_close(ours, theirs, rtol=1e-9, atol=1e-11):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


# --- against autodiff ---------------------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("b", [(), (2, 3)], ids=str)
def test_backward_equals_autodiff_of_the_plain_scan(name, b):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell, b=b)
    ours = compiled(gradients(unroll, cell, loss))(params, carry, xs)
    assert_close(ours, compiled(gradients(unroll_autodiff, cell, loss))(params, carry, xs))


@every_cell
def test_backward_equals_autodiff_under_vmap(name):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = batched(cell, 3)
    ours = compiled(jax.vmap(gradients(unroll, cell, loss)))(params, carry, xs)
    assert_close(ours, compiled(jax.vmap(gradients(unroll_autodiff, cell, loss)))(params, carry, xs))


@pytest.mark.parametrize("t", [2, 7])
def test_loops_of_several_steps_a_turn_as_on_an_accelerator_give_the_same(t, monkeypatch):
    cell = CELLS["lstm"](**F64)
    params, carry, xs, loss = problem(cell, t=t)
    live = live_steps(jnp.array([t, 1, t, 2]), t)

    def of(params, watch):
        return loss(*unroll(cell, params, carry, xs, Cut(live=live), watch))

    def found():
        return compiled(jax.grad(of, argnums=(0, 1)))(params, watching(cell, t, (B,), ranged=True))

    one = found()
    turns = []
    monkeypatch.setattr(bptt, "unrolled", lambda: turns.append(4) or 4)
    assert_close(found(), one)
    assert turns == [4, 4], "forward and backward"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_hands_out_its_own_derivative(activation):
    phi = ACTIVATIONS[activation]
    z = jnp.asarray(2 * np.random.default_rng(0).standard_normal(200))
    value, slope = jax.vmap(jax.value_and_grad(lambda z: phi(z)[0]))(z)
    assert_close(phi(z), (value, slope))


@pytest.mark.parametrize("name, pad", [*((name, "before") for name in CELLS), ("lstm", "after")])
def test_a_padded_batch_equals_each_sequence_alone(name, pad):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    lengths = jnp.array([7, 1, 4, 6])
    cut = Cut(live=live_steps(lengths, T, pad))
    watch = watching(cell, T, (B,))

    def padded(params, carry, xs, watch):
        _, last = unroll(cell, params, carry, xs, cut, watch)
        return jnp.sum(jnp.sin(last.h))

    d_params, d_carry, d_xs, reading = compiled(jax.grad(padded, argnums=(0, 1, 2, 3)))(params, carry, xs, watch)
    total = jax.tree.map(jnp.zeros_like, d_params)
    for b, length in enumerate([7, 1, 4, 6]):
        span = slice(0, length) if pad == "after" else slice(T - length, T)
        alone = lambda params, c, x, w: jnp.sum(jnp.sin(unroll(cell, params, c, x, Cut(), w)[1].h))  # noqa: E731
        c = jax.tree.map(lambda leaf: leaf[b], carry)  # noqa: B023
        g = jax.grad(alone, argnums=(0, 1, 2, 3))(params, c, xs[span, b], watching(cell, length))
        total = jax.tree.map(jnp.add, total, g[0])
        assert_close(jax.tree.map(lambda leaf: leaf[b], d_carry), g[1])  # noqa: B023
        assert_close(d_xs[span, b], g[2])
        assert not np.any(np.delete(d_xs[:, b], np.r_[span], axis=0))
        ended = jax.tree.map(lambda r: at_end(r, cut.live)[T - length :, b], reading)  # noqa: B023
        assert_close(ended, g[3])
    assert_close(d_params, total)


@every_cell
def test_a_padded_batch_equals_autodiff_when_every_output_is_read(name):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    cut = Cut(live=live_steps(jnp.array([7, 2, 4, 6]), T))
    ours = compiled(gradients(unroll, cell, loss, cut))(params, carry, xs)
    assert_close(ours, compiled(gradients(unroll_autodiff, cell, loss, cut))(params, carry, xs))


@every_cell
def test_reverse_reads_each_sequence_from_its_own_end(name):
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)
    lengths = [7, 1, 4, 6]
    hs, last = unroll(cell, params, carry, xs, Cut(live=live_steps(jnp.array(lengths), T)), reverse=True)
    for b, length in enumerate(lengths):
        c = jax.tree.map(lambda leaf: leaf[b], carry)  # noqa: B023
        alone, alone_last = unroll(cell, params, c, xs[:length, b][::-1])
        assert_close(hs[:length, b], alone[::-1])
        assert_close(jax.tree.map(lambda leaf: leaf[b], last), alone_last)  # noqa: B023


@every_cell
def test_truncation_and_clipping_equal_an_explicit_loop(name):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    bound, length = 1.5, 3
    cut = Cut(keep=window(T, length), clip=jnp.asarray(bound))
    watch = watching(cell, T, (B,), clipped=True)

    def ours(params, carry, xs, watch):
        return loss(*unroll(cell, params, carry, xs, cut, watch))

    got = compiled(jax.grad(ours, argnums=(0, 1, 2, 3)))(params, carry, xs, watch)

    carries = [carry]
    for x in xs:
        carries.append(step(cell, params, carries[-1], x))
    hs = jnp.stack([c.h for c in carries[1:]])
    local, travelled = jax.grad(loss, argnums=(0, 1))(hs, carries[-1])
    d_params, d_xs = jax.tree.map(jnp.zeros_like, params), []
    whole_norms, scales = [], []
    for t in reversed(range(T)):
        whole = travelled._replace(h=travelled.h + local[t])
        whole_norms.append([jnp.linalg.norm(leaf, axis=-1) for leaf in whole])
        joint = jnp.sqrt(sum(n**2 for n in whole_norms[-1]))
        scale = jnp.minimum(1, bound / joint)
        scales.append(scale)
        whole = jax.tree.map(lambda leaf: leaf * scale[:, None], whole)  # noqa: B023
        _, transpose = jax.vjp(lambda p, c, x: step(cell, p, c, x), params, carries[t], xs[t])
        dp, travelled, dx = transpose(whole)
        d_params = jax.tree.map(jnp.add, d_params, dp)
        d_xs.append(dx)
        if t % length == 0 and t > 0:
            travelled = jax.tree.map(jnp.zeros_like, travelled)
    assert float(jnp.min(jnp.stack(scales))) < 0.9
    assert_close(got[:3], (d_params, travelled, jnp.stack(d_xs[::-1])))
    assert_close(jnp.stack([*got[3].whole], axis=1), jnp.asarray(whole_norms[::-1]))
    assert_close(got[3].scale, jnp.stack(scales[::-1]))


@every_cell
def test_a_window_that_covers_the_sequence_truncates_nothing(name):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    full = compiled(gradients(unroll, cell, loss))(params, carry, xs)
    same = compiled(gradients(unroll, cell, loss, Cut(keep=window(T, T))))(params, carry, xs)
    assert_close(same, full, rtol=0, atol=0)
    shorter = compiled(gradients(unroll, cell, loss, Cut(keep=window(T, T - 1))))(params, carry, xs)
    assert not np.allclose(shorter[1][0].u, full[1][0].u)


@every_cell
def test_clipping_bounds_what_travels_and_infinity_clips_nothing(name):
    cell = CELLS[name](u=gaussian(3.0), **F64)
    params, carry, xs, loss = problem(cell)
    free = compiled(gradients(unroll, cell, loss))(params, carry, xs)
    assert_close(compiled(gradients(unroll, cell, loss, Cut(clip=jnp.asarray(jnp.inf))))(params, carry, xs), free)
    tight = compiled(gradients(unroll, cell, loss, Cut(clip=jnp.asarray(1e-3))))(params, carry, xs)
    assert np.max(np.abs(tight[1][2])) < 1e-3 * np.max(np.abs(free[1][2]))


@pytest.mark.parametrize(
    "name, cut", [*((name, "plain") for name in CELLS), ("lstm", "live"), ("gru_reset_before", "live"), ("gru", "clip")]
)
def test_hessian_vector_product_equals_finite_differences(name, cut):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    cuts = {
        "plain": Cut(),
        "live": Cut(live=live_steps(jnp.array([7, 2, 4, 6]), T)),
        "clip": Cut(clip=jnp.asarray(jnp.inf)),
    }
    watch = watching(cell, T, (B,), ranged=True)
    v = problem(cell, seed=1)[0]

    def slope(params):
        def of(params, watch):
            return loss(*unroll(cell, params, carry, xs, cuts[cut], watch))

        g, _ = jax.grad(of, argnums=(0, 1))(params, watch)
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), g, v)))

    hvp = compiled(jax.grad(slope))(params)
    shifted = lambda e: jax.tree.map(lambda p, d: p + e * d, params, v)  # noqa: E731
    grad = compiled(lambda p: gradients(unroll, cell, loss, cuts[cut])(p, carry, xs)[1][0])
    e = 1e-6
    numeric = jax.tree.map(lambda a, b: (a - b) / (2 * e), grad(shifted(e)), grad(shifted(-e)))
    assert_close(hvp, numeric, rtol=1e-5, atol=1e-6)


# The compiler is not trusted either: here the equations again in NumPy, and finite differences of them, over shapes
# that XLA's fusions split differently.
SHAPES = {jnp.float64: [(1, 4, 5), (2, 8, 9)], jnp.float32: [(2, 4, 5), (3, 5, 33)]}


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


@every_cell
@pytest.mark.parametrize("dtype", SHAPES, ids=["float64", "float32"])
def test_compiled_equals_finite_differences_in_numpy_over_shapes_alone_and_under_vmap_and_map(name, dtype):
    rng = np.random.default_rng(1)
    for d, b, h in SHAPES[dtype]:
        cell = CELLS[name](d, h, dtype=dtype)
        *arguments, _ = batched(cell, 2, t=3, b=(b,), d=d, dtype=dtype)
        weights = rng.standard_normal((3, b, h))

        def loss(hs, last, weights=weights):
            ends = sum(jnp.sum(jnp.cos(leaf)) for leaf in last)
            return jnp.sum(jnp.asarray(weights, hs.dtype) * jnp.sin(hs)) + ends

        of = gradients(unroll, cell, loss)
        one = lambda tree, r: jax.tree.map(lambda leaf: leaf[r], tree)  # noqa: E731
        vmapped, mapped, alone = compiled(
            lambda s, of=of, one=one: (jax.vmap(of)(*s), jax.lax.map(lambda a: of(*a), s), of(*one(s, 0)))
        )(arguments)
        for run, (value, grads) in [(0, alone), *((r, one(g, r)) for g in (vmapped, mapped) for r in (0, 1))]:
            at = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), one(arguments, run))
            np.testing.assert_allclose(
                value, numpy_loss(name, at, weights), rtol=1e-4 if dtype == jnp.float32 else 1e-12
            )
            for _ in range(4):
                v = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), at)
                ahead, behind = (jax.tree.map(lambda a, d, e=e: a + e * d, at, v) for e in (1e-6, -1e-6))
                slope = (numpy_loss(name, ahead, weights) - numpy_loss(name, behind, weights)) / 2e-6
                pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(v), strict=True)
                ours = sum(np.sum(np.asarray(g, np.float64) * d) for g, d in pairs)
                np.testing.assert_allclose(ours, slope, rtol=1e-6, atol=1e-3 if dtype == jnp.float32 else 1e-6)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_user_s_own_jit_is_right_where_xla_s_concatenations_are_not(name):
    """Four rows of five doubles: a GRU alone, an LSTM under vmap were 1 off, by jit and un-jitted grad alike."""
    cell = CELLS[name](2, 5, **F64)
    *arguments, loss = batched(cell, 2, t=3, d=2)
    ours, plain = gradients(unroll, cell, loss), gradients(lambda *given: unroll_loop(*given[:4]), cell, loss)
    mapped, alone = jax.jit(jax.vmap(ours))(*arguments), ours(*jax.tree.map(lambda leaf: leaf[0], tuple(arguments)))
    for run in (0, 1):
        given, got = jax.tree.map(lambda leaf: leaf[run], (tuple(arguments), mapped))  # noqa: B023
        with jax.disable_jit():
            right = plain(*given)
        assert_close(got, right)
        if run == 0:
            assert_close(alone, right)


def test_a_sentence_says_which_inputs_and_types_do_not_fit():
    cell = CELLS["rnn"](**F64)
    _, carry, xs, _ = problem(cell)
    for wrong, words in [(xs[:, :3], r"shape \(7, 3, 3\)"), (xs[0], "shape"), (xs.astype(int), "dtype int64")]:
        with pytest.raises(ConfigError, match=f"xs has the {words}"):
            bptt._check_given(carry, wrong, Watch())  # `unroll` itself is under the tests' own type checks
    with pytest.raises(ConfigError, match="dtype is float16; .* bfloat16"):
        watching(CELLS["rnn"](dtype=jnp.float16), T, ranged=True)
    watching(CELLS["rnn"](dtype=jnp.bfloat16), T, ranged=True)


# --- readings -----------------------------------------------------------------------------------------------


@every_cell
def test_adjoint_norm_is_that_of_the_product_of_step_jacobians(name):
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell, b=())
    weight = jnp.linspace(-1, 1, H)

    def loss(watch):
        return weight @ unroll(cell, params, carry, xs, Cut(), watch)[1].h

    zero = watching(cell, T)
    reading = compiled(jax.grad(loss))(zero._replace(adjoint=jax.tree.map(lambda z: jnp.zeros((T, H)), zero.whole)))
    flat = lambda c: jnp.concatenate([*c])  # noqa: E731
    kind = type(carry)
    carries = [carry]
    for x in xs:
        carries.append(step(cell, params, carries[-1], x))
    adjoint = jnp.concatenate([jnp.zeros(H * (len(carry) - 1)), weight])
    for t in reversed(range(T)):
        parts = kind(*jnp.split(adjoint, len(carry)))
        for part, read, norm, travelled in zip(parts, reading.adjoint, reading.whole, reading.travelled, strict=True):
            assert_close(read[t], part)
            assert_close(norm[t], jnp.linalg.norm(part))
            assert_close(travelled[t], jnp.linalg.norm(part) if t < T - 1 else 0.0)
        unflat = lambda v: kind(*jnp.split(v, len(carry)))  # noqa: E731
        jacobian = jax.jacobian(lambda v: flat(step(cell, params, unflat(v), xs[t])))(flat(carries[t]))  # noqa: B023
        adjoint = adjoint @ jacobian


def test_travelled_leaves_out_the_local_error():
    cell = CELLS["rnn"](**F64)
    params, carry, xs, loss = problem(cell, b=())
    zero = watching(cell, T)
    watch = zero._replace(adjoint=jax.tree.map(lambda z: jnp.zeros((T, H)), zero.whole))
    reading = jax.grad(lambda w: jnp.sum(jnp.sin(unroll(cell, params, carry, xs, Cut(), w)[0])))(watch)
    hs, _ = unroll(cell, params, carry, xs)
    arrived = jnp.linalg.norm(reading.adjoint.h - jnp.cos(hs), axis=-1)
    assert_close(reading.travelled.h, arrived.at[-1].set(0.0))


def test_readings_scale_with_the_loss_and_do_not_change_the_gradient():
    cell = CELLS["lstm"](**F64)
    params, carry, xs, loss = problem(cell)

    def of(params, watch, factor):
        return factor * loss(*unroll(cell, params, carry, xs, Cut(), watch))

    both = compiled(jax.grad(of, argnums=(0, 1)))
    silent, _ = both(params, Watch(), 1.0)
    one, reading = both(params, watching(cell, T, (B,)), 1.0)
    _, tenfold = both(params, watching(cell, T, (B,)), 10.0)
    assert_close(one, silent, rtol=0, atol=0)
    assert_close(tenfold, jax.tree.map(lambda r: 10 * r, reading))


def test_orthogonal_linear_rnn_preserves_the_adjoint_norm_over_200_steps():
    cell = rnn(1, 16, "identity", u=orthogonal(), dtype=jnp.float64)
    params, carry, xs, _ = problem(cell, t=200, b=(), d=1)
    params = params._replace(u=cell.init(jax.random.key(0)).u)
    reading = jax.grad(lambda w: jnp.sum(unroll(cell, params, carry, xs, Cut(), w)[1].h))(watching(cell, 200))
    assert_close(reading.whole.h, jnp.full(200, 4.0), rtol=1e-12)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_identity_rnn_gives_exactly_the_gain_to_the_power_of_the_lag_in_float32(gain):
    steps = 100
    cell = rnn(1, 4, "identity", u=identity(gain))
    params, carry, xs = cell.init(jax.random.key(0)), cell.rest(()), jnp.zeros((steps, 1), jnp.float32)
    reading = compiled(jax.grad(lambda w: jnp.sum(unroll(cell, params, carry, xs, Cut(), w)[1].h)))(
        watching(cell, steps)
    )
    lag = np.arange(steps)[::-1]
    np.testing.assert_array_equal(np.asarray(reading.whole.h, np.float64), 2 * gain**lag)


# --- never underflow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_log_norms_fall_or_rise_by_the_log_of_the_gain_over_2000_steps(gain, dtype):
    steps = 2000
    cell = rnn(1, 4, "identity", u=identity(gain), w=identity(1.0), dtype=dtype)
    params, carry, xs = cell.init(jax.random.key(0)), cell.rest((2,)), jnp.zeros((steps, 2, 1), dtype)

    def loss(watch):
        return jnp.sum(unroll(cell, params, carry, xs, Cut(), watch)[1].h)

    reading = compiled(jax.grad(loss))(watching(cell, steps, (2,), ranged=True))
    mantissa, exponent = np.asarray(reading.whole.h, np.float64), np.asarray(reading.exponent, np.float64)
    assert reading.exponent.dtype == jnp.float32 and reading.whole.h.dtype == dtype
    natural = np.log(mantissa) + exponent * np.log(2)
    np.testing.assert_allclose(-np.diff(natural, axis=0), np.log(gain), atol=1e-5)
    np.testing.assert_allclose(natural[0] - natural[-1], (steps - 1) * np.log(gain), rtol=1e-7)
    np.testing.assert_allclose(log2_norm(reading.whole.h, reading.exponent), natural / np.log(2), atol=2e-4)


def extremes(cell, case):
    """Small weights, so that within 40 steps the adjoint falls through many binary orders that a double still has."""
    params, carry, xs, _ = problem(cell, t=40)
    small = jax.tree.map(lambda leaf: leaf * 1e-3, params)
    weights = jnp.where(jnp.arange(40) % 13 == 0, 1e-13, 1e-60)

    def decays(hs, last):
        return 1e-20 * sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

    def meets(hs, last):
        return decays(hs, last) + weights @ jnp.sum(jnp.sin(hs), axis=(1, 2))

    return small, carry, xs, {"decays": decays, "meets": meets}[case]


@every_cell
@pytest.mark.parametrize("case", ["decays", "meets"])
def test_an_exponent_changes_no_bit_of_a_gradient_and_says_what_plain_norms_say(name, case):
    """Alone the adjoint decays; met by local errors, tiny ones at all steps but a few, it begins anew at those."""
    cell = CELLS[name](**F64)
    params, carry, xs, loss = extremes(cell, case)
    cut = Cut(live=live_steps(jnp.array([40, 22, 40, 31]), 40, "before"))

    def of(params, carry, xs, watch):
        return loss(*unroll(cell, params, carry, xs, cut, watch))

    grad = compiled(jax.grad(of, argnums=(0, 1, 2, 3)))
    everything = watching(cell, 40, (B,))._replace(adjoint=jax.tree.map(lambda z: jnp.zeros((40, B, H)), carry))
    *plain, read = grad(params, carry, xs, everything)
    *ours, ranged = grad(params, carry, xs, everything._replace(exponent=jnp.zeros((40, B), jnp.float32)))
    assert_close(ours, plain, rtol=0, atol=0)
    power = np.exp2(np.asarray(ranged.exponent, np.float64))
    assert power.min() < 1e-10 and power.max() == 1
    assert_close(jax.tree.map(lambda r: r * power, ranged.whole), read.whole, rtol=1e-12, atol=0)
    assert_close(jax.tree.map(lambda r: r * power[..., None], ranged.adjoint), read.adjoint, rtol=0, atol=0)
    assert_close(ranged.travelled, read.travelled, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1e-13, 1e13])
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_an_exponent_survives_a_cut_and_a_step_without_slope(name, size):
    """Where nothing has travelled but a local error enters, what goes on is in that error's units."""
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell, t=20)
    xs = xs.at[12].set(1e6)  # saturated: every slope of an rnn is 0 there

    def of(params, watch, cut):
        return size * loss(*unroll(cell, params, carry, xs, cut, watch))

    for cut in (Cut(), Cut(keep=window(20, 5))):
        grad = compiled(jax.grad(of, argnums=(0, 1)))
        plain, read = grad(params, watching(cell, 20, (B,)), cut)
        ours, ranged = grad(params, watching(cell, 20, (B,), ranged=True), cut)
        assert np.ptp(ranged.exponent) > 0
        assert_close(ours, plain, rtol=1e-14, atol=0)
        power = np.exp2(np.asarray(ranged.exponent, np.float64))
        assert_close(ranged.whole.h * power, read.whole.h, rtol=1e-12, atol=0)
        assert_close(ranged.travelled, read.travelled, rtol=1e-12, atol=0)


def test_an_error_that_arrives_far_back_is_met_at_its_own_size():
    """In float32 what has travelled is 2^−600 when the second loss, read at step 5 of 605, comes in."""
    cell, steps, early = rnn(1, 4, "identity", u=identity(0.5)), 606, 5
    params, carry, xs = cell.init(jax.random.key(0)), cell.rest(()), jnp.zeros((steps, 1), jnp.float32)

    def loss(watch):
        hs, last = unroll(cell, params, carry, xs, Cut(), watch)
        return jnp.sum(last.h) + jnp.sum(hs[early])

    reading = compiled(jax.grad(loss))(watching(cell, steps, ranged=True))
    lag = np.arange(steps)[::-1]  # a norm of 2 at each loss, halved at every step back
    expected = 1.0 - np.where(lag < steps - 1 - early, lag, lag - (steps - 1 - early))
    np.testing.assert_allclose(log2_norm(reading.whole.h, reading.exponent), expected, rtol=1e-6)
    np.testing.assert_array_equal(reading.travelled.h[early], 0)


def test_adjoint_clipping_bounds_a_mantissa_as_it_bounds_the_adjoint():
    cell = CELLS["lstm"](u=gaussian(3.0), **F64)
    params, carry, xs, _ = problem(cell, t=40)

    def loss(hs, last):
        return sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

    for bound, least in ((1e-14, -40), (0.1, 0)):

        def of(params, watch, bound=bound):
            return loss(*unroll(cell, params, carry, xs, Cut(clip=jnp.asarray(bound)), watch))

        grad = compiled(jax.grad(of, argnums=(0, 1)))
        plain, read = grad(params, watching(cell, 40, (B,), clipped=True))
        ours, ranged = grad(params, watching(cell, 40, (B,), clipped=True, ranged=True))
        assert float(jnp.min(read.scale)) < 1
        assert_close(ours, plain, rtol=1e-13, atol=0)
        assert_close(ranged.scale, read.scale, rtol=1e-13)
        assert float(jnp.min(ranged.exponent)) <= least


def test_the_gradient_of_what_overflowed_is_not_finite_and_its_norms_are():
    cell, steps = rnn(1, 4, "identity", u=identity(2.0)), 300
    params, carry, xs = cell.init(jax.random.key(0)), cell.rest(()), jnp.ones((steps, 1), jnp.float32) * 1e-38

    def loss(params, watch):
        return jnp.sum(unroll(cell, params, carry, xs, Cut(), watch)[1].h)

    grads, reading = compiled(jax.grad(loss, argnums=(0, 1)))(params, watching(cell, steps, ranged=True))
    assert not np.isfinite(grads.w).all()
    expected = 1.0 + np.arange(steps)[::-1]
    np.testing.assert_allclose(log2_norm(reading.whole.h, reading.exponent), expected, rtol=1e-6)


# --- composition --------------------------------------------------------------------------------------------


@every_cell
def test_stack_of_one_is_the_cell(name):
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)
    hs, (last,), _ = unroll_stack((cell,), (params,), (carry,), xs)
    assert_close((hs, last), unroll(cell, params, carry, xs), rtol=0, atol=0)


def test_stack_equals_all_layers_at_one_step_then_the_next():
    cells = (rnn(D, 4, dtype=jnp.float64), lstm(4, 6, dtype=jnp.float64), gru(6, 2, dtype=jnp.float64))
    params = tuple(c.init(k) for c, k in zip(cells, jax.random.split(jax.random.key(0), 3), strict=True))
    carries = tuple(c.rest((B,)) for c in cells)
    xs = jnp.asarray(np.random.default_rng(0).standard_normal((T, B, D)))
    hs, last, _ = unroll_stack(cells, params, carries, xs)
    assert_close((hs, last), unroll_by_step(cells, params, carries, xs), rtol=1e-12)


@every_cell
def test_a_network_drawn_unrolled_is_the_folded_one(name):
    cell = CELLS[name](**F64)
    params, carry, xs, loss = problem(cell)
    assert_close(unroll(cell, params, carry, xs), unroll_loop(cell, params, carry, xs), rtol=1e-12)

    def gradient(by):
        return compiled(jax.grad(lambda p, c, x: loss(*by(cell, p, c, x)), argnums=(0, 1, 2)))(params, carry, xs)

    assert_close(gradient(unroll), gradient(unroll_loop))


@every_cell
def test_both_directions_of_a_level_are_two_layers_side_by_side(name):
    """A level's second layer is the first, turned round: on sequences of their own lengths, one level above another."""
    cells = tuple(CELLS[name](d, h, **F64) for d, h in [(D, 4), (D, 4), (8, 3), (8, 3)])
    params = tuple(c.init(k) for c, k in zip(cells, jax.random.split(jax.random.key(0), 4), strict=True))
    carries = tuple(c.rest((B,)) for c in cells)
    xs = jnp.asarray(np.random.default_rng(0).standard_normal((T, B, D)))
    cut = Cut(live=live_steps(jnp.array([7, 2, 4, 6]), T, "before"))
    hs, last, layers = unroll_stack(cells, params, carries, xs, cut, bidirectional=True)
    level = xs
    for i in (0, 2):
        there, end = unroll(cells[i], params[i], carries[i], level, cut)
        back, start = unroll(cells[i + 1], params[i + 1], carries[i + 1], level, cut, reverse=True)
        assert_close((last[i], last[i + 1]), (end, start), rtol=0, atol=0)
        assert_close(layers[i + 1].xs, level[::-1], rtol=0, atol=0)
        level = jnp.concatenate([there, back], axis=-1)
    assert_close(hs, level, rtol=0, atol=0)
    np.testing.assert_array_equal(layers[1].live, cut.live[::-1])


@every_cell
def test_a_carry_handed_on_continues_the_sequence(name):
    cell = CELLS[name](**F64)
    params, carry, xs, _ = problem(cell)
    hs, last = unroll(cell, params, carry, xs)
    first, middle = unroll(cell, params, carry, xs[:3])
    second, end = unroll(cell, params, middle, xs[3:])
    assert_close((jnp.concatenate([first, second]), end), (hs, last), rtol=1e-12)


def test_forward_mode_says_it_is_not_there():
    cell = CELLS["rnn"](**F64)
    params, carry, xs, _ = problem(cell)
    with pytest.raises(TypeError):
        jax.jvp(lambda x: unroll(cell, params, carry, x)[0], (xs,), (xs,))


def test_autodiff_oracle_refuses_what_it_cannot_do():
    cell = CELLS["rnn"](**F64)
    params, carry, xs, _ = problem(cell)
    with pytest.raises(ValueError, match="cannot truncate"):
        unroll_autodiff(cell, params, carry, xs, Cut(keep=window(T, 2)))
