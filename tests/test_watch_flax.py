"""Models of Flax, Equinox and Haiku, watched: their own gradients and parameters; their steps under the probes."""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqdyn import ConfigError, watch
from seqdyn.measure.jacobians import step_jacobians
from seqdyn.measure.lyapunov import lyapunov_spectrum

T, B, D, H = 5, 3, 2, 4
XS = np.random.default_rng(0).normal(size=(B, T, D))


def close(a, b, rtol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    if isinstance(jax.tree.leaves(a)[0], jax.ShapeDtypeStruct):
        assert jax.tree.leaves(a) == jax.tree.leaves(b)
        return
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-12), a, b)


def mean_square(tree):
    return sum(jnp.mean(leaf**2) for leaf in jax.tree.leaves(tree))


def norms(f, params, rest, xs):
    """‖∂L/∂carry_t‖ of each example, L = mean y², by zeros added to the carry before y leaves it as its `h`."""

    def disturbed(zeros):
        def body(carry, inputs):
            new = jax.tree.map(jnp.add, f(params, carry, inputs[0])[0], inputs[1])
            return new, new[1] if isinstance(new, tuple) else new

        return jnp.mean(jax.lax.scan(body, rest, (xs, zeros))[1] ** 2)

    zeros = jax.tree.map(lambda leaf: jnp.zeros((len(xs), *leaf.shape)), rest)
    squares = jax.tree.map(lambda g: jnp.sum(g**2, axis=-1), jax.jit(jax.grad(disturbed))(zeros))
    return B * jnp.sqrt(sum(jax.tree.leaves(squares)))


OF_RNN = {"reverse": True, "keep_order": True, "time_major": True, "return_carry": True}
OF_CALL = {"seq_lengths": np.array([5, 2, 4])}
FORWARDS = XS.swapaxes(0, 1)


def test_linens_rnn_has_its_own_parameters_outputs_and_gradients():
    theirs, ours = (rnn(nn.LSTMCell(H, param_dtype=float), **OF_RNN) for rnn in (nn.RNN, watch.linen.RNN))
    params = jax.jit(theirs.init)(jax.random.key(0), FORWARDS)

    def loss(params, model):
        return mean_square(model.apply(params, FORWARDS, **OF_CALL))

    value, grads, seen = jax.jit(lambda p: watch.value_and_grad(loss)(p, ours))(params)
    close((value, grads), jax.jit(lambda p: jax.value_and_grad(loss)(p, theirs))(params))
    assert (seen["RNN"].rms > 0).all() and seen["RNN"].each.shape == (T, B)
    close(*(jax.eval_shape(model.init, jax.random.key(0), FORWARDS) for model in (ours, theirs)))


class Deep(nn.Module):
    rnn: type

    @nn.compact
    def __call__(self, xs):
        cell = functools.partial(nn.SimpleCell, H, param_dtype=float)
        xs = self.rnn(cell())(xs)
        return nn.Bidirectional(self.rnn(cell()), self.rnn(cell(), name="back"))(xs)


def test_linens_rnns_of_a_model_are_read_by_their_paths():
    params = jax.jit(Deep(nn.RNN).init)(jax.random.key(0), XS)

    def loss(params, rnn):
        return mean_square(Deep(rnn).apply(params, XS))

    _, grads, seen = jax.jit(lambda p: watch.value_and_grad(loss)(p, watch.linen.RNN))(params)
    close(grads, jax.jit(lambda p: jax.grad(loss)(p, nn.RNN))(params))
    assert sorted(seen) == ["RNN_0", "RNN_1", "back"]


class Noisy(nnx.Module):
    """What an RNN stands beside: running statistics and random numbers, which a loss moves on."""

    def __init__(self, rnn, **options):
        rngs = nnx.Rngs(0)
        self.rnn = rnn(nnx.LSTMCell(D, H, param_dtype=float, rngs=rngs), **options)
        self.drop, self.mean = nnx.Dropout(0.5, rngs=rngs), nnx.BatchStat(jnp.zeros(H))

    def __call__(self, xs, **options):
        _, hs = self.rnn(xs, **options)
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * jnp.mean(hs, axis=(0, 1))
        return self.drop(hs)


def test_nnxs_rnn_has_its_own_state_outputs_and_gradients():
    theirs, ours = (Noisy(rnn, **OF_RNN) for rnn in (nnx.RNN, watch.nnx.RNN))

    def loss(model):
        return mean_square(model(FORWARDS, **OF_CALL))

    value, grads, seen = nnx.jit(watch.nnx.value_and_grad(loss))(ours)
    close((value, grads), nnx.jit(nnx.value_and_grad(loss))(theirs))
    assert seen["rnn"].each.shape == (T, B)
    left = (nnx.state(model, nnx.Not(nnx.RngKey)) for model in (ours, theirs))
    close(*left)


def test_nnxs_frozen_parameters_have_no_gradient_and_change_no_reading():
    def loss(model):
        return mean_square(model(FORWARDS, **OF_CALL))

    some = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("hi")))
    theirs, ours, all_of_it = (Noisy(rnn, **OF_RNN) for rnn in (nnx.RNN, watch.nnx.RNN, watch.nnx.RNN))
    value, grads, seen = nnx.jit(watch.nnx.value_and_grad(loss, wrt=some))(ours)
    close((value, grads), nnx.jit(nnx.value_and_grad(loss, argnums=nnx.DiffState(0, some)))(theirs))
    _, more, same = nnx.jit(watch.nnx.value_and_grad(loss))(all_of_it)
    assert 0 < len(jax.tree.leaves(grads)) < len(jax.tree.leaves(more))
    close(seen["rnn"].each, same["rnn"].each)


class Sequence(eqx.Module):
    cell: eqx.nn.LSTMCell

    def __call__(self, xs, scan):
        def f(carry, x):
            new = self.cell(x, carry)
            return new, new[1]

        return scan(f, (jnp.zeros(H), jnp.zeros(H)), xs)[1]


@pytest.mark.slow
def test_equinoxs_models_of_one_example_are_watched_within_vmap():
    model = Sequence(eqx.nn.LSTMCell(D, H, dtype=float, key=jax.random.key(0)))

    def loss(model, scan):
        return jnp.mean(jax.vmap(lambda xs: model(xs, scan))(XS) ** 2)

    scan = functools.partial(watch.scan, batch=None)
    value, grads, seen = eqx.filter_jit(lambda m: watch.value_and_grad(loss)(m, scan))(model)
    close((value, grads), eqx.filter_jit(lambda m: eqx.filter_value_and_grad(loss)(m, jax.lax.scan))(model))

    def step(cell, carry, x):
        return jax.vmap(cell)(x, carry), None

    close(seen["scan"].each, norms(step, model.cell, (jnp.zeros((B, H)),) * 2, FORWARDS))


@pytest.mark.slow
def test_equinoxs_leaves_that_are_no_arrays_are_split_off():
    class Net(eqx.Module):
        cell: eqx.nn.GRUCell
        out: eqx.nn.MLP

        def __call__(self, xs, scan):
            return self.out(scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(H), xs)[0])

    keys = jax.random.split(jax.random.key(0))
    model = Net(eqx.nn.GRUCell(D, H, dtype=float, key=keys[0]), eqx.nn.MLP(H, 1, 3, 1, dtype=float, key=keys[1]))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, scan):
        net = eqx.combine(params, static)
        return jnp.mean(jax.vmap(lambda xs: net(xs, scan))(XS) ** 2)

    with pytest.raises(ConfigError, match=r"argument 0 has at '.out.activation' .*; its leaves must be arrays"):
        watch.value_and_grad(loss)(model, functools.partial(watch.scan, batch=None))
    scans = functools.partial(watch.scan, batch=None), jax.lax.scan
    value, grads, seen = jax.jit(lambda p: watch.value_and_grad(loss)(p, scans[0]))(params)
    close((value, grads), jax.jit(lambda p: jax.value_and_grad(loss)(p, scans[1]))(params))
    assert seen["scan"].each.shape == (T, B)


@pytest.mark.slow
def test_haikus_cells_are_watched_within_transform():
    def forward(xs, scan):
        core = hk.VanillaRNN(H)
        state = core.initial_state(B).astype(xs.dtype)
        if hk.running_init():
            core(xs[0], state)
        return jnp.mean(scan(lambda state, x: core(x, state)[::-1], state, xs)[1] ** 2)

    model = hk.without_apply_rng(hk.transform(forward))
    xs = jnp.asarray(FORWARDS, jnp.float32)
    params = jax.jit(model.init, static_argnums=2)(jax.random.key(0), xs, jax.lax.scan)
    value, grads, seen = jax.jit(lambda p: watch.value_and_grad(model.apply)(p, xs, watch.scan))(params)
    close((value, grads), jax.jit(lambda p: jax.value_and_grad(model.apply)(p, xs, jax.lax.scan))(params))
    assert (seen["scan"].rms > 0).all()


def test_a_step_from_elsewhere_is_probed():
    cell = eqx.nn.LSTMCell(D, H, dtype=float, key=jax.random.key(0))
    xs, rest = jnp.asarray(XS[0]), (jnp.ones(H), jnp.zeros(H))
    f = lambda carry, x: (cell(x, carry), None)  # noqa: E731
    of = watch.probed(f, rest, xs, batch=None)
    jacobians = jax.jit(lambda carry, xs: step_jacobians(of[0], of[1], carry, xs))(*of[2:])

    def known(carry, x):
        flat = lambda state: jnp.concatenate(f((state[:H], state[H:]), x)[0])  # noqa: E731
        return f(carry, x)[0], jax.jacobian(flat)(jnp.concatenate(carry))

    expected = jax.jit(lambda: jax.lax.scan(known, rest, xs)[1])()
    close(jacobians[:, 0], expected, 1e-10)
    key = jax.random.key(0)
    exponents = jax.jit(lambda carry, xs: lyapunov_spectrum(of[0], of[1], carry, xs, key).exponents)(*of[2:])
    close(np.sum(exponents), np.mean(np.linalg.slogdet(expected)[1]), 1e-10)


class Layers(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        return watch.linen.RNN(nn.SimpleCell(H, param_dtype=float), label="layer")(h), None


def layers_in_a_loop():
    loop = nn.scan(Layers, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)()
    h = jnp.zeros((B, T, H))
    return watch.value_and_grad(lambda p: mean_square(loop.apply(p, h, None)[0]))(loop.init(jax.random.key(0), h, None))


REFUSED = {
    "name is 'layer', of .* as in nn.scan of Flax; .* a loop of Python": layers_in_a_loop,
    "init has .*int": lambda: watch.probed(lambda n, x: (n, None), jnp.zeros(B, int), FORWARDS),
    "init has .*float": lambda: watch.probed(lambda h, x: (h, None), jnp.zeros((B + 1, H)), FORWARDS),
    "xs is a NoneType": lambda: watch.probed(lambda h, x: (h, None), jnp.zeros((B, H)), None),
    "batch is 1": lambda: watch.probed(lambda h, x: (h, None), jnp.zeros((B, H)), FORWARDS, batch=1),
    "split_rngs of": lambda: watch.value_and_grad(
        lambda p: mean_square(watch.linen.RNN(nn.SimpleCell(H), split_rngs={"params": True}).apply(p, XS))
    )({"params": {}}),
    "state_axes or": lambda: watch.nnx.value_and_grad(lambda m: mean_square(m(XS)))(
        watch.nnx.RNN(nnx.SimpleCell(D, H, rngs=nnx.Rngs(0)), broadcast_rngs="dropout")
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_has_no_meaning_is_said_in_one_sentence(sentence):
    with pytest.raises(ConfigError, match=sentence):
        REFUSED[sentence]()
