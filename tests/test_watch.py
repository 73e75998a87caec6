"""Laws of `watch`: it changes nothing, it reads what an independent derivative says, and it reads beyond floats."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn import ConfigError, watch

T, B, H = 6, 3, 4


def drawn(i, *shape):
    """NumPy's, since float64 comes with the fixtures."""
    return np.random.default_rng(i).normal(size=shape)


PARAMS = {"u": drawn(0, H, 4 * H) / 2, "w": drawn(1, 2, 4 * H), "r": drawn(2, H)}
XS, REST = drawn(3, T, B, 2), (np.zeros((B, H)), np.zeros((B, H)))
U, US = PARAMS["u"][:, :H], drawn(4, T, B, H)
PLAIN = jax.lax.scan


def same(a, b, rtol=0.0):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=0), a, b)


def watched(loss, *args, **options):
    """(value, gradients, {name: its readings}), all in one program."""

    def read(seen):
        names = ("each", "rms", "log2", "nonzero", "adjoint", "each_log2")
        return {name: getattr(seen, name) for name in names} | {"from_next": seen.from_next.each}

    def run(*args):
        value, grads, seen = watch.value_and_grad(loss, **options)(*args)
        return value, grads, {name: read(one) for name, one in seen.items()}

    value, grads, seen = jax.jit(run)(*args)
    return value, grads, {name: SimpleNamespace(**one) for name, one in seen.items()}


def plain(loss, *args, **options):
    return jax.jit(jax.value_and_grad(loss, **options))(*args)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def lstm(p, carry, x):
    c, h = carry
    i, f, o, g = jnp.split(x @ p["w"] + h @ p["u"], 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def lstm_loss(p, scan=watch.scan, **options):
    def f(carry, x):
        new = lstm(p, carry, x)
        return new, new[1]

    (c, _), hs = scan(f, REST, XS, **options)
    return jnp.mean(c[:, 0]) + jnp.mean((hs @ p["r"]) ** 2)


@functools.cache
def adjoint(reverse=False, before=True):
    """∂L/∂(zeros added to the LSTM's carry), before y leaves it or after."""

    def disturbed(zeros):
        def f(carry, inputs):
            new = lstm(PARAMS, carry, inputs[0])
            changed = jax.tree.map(jnp.add, new, inputs[1])
            return changed, (changed if before else new)[1]

        (c, _), hs = PLAIN(f, REST, (XS, zeros), reverse=reverse)
        return jnp.mean(c[:, 0]) + jnp.mean((hs @ PARAMS["r"]) ** 2)

    return jax.jit(jax.grad(disturbed))((jnp.zeros((T, B, H)), jnp.zeros((T, B, H))))


def norms(*parts):
    """Of each example's own loss, [time, example]."""
    return B * jnp.sqrt(sum(jnp.sum(part**2, axis=-1) for part in parts))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_watched_loss_has_the_value_and_gradients_of_lax_scan_and_the_norms_of_zeros_added(reverse):
    """Forwards of the whole carry, backwards of h alone."""
    picked = {"of": lambda carry: carry[1]} if reverse else {}
    value, grads, seen = watched(functools.partial(lstm_loss, reverse=reverse, adjoint=True, **picked), PARAMS)
    same((value, grads), plain(lambda p: lstm_loss(p, PLAIN, reverse=reverse), PARAMS), 1e-12)
    expected, from_next = (adjoint(reverse, before) for before in (True, False))
    if reverse:
        expected, from_next = expected[1:], from_next[1:]
    read = seen["scan"]
    close(read.each, norms(*expected))
    close(read.rms, jnp.sqrt(jnp.mean(norms(*expected) ** 2, axis=1)))
    close(read.log2, jnp.mean(jnp.log2(norms(*expected)), axis=1))
    jax.tree.map(close, read.adjoint, expected[0] if reverse else expected)
    last = 0 if reverse else -1  # where the loss reads the last carry, from which nothing goes on
    close(read.from_next, norms(*from_next).at[last].set(0))
    assert read.nonzero.tolist() == [1.0] * T


def test_a_sum_over_examples_is_read_as_a_sum():
    total = watched(lambda u: B * squares(u), U, reduction="sum")[2]["scan"]
    close(total.each, expected())


def test_without_value_and_grad_it_is_lax_scan():
    for function in (lstm_loss, jax.grad(lstm_loss)):
        ours, theirs = (jax.make_jaxpr(functools.partial(function, scan=scan))(PARAMS) for scan in (watch.scan, PLAIN))
        assert str(ours) == str(theirs)
    tangent = jax.jvp(lstm_loss, (PARAMS,), (PARAMS,))[1]
    same(tangent, jax.jvp(lambda p: lstm_loss(p, PLAIN), (PARAMS,), (PARAMS,))[1])


# --- beyond floats ------------------------------------------------------------------------------------------


def linear(gains, dtype=jnp.float32):
    """The log₂ norms of h_t = gains_t h_{t−1} under the mean over examples of h_T's first unit."""

    def loss(h):
        last, _ = watch.scan(lambda h, g: (g[:, None] * h, None), h, gains.astype(dtype))
        return jnp.mean(last[:, 0])

    return watched(loss, jnp.ones((gains.shape[1], 2), dtype))[2]["scan"]


def test_norms_far_beyond_floats_are_exact_and_come_back():
    back = jnp.repeat(jnp.array([2.0, 0.5]), 1000)
    gains = jnp.stack([jnp.full(2000, 0.5), jnp.full(2000, 2.0), jnp.ones(2000), back], axis=1)
    read = linear(gains)
    later = np.log2(gains)[:0:-1].cumsum(axis=0)[::-1]  # λ_t is the product of the gains after t
    expected = np.concatenate([later, np.zeros((1, 4))])
    assert (np.asarray(read.each_log2) == expected).all() and expected[0, 0] == -1999 and expected[999, 3] == -1000
    assert (np.asarray(read.log2) == expected.mean(axis=1)).all()
    assert read.rms[0] == jnp.inf and read.rms[-1] == pytest.approx(1)


def test_norms_far_beyond_floats_are_exact_within_vmap():
    """Each example has an exponent of its own, where only the examples' factors are mapped, too."""
    gains = jnp.exp2(jnp.asarray(np.random.default_rng(0).integers(-3, 2, (1200, B)), jnp.float32))

    def loss(h):
        last = lambda gains: watch.scan(lambda h, g: (g * h, None), h, gains, batch=None)[0]  # noqa: E731
        return jnp.mean(jax.vmap(last, 1)(gains))

    read = watched(loss, jnp.ones((), jnp.float32))[2]["scan"]
    expected = np.log2(gains)[:0:-1].cumsum(axis=0)[::-1]
    assert (np.asarray(read.each_log2)[:-1] == expected).all() and expected.min() < -1000


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float64])
def test_every_float_has_the_range_of_integers(dtype):
    assert linear(jnp.full((1200, 1), 0.5), dtype).log2[0] == -1199


@pytest.mark.parametrize("within", [False, True])
def test_a_local_error_far_from_the_end_is_read_where_it_dwarfs_what_came_from_the_next_step(within):
    """Whether y is the carry or is computed from it: λ enters at 600, or within the step from 599 to 600."""

    def loss(h):
        def f(h, x):
            h = h / 2
            return h, (jnp.mean(h[:, 0]) if within else h)

        _, ys = watch.scan(f, h, None, 1200)
        return ys[600] + ys[-1] if within else jnp.mean((ys[600] + ys[-1])[:, 0])

    read = watched(loss, jnp.ones((B, 2), jnp.float32))[2]["scan"]
    t = np.arange(1200)
    expected = np.where(t <= (599 if within else 600), 600 - t, 1199 - t).astype(float)
    np.testing.assert_allclose(read.log2[:-1], -expected[:-1], atol=1e-6)


# --- to the letter ------------------------------------------------------------------------------------------


def test_integers_keys_none_and_weak_types_pass_as_in_lax_scan():
    def loss(u, scan):
        def f(carry, _):
            h, key, n, w, nothing = carry
            key, own = jax.random.split(key)
            h = jnp.tanh(h @ u + w * jax.random.normal(own, (B, H), jnp.float32))
            return (h, key, n + 1, w * jnp.float32(0.5), nothing), {"n": n, "none": None, "h": h}

        rest = (jnp.zeros((B, H), jnp.float32), jax.random.key(0), 0, 1.0, None)
        last, ys = scan(f, rest, length=T)
        return jnp.mean(ys["h"]) + jnp.mean(last[3]), (last[2], ys["n"])

    u = jnp.ones((H, H), jnp.float32) / 3
    ours = functools.partial(watch.scan, of=lambda carry: carry[0])
    *found, seen = watched(functools.partial(loss, scan=ours), u, has_aux=True)
    same(tuple(found), plain(functools.partial(loss, scan=PLAIN), u, has_aux=True), 1e-6)
    assert seen["scan"].rms.shape == (T,) and (seen["scan"].rms > 0).all()


def rnn(u, xs, scan=watch.scan, wrap=lambda f: f, **options):
    rest = jnp.zeros((*xs.shape[1:-1], H))
    return scan(wrap(lambda h, x: (jnp.tanh(h @ u + x),) * 2), rest, xs, **options)[1]


def squares(u, **options):
    return jnp.mean(rnn(u, US, **options) ** 2)


def one_by_one(u):
    return jnp.mean(jax.vmap(lambda xs: jnp.mean(rnn(u, xs, batch=None) ** 2), in_axes=1)(US))


@functools.cache
def expected():
    def loss(zeros):
        h, total = jnp.zeros((B, H)), 0.0
        for t in range(T):
            h = jnp.tanh(h @ U + US[t]) + zeros[t]
            total += jnp.mean(h**2) / T
        return total

    return norms(jax.jit(jax.grad(loss))(jnp.zeros((T, B, H))))


@functools.cache
def known():
    return plain(lambda u: squares(u, scan=PLAIN), U)


jitted = jax.jit(squares)
AROUND = {
    "nothing": squares,
    "jit": jitted,
    "remat": jax.checkpoint(squares),
    "remat of each step": functools.partial(squares, wrap=lambda f: jax.checkpoint(jax.jit(f))),
    "cond": lambda u: jax.lax.cond(u[0, 0] < 1e9, squares, jnp.sum, u),
    "vmap": one_by_one,
    "vmap of jit": lambda u: jnp.mean(jax.vmap(jax.jit(lambda xs: jnp.mean(rnn(u, xs, batch=None) ** 2)), 1)(US)),
}


@pytest.mark.parametrize("around", AROUND)
def test_what_stands_around_a_scan_changes_no_reading(around):
    jax.eval_shape(jitted, U)  # a trace that knows of no watching
    value, grads, seen = watched(AROUND[around], U)
    same((value, grads), known(), 1e-12)
    close(seen["scan"].each, expected())


def test_value_and_grad_is_vmapped_as_any_function():
    seen = jax.jit(jax.vmap(watch.value_and_grad(one_by_one)))(jnp.stack([U / 2, U]))[2]["scan"]
    assert seen.each.shape == (2, T, B)
    close(seen.each[1], expected())


def test_scans_in_one_loss_are_read_by_their_names():
    def loss(u):
        return jnp.mean(rnn(u, rnn(u, US, name="below"), name="above", adjoint=True) ** 2)

    _, grads, seen = watched(loss, U)
    assert set(seen) == {"below", "above"}
    close(norms(seen["above"].adjoint), seen["above"].each)
    same(grads, plain(lambda u: jnp.mean(rnn(u, rnn(u, US, PLAIN), PLAIN) ** 2), U)[1], 1e-12)


def test_a_watched_scan_within_another_has_the_times_of_both():
    xs = US.reshape(2, 3, B, H)

    def loss(u, outer, inner):
        def sentence(h, words):
            last, hs = inner(lambda k, x: (jnp.tanh(k @ u + x + h),) * 2, h, words)
            return last, jnp.mean(hs**2)

        return jnp.sum(outer(sentence, jnp.zeros((B, H)), xs)[1])

    named = (functools.partial(watch.scan, name=name, adjoint=True) for name in ("outer", "inner"))
    outer, inner = named
    value, grads, seen = watched(lambda u: loss(u, outer, inner), U)
    same((value, grads), plain(lambda u: loss(u, PLAIN, PLAIN), U), 1e-12)

    def disturbed(zeros):
        h, total = jnp.zeros((B, H)), 0.0
        for i in range(2):
            k = h
            for t in range(3):
                k = jnp.tanh(k @ U + xs[i, t] + h) + zeros[i, t]
                total += jnp.mean(k**2) / 3
            h = k
        return total

    close(seen["inner"].adjoint, jax.jit(jax.grad(disturbed))(jnp.zeros((2, 3, B, H))))
    assert seen["inner"].rms.shape == (2, 3) and seen["outer"].rms.shape == (2,)
    assert (seen["inner"].from_next[:, -1] == 0).all() and (seen["inner"].from_next[:, 0] > 0).all()


def test_a_gradient_is_differentiated_again_as_lax_scans():
    v = drawn(5, H, H)

    def products(u):
        gradient = lambda u: watch.value_and_grad(squares)(u)[1]  # noqa: E731
        reverse = jax.grad(lambda u: jnp.sum(gradient(u) * v))(u)
        return (
            reverse,
            jax.jvp(gradient, (u,), (v,))[1],
            jax.jvp(jax.grad(lambda u: squares(u, scan=PLAIN)), (u,), (v,))[1],
        )

    reverse, forward, right = jax.jit(products)(jnp.asarray(U))
    close(reverse, right)
    close(forward, right)


def test_a_gradient_within_a_loss_is_lax_scans():
    def loss(u, scan):
        return jnp.sum(jax.grad(lambda u: squares(u, scan=scan))(u) ** 2)

    _, grads, seen = watched(functools.partial(loss, scan=watch.scan), U)
    close(grads, jax.jit(jax.grad(functools.partial(loss, scan=PLAIN)))(U))
    assert (seen["scan"].nonzero == 0).all()  # as documented: there is no one adjoint


# --- refusals -----------------------------------------------------------------------------------------------


def watched_rnn(u=U, **options):
    return watch.value_and_grad(lambda u: squares(u, **options))(u)


def watched_steps(length):
    return watch.value_and_grad(lambda u: jnp.sum(watch.scan(lambda h, _: (h @ u, None), U, length=length)[0]))(U)


def with_vjp():
    ruled = jax.custom_vjp(lambda u: squares(u))
    ruled.defvjp(lambda u: (squares(u), u), lambda u, d: (d * u,))
    return ruled


def with_jvp():
    ruled = jax.custom_jvp(lambda u: squares(u))
    ruled.defjvp(lambda u, d: (squares(*u), jnp.sum(d[0])))
    return ruled


def halves(f):
    """Computed on each of two devices."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("half",))
    spec = jax.sharding.PartitionSpec
    return jax.shard_map(
        lambda u: jax.tree.map(lambda x: x[None], f(u)),
        mesh=mesh,
        in_specs=spec(),
        out_specs=spec("half"),
        check_vma=False,
    )


def test_each_device_may_have_a_value_and_grad_of_its_own():
    read = watch.value_and_grad(squares)
    found, alone = jax.jit(halves(lambda u: read(u)[2]["scan"].each))(U), jax.jit(lambda u: read(u)[2]["scan"].each)(U)
    same(found, jnp.stack([alone, alone]), 1e-12)


REFUSED = {
    "name is 3": lambda: squares(U, name=3),
    "length of 'scan' is -1": lambda: watched_steps(-1),
    "length of 'scan' is 2.5": lambda: watched_steps(2.5),
    "length of 'scan' is '3'": lambda: watch.scan(lambda h, _: (h, None), U, length="3"),  # without value_and_grad, too
    "batch of 'scan' is 2": lambda: watched_rnn(batch=2),
    "batch of 'scan' is 0.5": lambda: squares(U, batch=0.5),
    "batch of 'scan' is True": lambda: squares(U, batch=True),
    "batch of 'scan' is not given": lambda: watch.value_and_grad(lambda u: jnp.sum(rnn(u, US[:, 0])))(U),
    "of of 'scan' is": lambda: watched_rnn(of=lambda h: 2 * h),
    "of of 'scan' is 'h'": lambda: watched_rnn(of="h"),
    "floats must be in it": lambda: watch.value_and_grad(
        lambda u: watch.scan(lambda n, _: (n, u), 0, None, 2)[1].sum()
    )(U),
    r"the carry of 'scan' is \[key": lambda: watch.value_and_grad(
        lambda u: watch.scan(lambda k, _: (k, u), jax.random.key(0), None, 2)[1].sum()
    )(U),
    "two watched scans": lambda: watch.value_and_grad(lambda u: squares(u) + squares(u))(U),
    "name is 'scan', of two watched": lambda: watch.value_and_grad(
        lambda u: watch.scan(lambda h, x: (h + squares(x * u), None), jnp.zeros(()), US[:, 0, 0], batch=None)[0]
    )(U),
    "xs of 'scan' has a number": lambda: watch.value_and_grad(
        lambda u: jnp.sum(watch.scan(lambda h, x: (h + x, None), u, [1.0, 2.0])[0])
    )(U),
    "xs of 'scan' has a number in": lambda: watch.value_and_grad(
        lambda u: jnp.sum(watch.scan(lambda h, x: (h + x, None), u, 3.0)[0])
    )(U),
    "in the body of a loop": lambda: watch.value_and_grad(
        lambda u: jax.lax.map(lambda a: squares(a * u), US[:, 0, 0]).sum()
    )(U),
    "within jax.shard_map": lambda: jax.eval_shape(watch.value_and_grad(lambda u: halves(squares)(u).mean()), U),
    "a derivative of its own": lambda: watch.value_and_grad(jax.jit(with_vjp()))(U),
    "that has a derivative": lambda: watch.value_and_grad(with_jvp())(U),
    "fun differentiates in forward mode": lambda: watch.value_and_grad(lambda u: jnp.sum(jax.jacfwd(squares)(u)))(U),
    "differentiates in forward mode": lambda: watch.value_and_grad(lambda u: jax.jvp(squares, (u,), (u,))[1])(U),
    "in which no scan is watched": lambda: watch.value_and_grad(jnp.sum)(U),
    "fun is 3": lambda: watch.value_and_grad(3),
    "argnums is 1": lambda: watch.value_and_grad(squares, 1)(U),
    "argnums is .0, 0.; .* at most once": lambda: watch.value_and_grad(squares, (0, 0))(U),
    "argument 0 has at .*'phi'.* a function": lambda: watch.value_and_grad(squares)({"u": U, "phi": squares}),
    "reduction is 'max'": lambda: watch.value_and_grad(squares, reduction="max"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_read_is_said_in_one_sentence(sentence):
    with pytest.raises(ConfigError, match=sentence) as told:
        REFUSED[sentence]()
    assert "must" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("shape", [(0, H), (B, 0)], ids=["examples", "width"])
def test_a_batch_of_no_examples_and_a_carry_of_no_width_pass_as_in_lax_scan(shape):
    def loss(a, scan):
        def f(h, x):
            h = jax.tree.map(lambda leaf, k: jnp.tanh(a * leaf + x[: len(leaf), :k]), h, widths)
            return h, h[0]

        widths = shape[1], (H if shape[0] else 0)
        return jnp.sum(scan(f, (jnp.zeros(shape), jnp.zeros((shape[0], widths[1]))), US)[1]) + a

    value, grads, seen = watched(lambda a: loss(a, watch.scan), 0.5)
    same((value, grads), plain(lambda a: loss(a, PLAIN), 0.5))
    assert seen["scan"].each.shape == (T, shape[0]) and not seen["scan"].each.any()


@pytest.mark.parametrize("length", [T, np.int64(T), jnp.int32(T), 0], ids=repr)
def test_a_length_is_a_whole_number_of_python_numpy_or_jax(length):
    seen = watched_steps(length)[2]["scan"]
    assert seen.rms.shape == (int(length),) and bool(jnp.all(seen.rms > 0))


@pytest.mark.parametrize("sizes", [(0,), (2, 0), (0, 2)], ids=str)
def test_a_vmap_over_no_examples_passes_as_in_lax_scan(sizes):
    def loss(u, scan):
        each = functools.partial(rnn, u, scan=scan, **({} if scan is PLAIN else {"batch": None, "adjoint": True}))
        for _ in sizes:
            each = jax.vmap(each)
        return jnp.sum(each(jnp.zeros((*sizes, T, H)))) + jnp.sum(u)

    value, grads, seen = watched(lambda u: loss(u, watch.scan), U)
    same((value, grads), plain(lambda u: loss(u, PLAIN), U))
    assert seen["scan"].each.shape == (T, 0)


def test_errors_of_lax_scan_are_its_own():
    def told(scan):
        with pytest.raises(TypeError) as error:
            scan(lambda h, x: (h[:, :2], None), REST[0], XS)
        return str(error.value)

    def ours(*args):
        return watch.value_and_grad(lambda u: watch.scan(*args)[0].sum())(U)

    assert told(ours) == told(PLAIN)
