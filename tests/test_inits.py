"""Laws of `seqdyn.nets.inits`: every initialisation has the spectrum, bounds or moments its paper gives it."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.nets.cells import gru, gru_reset_before, lstm, rnn
from seqdyn.nets.inits import INITS, blocks, chrono, constant, gelfand_radius

F32, F64 = jnp.float32, jnp.float64
every_init = pytest.mark.parametrize("name", INITS)


@cache
def sparse(shape, dtype):
    """Compiled, for it scans; one program for every gain and seed."""
    return compiled(lambda gain, key: INITS["sparse"](gain)(key, shape, dtype))


def draw(name, gain, shape, seed=0, dtype=F64):
    key = jax.random.key(seed)
    w = sparse(shape, dtype)(dtype(gain), key) if name == "sparse" else INITS[name](gain)(key, shape, dtype)
    assert w.dtype == dtype and w.shape == shape
    return np.asarray(w, np.float64)


def bias(init, shape):
    return np.asarray(init(jax.random.key(0), shape, F64))


def radius(w):
    return np.abs(np.linalg.eigvals(w)).max()


# --- weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.5, 3.0])
@pytest.mark.parametrize("shape", [(6, 6), (6, 24), (7, 3)], ids=str)
def test_orthogonal_has_all_singular_values_at_the_gain(shape, gain):
    w = draw("orthogonal", gain, shape)
    small = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(small, gain**2 * np.eye(min(shape)), atol=1e-12)


def test_orthogonal_is_drawn_and_not_the_identity():
    a, b = (draw("orthogonal", 1.0, (6, 6), seed) for seed in (0, 1))
    assert not np.allclose(a, b) and not np.allclose(a, np.diag(np.diag(a)))


def test_gaussian_has_variance_gain_squared_over_fan_in_and_its_radius_near_the_gain():
    w = draw("gaussian", 1.5, (400, 400))
    np.testing.assert_allclose(w.var(), 1.5**2 / 400, rtol=0.02)
    np.testing.assert_allclose(radius(w), 1.5, rtol=0.06)
    np.testing.assert_allclose(np.mean(w**4) / np.mean(w**2) ** 2, 3, rtol=0.05)  # not uniform, not truncated
    np.testing.assert_allclose(draw("gaussian", 0.5, (100, 2000)).var(), 0.5**2 / 100, rtol=0.02)


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(30, 90), (90, 30)], ids=str)
def test_glorot_uniform_fills_its_bounds(shape, gain):
    w = draw("glorot_uniform", gain, shape)
    bound = gain * np.sqrt(6 / sum(shape))
    assert 0.99 * bound < np.abs(w).max() <= bound and abs(w.mean()) < 0.05 * bound
    np.testing.assert_allclose(w.var(), bound**2 / 3, rtol=0.05)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_glorot_normal_has_its_variance_and_is_truncated(gain):
    w = draw("glorot_normal", gain, (100, 300))
    variance = gain**2 * 2 / 400
    np.testing.assert_allclose(w.var(), variance, rtol=0.03)
    assert 2 * np.sqrt(variance) < np.abs(w).max() < 2.3 * np.sqrt(variance)


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_uniform_fills_bounds_of_the_fan_in_alone(gain):
    for shape in ((25, 400), (400, 25)):
        w = draw("uniform", gain, shape)
        bound = gain / np.sqrt(shape[0])
        assert 0.99 * bound < np.abs(w).max() <= bound and abs(w.mean()) < 0.05 * bound
        np.testing.assert_allclose(w.var(), bound**2 / 3, rtol=0.05)


@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_identity_is_exactly_the_gain_on_the_diagonal(gain):
    np.testing.assert_array_equal(draw("identity", gain, (5, 5), dtype=F32), np.float32(gain) * np.eye(5))
    np.testing.assert_array_equal(draw("identity", gain, (2, 5)), gain * np.eye(2, 5))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gain", [0.95, 1.4])
def test_sparse_has_fifteen_inputs_per_unit_and_its_radius_at_the_gain(seed, gain):
    w = draw("sparse", gain, (40, 40), seed, F32)
    np.testing.assert_array_equal((w != 0).sum(axis=0), np.full(40, 15))
    assert len(set((w != 0).sum(axis=1))) > 1  # the inputs are drawn, not a band
    np.testing.assert_allclose(radius(w), gain, rtol=1e-2)


@pytest.mark.parametrize("hidden", [1, 9])
def test_sparse_is_dense_where_there_are_fewer_than_fifteen_inputs(hidden):
    w = draw("sparse", 0.5, (hidden, hidden), dtype=F32)
    assert np.all(w != 0)
    np.testing.assert_allclose(radius(w), 0.5, rtol=1e-2)


@pytest.mark.parametrize("inputs", [3, 60])
def test_sparse_input_weights_have_unit_variance_per_unit(inputs):
    w = draw("sparse", 2.0, (inputs, 4000))
    np.testing.assert_array_equal((w != 0).sum(axis=0), np.full(4000, min(inputs, 15)))
    np.testing.assert_allclose(np.mean(np.sum(w**2, axis=0)), 4, rtol=0.05)


radii = compiled(jax.vmap(gelfand_radius))


def test_gelfand_radius_equals_the_eigenvalues():
    ws = np.random.default_rng(0).normal(size=(6, 8, 8)) * np.logspace(-6, 6, 6)[:, None, None]
    np.testing.assert_allclose(radii(jnp.asarray(ws)), [radius(w) for w in ws], rtol=1e-3)


def test_gelfand_radius_of_a_rotation_and_of_a_far_from_normal_matrix():
    rotation = 3.0 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    jordan = np.array([[0.5, 100.0], [0.0, 0.5]])  # the largest singular value is 100
    np.testing.assert_allclose(radii(jnp.asarray([rotation, jordan])), [3.0, 0.5], rtol=5e-3)


# --- gain ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    """Every initialisation at traced gains 1 and ½, another seed, and with its gain as a number or left out."""

    def every(gain, key):
        return {name: make(gain)(key, (20, 20), F32) for name, make in INITS.items()}

    traced = compiled(every)
    one, half, other = (traced(jnp.float32(g), jax.random.key(seed)) for g, seed in ((1, 3), (0.5, 3), (1, 4)))
    assert traced._cache_size() == 1
    untraced = compiled(lambda key: (every(0.5, key), {name: make()(key, (20, 20)) for name, make in INITS.items()}))
    return {"one": one, "half": half, "other": other} | dict(
        zip(("number", "default"), untraced(jax.random.key(3)), strict=True)
    )


@every_init
def test_a_traced_gain_equals_a_number_and_is_one_by_default(name, drawn):
    w = {how: ws[name] for how, ws in drawn.items()}
    np.testing.assert_array_equal(w["half"], np.float32(0.5) * w["one"])
    np.testing.assert_allclose(w["number"], w["half"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(w["default"], w["one"], rtol=1e-6, atol=1e-7)
    assert w["default"].dtype == F32


@every_init
def test_other_keys_give_other_draws(name, drawn):
    assert np.array_equal(drawn["one"][name], drawn["other"][name]) == (name == "identity")


# --- biases -------------------------------------------------------------------------------------------------


def test_constant_bias_is_that_constant_traced_or_not():
    np.testing.assert_array_equal(bias(constant(1.5), (4,)), np.full(4, 1.5))
    traced = compiled(lambda v: constant(v)(jax.random.key(0), (4,), F32))(jnp.float32(-2.0))
    np.testing.assert_array_equal(traced, np.full(4, -2.0))


@pytest.mark.parametrize("longest", [10.0, 750.0])
def test_chrono_biases_are_logs_of_uniform_time_constants(longest):
    b = bias(chrono(longest), (4000,))
    times = np.exp(b)
    assert 1 <= times.min() < 1 + 0.01 * longest and 0.99 * (longest - 1) < times.max() <= (longest - 1) * (1 + 1e-12)
    np.testing.assert_allclose(times.mean(), longest / 2, rtol=0.03)
    np.testing.assert_allclose(times.var(), (longest - 2) ** 2 / 12, rtol=0.06)


def test_chrono_lstm_has_opposite_input_and_forget_biases_and_others_zero():
    cell = lstm(2, 50, u=constant(0.0), longest=100.0)
    i, f, o, g = np.split(np.asarray(cell.init(jax.random.key(0)).b), 4)
    np.testing.assert_array_equal(i, -f)
    assert 0 <= f.min() and np.log(50) < f.max() <= np.log(99) + 1e-6 and len(set(f.tolist())) == 50
    assert not o.any() and not g.any()


def test_chrono_gru_keeps_its_old_state_by_a_positive_update_bias():
    zero = constant(0.0)
    cell = gru(2, 50, u=constant(0.0), b={"r": zero, "z": chrono(100.0), "n": zero})
    params = cell.init(jax.random.key(0))
    r, z, n = np.split(np.asarray(params.b), 3)
    assert 0 <= z.min() and np.log(50) < z.max() <= np.log(99) + 1e-6
    assert not r.any() and not n.any() and not np.asarray(params.bn).any()


def test_forget_bias_is_one_and_the_others_zero_by_default():
    i, f, o, g = np.split(np.asarray(lstm(2, 5, u=constant(0.0)).init(jax.random.key(0)).b), 4)
    np.testing.assert_array_equal(f, np.ones(5))
    assert not i.any() and not o.any() and not g.any()


# --- gates --------------------------------------------------------------------------------------------------

CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_reset_before": gru_reset_before}


@pytest.mark.parametrize("name", CELLS)
def test_each_gates_recurrent_block_is_orthogonal_on_its_own(name):
    cell = CELLS[name](3, 6, dtype=F64)
    u = np.asarray(cell.init(jax.random.key(0)).u)
    blocks = np.split(u, len(cell.gates), axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(6), atol=1e-12)
    for a, b in zip(blocks, blocks[1:], strict=False):
        assert not np.allclose(a, b)


def test_blocks_cut_from_one_orthogonal_draw_would_not_be_orthogonal():
    for block in np.split(draw("orthogonal", 1.0, (6, 24)), 4, axis=1):
        assert np.abs(block.T @ block - np.eye(6)).max() > 0.3


def test_each_gates_input_block_has_the_fan_out_of_one_gate():
    w = np.asarray(lstm(2, 64, u=constant(0.0)).init(jax.random.key(0)).w)
    bound = np.sqrt(6 / (2 + 64))
    assert 0.95 * bound < np.abs(w).max() <= bound


@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before"])
def test_a_mapping_gives_each_gate_its_own_initialiser(name):
    make = CELLS[name]
    gates = make(2, 3).gates
    by_gate = {g: constant(float(n)) for n, g in enumerate(gates)}
    params = make(2, 3, w=by_gate, u=by_gate, b=by_gate).init(jax.random.key(0))
    expected = np.repeat(np.arange(len(gates)), 3)
    np.testing.assert_array_equal(params.b, expected)
    np.testing.assert_array_equal(params.w, np.tile(expected, (2, 1)))
    np.testing.assert_array_equal(params.u, np.tile(expected, (3, 1)))


def test_weights_recurrence_and_biases_come_from_different_keys():
    same = partial(INITS["uniform"], 1.0)()
    params = rnn(4, 4, w=same, u=same, b={"h": lambda k, s, d: same(k, (4, 4), d)[0]}).init(jax.random.key(0))
    assert not np.array_equal(params.w, params.u)
    assert not np.array_equal(params.w[0], params.b) and not np.array_equal(params.u[0], params.b)


def test_chrono_changes_only_the_biases():
    plain, timed = (lstm(2, 4, longest=t).init(jax.random.key(0)) for t in (None, 50.0))
    assert not np.array_equal(timed.b, plain.b)
    np.testing.assert_array_equal(timed.w, plain.w)
    np.testing.assert_array_equal(timed.u, plain.u)


@pytest.mark.parametrize("name", ["glorot_uniform", "orthogonal"])
def test_gates_that_a_trace_draws_in_a_loop_are_those_drawn_one_by_one(name):
    by, key, gates = INITS[name](0.7), jax.random.key(3), ("r", "z", "n")
    alone = np.concatenate([by(k, (4, 5), jnp.float64) for k in jax.random.split(key, 3)], axis=-1)
    traced = jax.jit(lambda key: blocks(key, gates, (4, 5), by, jnp.float64))(key)
    np.testing.assert_allclose(traced, alone, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(blocks(key, gates, (4, 5), by, jnp.float64), alone, rtol=1e-12, atol=1e-14)
