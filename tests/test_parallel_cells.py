"""Laws of the cells people ask about (minGRU, minLSTM, LRU, IndRNN, sLSTM) and of all states made at once."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _digests import digests
from _refusals import refusal

import seqdyn as sd
from seqdyn.nets.bptt import Backprop, taps, unroll
from seqdyn.nets.cells import rnn
from seqdyn.nets.stack import unroll_autodiff

X64 = False
D, H, T, B = 2, 4, 6, 3
CELLS = {
    "MinGRU": sd.MinGRU(H, forget_bias=1.0),
    "MinLSTM, positive": sd.MinLSTM(H, positive=True),
    "LRU": sd.LRU(H, r_min=0.4, r_max=0.9),
    "IndRNN": sd.IndRNN(H, bound=0.8),
    "SLSTM": sd.SLSTM(H),
    "SLSTM, two heads": sd.SLSTM(H, heads=2, forget="exp"),
}
LINEAR = [name for name in CELLS if name.startswith(("Min", "LRU"))]


def each(names, first):
    """Compiling is what takes the time."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[] if name == first else [pytest.mark.slow]) for name in names]
    )


def given(name, seed=0):
    """(cell, params away from 0, xs), in float64."""
    cell, rng = CELLS[name].build(D), np.random.default_rng(seed)
    params = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape), cell.init(jax.random.key(seed)))
    return cell, params, jnp.asarray(rng.normal(size=(T, B, D)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


# --- as the papers print them: NumPy, a step after the other, not stabilised -----------------------------------


def min_gru(part, p, xs):
    h, out = 0, []
    for x in xs:
        z, candidate = np.split(x @ p.w + p.b, 2, axis=-1)
        z = sigmoid(z)
        h = (1 - z) * h + z * (positive(candidate) if part.positive else candidate)
        out.append(h)
    return out


def min_lstm(part, p, xs):
    h, out = 0, []
    for x in xs:
        f, i, candidate = np.split(x @ p.w + p.b, 3, axis=-1)
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * (positive(candidate) if part.positive else candidate)
        out.append(h)
    return out


def lru(part, p, xs):
    factor, s, out = np.exp(-np.exp(p.log_nu) + 1j * np.exp(p.log_theta)), 0, []
    for x in xs:
        s = factor * s + np.exp(p.log_gamma) * (x @ (p.re + 1j * p.im))
        out.append(np.concatenate([s.real, s.imag], axis=-1))
    return out


def ind_rnn(part, p, xs):
    h, out = 0, []
    for x in xs:
        z = x @ p.w + np.clip(p.u, -part.bound, part.bound) * h + p.b
        h = np.maximum(z, 0)
        out.append(h)
    return out


def s_lstm(part, p, xs):
    width, c, n, h, out = H // part.heads, 0, 0, np.zeros((B, H)), []
    whole = np.zeros((H, 4, part.heads, width))
    for k, block in enumerate(p.u):
        whole[k * width : (k + 1) * width, :, k] = block.reshape(width, 4, width)
    for x in xs:
        i, f, o, z = np.split(x @ p.w + h @ whole.reshape(H, 4 * H) + p.b, 4, axis=-1)
        i, f, o = np.exp(i), sigmoid(f) if part.forget == "sigmoid" else np.exp(f), sigmoid(o)
        c, n = f * c + i * np.tanh(z), f * n + i
        h = o * c / n
        out.append(h)
    return out


ORACLES = {sd.MinGRU: min_gru, sd.MinLSTM: min_lstm, sd.LRU: lru, sd.IndRNN: ind_rnn, sd.SLSTM: s_lstm}


@each(CELLS, first="SLSTM, two heads")
def test_a_cell_is_what_its_paper_prints_and_its_gradient_and_adjoint_are_those_of_autodiff(name):
    """With padding, as itself and under vmap; what is read at the last step is the loss's own derivative."""
    with jax.enable_x64(True):
        cell, params, xs = given(name)
        watch, cut = taps(cell, T, (B,)), Backprop(mask=jnp.arange(T)[:, None] < jnp.array([[T, 2, 4]]))

        def loss(by, params, xs, watch, cut):
            hs, last = by(cell, params, cell.initial_carry((B,)), xs, cut, watch)
            return jnp.sum(hs**3) + jnp.sum(last.h**2), hs

        ours = jax.grad(partial(loss, unroll), (0, 1, 2), has_aux=True)
        theirs = jax.grad(lambda p, x, c: loss(unroll_autodiff, p, x, type(watch)(), c), (0, 1), has_aux=True)

        def two(of):
            return jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), of)

        def all_of(params, xs):
            once = ours(params, xs, watch, Backprop())
            padded, hs = ours(params, xs, watch, cut)
            return (
                once,
                padded,
                hs,
                theirs(params, xs, cut)[0],
                jax.vmap(ours, (0, 0, None, None))(two(params), two(xs), watch, Backprop()),
            )

        (once, states), padded, hs, right, (twice, _) = sd.compiled(all_of)(params, xs)
        np.testing.assert_allclose(
            states,
            ORACLES[type(CELLS[name])](CELLS[name], jax.tree.map(np.asarray, params), np.asarray(xs)),
            rtol=1e-10,
            atol=1e-12,
        )
        close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
        jax.tree.map(close, padded[:2], right)
        jax.tree.map(lambda one, both: close(both[0], one), once, twice)
        at_end = 3 * states[-1] ** 2 + 2 * states[-1]
        close(once[2].adjoint_norm.h[-1], jnp.linalg.norm(at_end, axis=-1))
        assert np.all(np.asarray(once[2].adjoint_norm.h) > 0) and np.all(padded[2].adjoint_norm.h[2:, 1] == 0)
        np.testing.assert_array_equal(hs[2:, 1], np.broadcast_to(hs[1, 1], (T - 2, H)))


@each(LINEAR, first="LRU")
def test_all_states_at_once_are_those_of_a_step_after_the_other_and_so_are_their_gradients(name):
    """In float32, over 100 steps, to 1e-5."""
    cell = CELLS[name].build(D)
    params = cell.init(jax.random.key(1))
    xs = jax.random.normal(jax.random.key(2), (100, B, D))

    def both(params, xs):
        def loss(hs):
            return jnp.sum(jnp.sin(hs[-1])) + jnp.mean(hs**2), hs

        one = jax.grad(lambda p, x: loss(unroll(cell, p, cell.initial_carry((B,)), x)[0]), (0, 1), has_aux=True)
        other = jax.grad(lambda p, x: loss(sd.parallel(cell, p, x)), (0, 1), has_aux=True)
        return one(params, xs), other(params, xs)

    sequential, at_once = sd.compiled(both)(params, xs)

    def near(one, other):
        assert np.max(np.abs(one - other)) <= 1e-5 * np.max(np.abs(one))

    jax.tree.map(near, sequential, at_once)
    assert np.max(np.abs(sequential[1])) > 0.1


def test_what_is_not_linear_in_h_has_no_parallel_form():
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    for cell in (rnn(D, H), sd.IndRNN(H).build(D)):
        sentence = refusal(jax.eval_shape, partial(sd.parallel, cell), jax.eval_shape(cell.init, jax.random.key(0)), xs)
        assert "linear" in sentence and "MinGRU" in sentence


@pytest.mark.slow
def test_the_slstm_overflows_nowhere_and_does_not_depend_on_how_far_its_stabiliser_was_needed():
    """exp(200) has no place in 32 bits, nor exp(−200): h and its gradient are finite, and h is o z where one step
    outweighs all before it."""
    cell = sd.SLSTM(H, forget="exp").build(D)
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (T, B, D))

    @sd.compiled
    def both(i, f):
        b = params.b.at[:H].set(i).at[H : 2 * H].set(f)

        def loss(b):
            hs = unroll(cell, params._replace(b=b), cell.initial_carry((B,)), xs)[0]
            return jnp.sum(hs**2), hs

        return jax.grad(loss, has_aux=True)(b)

    for i in (-200.0, 200.0):
        for f in (-200.0, 200.0):
            grad, hs = both(i, f)
            assert np.isfinite(grad).all() and np.isfinite(hs).all() and np.abs(hs).max() > 1e-3
    np.testing.assert_allclose(both(200.0, -200.0)[1], both(-200.0, -600.0)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_initial_numbers_are_where_the_papers_put_them():
    """λ on its ring and in its sector, γ √(1 − |λ|²); u between its ends, beyond which none acts; forgetting."""
    p = sd.compiled(sd.LRU(2000, r_min=0.5, r_max=0.9, max_phase=0.3).build(D).init)(jax.random.key(0))
    size, phase = np.exp(-np.exp(p.log_nu)), np.exp(p.log_theta)
    assert 0.5 <= size.min() < 0.51 and 0.89 < size.max() <= 0.9001 and 0.29 < phase.max() <= 0.3
    assert np.mean(size**2) == pytest.approx((0.25 + 0.81) / 2, abs=0.02)  # uniform over the ring's area
    np.testing.assert_allclose(np.exp(p.log_gamma), np.sqrt(1 - size**2), rtol=1e-4)
    assert np.mean(p.re**2 + p.im**2) == pytest.approx(1 / D, rel=0.1)
    for r_min, r_max in ((0.0, 1.0), (1.0, 1.0)):  # finite at both ends of what is allowed
        every = sd.compiled(sd.LRU(2000, r_min=r_min, r_max=r_max).build(D).init)(jax.random.key(0))
        assert all(np.isfinite(leaf).all() for leaf in every)
    u = sd.IndRNN(1000, low=0.9, high=1.1, bound=1.0).build(D).init(jax.random.key(0)).u
    assert 0.9 <= u.min() < 0.91 and 1.09 < u.max() <= 1.1
    cell = sd.IndRNN(1, bound=0.5).build(D)
    assert (
        cell.recurrent_projection(cell.init(jax.random.key(0))._replace(u=jnp.ones(1)), jnp.ones((B, 1))).tolist()
        == [[0.5]] * B
    )
    for made in (sd.MinGRU, sd.MinLSTM):
        cell = made(500, forget_bias=3.0).build(D)
        kept = cell.input_projection(cell.init(jax.random.key(0)), jnp.zeros((1, D))).a
        assert np.mean(kept) == pytest.approx(sigmoid(3.0), abs=0.01)


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda: sd.MinGRU(0), "MinGRU.hidden 0 at least 1"),
        (lambda: sd.MinLSTM(-2), "MinLSTM.hidden -2 at least 1"),
        (lambda: sd.MinGRU(2.5), "MinGRU.hidden 2.5"),
        (lambda: sd.MinGRU(4, forget_bias=float("nan")), "MinGRU.forget_bias nan finite"),
        (lambda: sd.LRU(5), "LRU.hidden 5 even"),
        (lambda: sd.LRU(0), "LRU.hidden 0 at least 1"),
        (lambda: sd.LRU(4, r_min=0.9, r_max=0.5), "LRU.r_min 0.9 at most r_max, 0.5"),
        (lambda: sd.LRU(4, r_max=1.5), "LRU.r_max 1.5 at most 1"),
        (lambda: sd.LRU(4, max_phase=0.0), "LRU.max_phase 0 above 0"),
        (lambda: sd.IndRNN(4, low=2.0), "IndRNN.low 2 at most high, 1"),
        (lambda: sd.IndRNN(4, bound=-1.0), "IndRNN.bound -1 above 0"),
        (
            lambda: sd.grid(sd.Spec(layers=(sd.IndRNN(4, high=0.7),)), low=[0.1, 0.8]),
            "IndRNN.low 0.8 at most high, 0.7",
        ),
        (lambda: sd.IndRNN(4, activation="swish"), "IndRNN.activation 'swish'"),
        (lambda: sd.SLSTM(4, heads=3), "SLSTM.heads 3 divide hidden, 4"),
        (lambda: sd.SLSTM(4, heads=0), "SLSTM.heads 0 at least 1"),
        (lambda: sd.SLSTM(4, forget="relu"), "SLSTM.forget 'relu'"),
    ],
)
def test_numbers_that_are_none_are_one_sentence(made, words):
    sentence = refusal(made)
    assert all(word in sentence for word in words.split(" ")), sentence


# --- in a run -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_all_five_is_verified_recorded_loaded_and_goes_on_to_the_bits_of_one_that_never_stopped(tmp_path):
    """On each other, in one network; the numbers of two are swept."""
    layers = (sd.MinGRU(3), sd.LRU(4), sd.MinLSTM(3, positive=True), sd.IndRNN(4), sd.SLSTM(4, heads=2))
    spec = sd.Spec("adding", steps=6, layers=layers, batch=4, holdout=4)
    runs = sd.grid(spec, seeds=1, r_min=[0.0, 0.5], bound=0.9, lr=0.01)
    experiment = sd.Experiment("parallel", runs, updates=2, chunk=2, tile=2)
    sd.run(experiment, tmp_path / "out")
    whole = dataclasses.replace(experiment, updates=4)
    out = sd.run(whole, tmp_path / "out")
    assert digests(out) == digests(sd.run(whole, tmp_path / "once", verify=False))
    ds = sd.load(out).load()
    assert ds.r_min.values.tolist() == [0.0, 0.5] and ds.sizes["layer"] == 5
    assert bool((ds.adjoint_norm > 0).all()) and bool(np.isfinite(ds.loss).all())
    assert not np.array_equal(ds.loss[0], ds.loss[1])
    shapes = jax.tree.map(jnp.shape, sd.restore(out, 0).layers)
    assert shapes[0].w == (2, 6) and shapes[1].re == (3, 2) and shapes[4].u == (2, 2, 8)
