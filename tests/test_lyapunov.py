"""Laws of `seqdyn.measure.lyapunov`: linear systems, random matrices, determinants, and a second trajectory."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _programs import optimised, program
from _training import having

from seqdyn import theory
from seqdyn.backend import compiled, map_matrices
from seqdyn.data.tasks import Batch
from seqdyn.learn import model, train
from seqdyn.learn.config import Spec
from seqdyn.measure import lyapunov
from seqdyn.measure.jacobians import step_jacobians
from seqdyn.measure.lyapunov import kaplan_yorke, lyapunov_spectrum, over_inputs, qr_exponents, two_trajectories
from seqdyn.measure.view import View
from seqdyn.nets.bptt import valid_steps
from seqdyn.nets.cells import lstm, rnn
from seqdyn.numbers import Numbers

KEY = jax.random.key(0)
ROOT = Path(__file__).parents[1]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def driven(cell, steps, batch=(), scale=1.0, **changes):
    """Parameters, but for `changes`, and inputs that NumPy draws, and the carry at rest."""
    like = jax.eval_shape(cell.init, KEY)
    params = jax.tree.map(lambda leaf: (0.6 * normal(*leaf.shape, seed=leaf.size)).astype(leaf.dtype), like)
    changes = {name: np.asarray(value, like.u.dtype) for name, value in changes.items()}
    xs = (scale * normal(steps, *batch, like.w.shape[0], seed=1)).astype(like.w.dtype)
    carry = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(lambda: cell.initial_carry(batch))
    )
    return params._replace(**changes), carry, xs


def spectrum(cell, params, carry, xs, **options):
    return program(partial(lyapunov_spectrum, cell, key=KEY, **options))(params, carry, xs)


@optimised()
def test_exponents_of_a_linear_rnn_are_the_logs_of_the_moduli_of_its_eigenvalues():
    u = np.random.default_rng(0).standard_normal((5, 5)) / 5**0.5
    moduli = np.sort(np.abs(np.linalg.eigvals(u)))[::-1]
    cell = rnn(1, 5, "identity", dtype=jnp.float64)
    got = spectrum(cell, *driven(cell, 6000, scale=0, b=np.zeros(5), u=u), burn=2000).exponents
    together = np.flatnonzero(np.abs(np.diff(moduli)) < 1e-9)  # a pair's two exponents trade places along the way
    expected, got = np.log(moduli), np.sort(np.asarray(got))[::-1].copy()
    for i in together:
        got[i : i + 2] = got[i : i + 2].mean()
    assert len(together) > 0
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_all_exponents_of_g_times_an_orthogonal_matrix_are_log_g():
    cell, q = rnn(1, 6, "identity"), np.linalg.qr(normal(6, 6))[0]
    found = program(partial(lyapunov_spectrum, cell, key=KEY))
    for gain in (0.7, 1.3):
        of = found(*driven(cell, 50, u=gain * q))
        np.testing.assert_allclose(of.exponents, np.log(gain), atol=1e-5)
        np.testing.assert_allclose(of.errors, 0, atol=1e-5)


def test_exponents_of_gaussian_products_are_newmans_and_their_errors_cover_them():
    n = 6
    steps = normal(4000, n, n) / n**0.5
    found = program(partial(qr_exponents, key=KEY, burn=20))(steps)
    apart = np.asarray(found.exponents) - theory.gaussian_product_exponents(n)
    assert np.all(np.abs(apart) < 4 * np.asarray(found.errors)) and np.all(np.asarray(found.errors) < 0.03)
    logdet = np.linalg.slogdet(steps[20:])[1].mean()
    np.testing.assert_allclose(np.sum(found.exponents), logdet, rtol=1e-9)


def test_the_frame_is_carried_forward_in_time():
    """Two matrices that do not commute, in turn: in the other order of each pair the exponents would be the same, so
    the law is about a finite product: R's growth is that of the product of the first steps, not the last."""
    steps = normal(7, 3, 3)
    found, first = program(lambda steps: (qr_exponents(steps, KEY), jax.random.normal(KEY, (3, 3), jnp.float64)))(steps)
    frame = np.linalg.qr(first)[0]
    for t, j in enumerate(steps):
        frame, r = np.linalg.qr(j @ frame)
        np.testing.assert_allclose(found.local[t], np.log(np.abs(np.diag(r))), rtol=1e-8)


@optimised()
def test_the_whole_state_of_an_lstm_has_2h_exponents_whose_sum_is_the_mean_log_determinant():
    cell = lstm(2, 3, dtype=jnp.float64)

    def looks(params, carry, xs):
        whole, top = (lyapunov_spectrum(cell, params, carry, xs, KEY, k=k) for k in (None, 2))
        return whole, top, step_jacobians(cell, params, carry, xs)

    found, top, steps = program(looks)(*driven(cell, 60))
    assert found.exponents.shape == (6,)
    np.testing.assert_allclose(np.sum(found.exponents), np.linalg.slogdet(steps)[1].mean(), rtol=1e-8)
    np.testing.assert_allclose(top.exponents[0], found.exponents[0], atol=0.05)


def test_an_lstm_without_recurrence_has_the_rates_of_its_forget_gate():
    """With U = 0 and W = 0, c decays by σ(b_f) a step and h passes nothing on: log σ(b_f), and nothing but rounding."""
    cell = lstm(1, 3, dtype=jnp.float64)
    bias = np.where(np.arange(12) // 3 == cell.gates.index("f"), 2.0, 0.0)
    given = driven(cell, 30, w=np.zeros((1, 12)), u=np.zeros((3, 12)), b=bias)
    found = spectrum(cell, *given, burn=2)  # at first the tangents point along h, too
    np.testing.assert_allclose(found.exponents[:3], np.log(1 / (1 + np.exp(-2.0))), rtol=1e-9)
    assert np.all(np.asarray(found.exponents[3:]) < -30)


def test_a_second_trajectory_parts_at_the_rate_of_the_largest_exponent():
    cell = rnn(1, 40, "tanh", dtype=jnp.float64)

    def both(params, carry, xs):
        largest = lyapunov_spectrum(cell, params, carry, xs, KEY, k=1, burn=100)
        return largest.exponents[0], two_trajectories(cell, params, carry, xs, key=KEY, burn=100)

    largest, two = program(both)(
        *driven(cell, 1500, scale=0.1, u=2.5 * normal(40, 40, seed=1) / 40**0.5, b=np.zeros(40))
    )
    assert largest > 0.1  # chaotic
    np.testing.assert_allclose(two, largest, atol=0.01)


@pytest.mark.parametrize("t", [3, 9])
def test_errors_are_those_of_single_steps_where_there_are_fewer_than_blocks(t):
    looks = program(lambda steps: [qr_exponents(steps, KEY, burn=burn) for burn in (1, t - 1)])
    found, last = looks(normal(t, 3, 3))
    expected = found.local[1:].std(axis=0, ddof=1) / (t - 1) ** 0.5
    np.testing.assert_allclose(found.errors, expected, rtol=1e-9)
    assert np.isnan(last.errors).all()


def test_padding_is_neither_walked_nor_counted():
    cell, lengths = lstm(2, 2, dtype=jnp.float64), [30, 12]

    def both(params, carry, xs):
        mask = valid_steps(jnp.asarray(lengths), 30, "before")
        padded = lyapunov_spectrum(cell, params, carry, xs, KEY, mask=mask)
        return padded, lyapunov_spectrum(cell, params, carry, xs[18:], KEY)  # the frame is drawn for the whole batch

    padded, whole = program(both)(*driven(cell, 30, (2,)))
    np.testing.assert_allclose(padded.exponents[1], whole.exponents[1], rtol=1e-9)
    np.testing.assert_array_equal(padded.local[:18, 1], 0)


def test_a_dead_direction_is_minus_infinity_and_a_state_that_is_not_finite_is_nan():
    cell = rnn(1, 3, "relu")
    look = program(partial(lyapunov_spectrum, cell, key=KEY))
    found = look(*driven(cell, 20, b=np.full(3, -100.0)))
    assert np.isneginf(found.exponents).all() and np.isnan(found.errors).all()
    assert np.isnan(look(*driven(cell, 20, b=np.full(3, np.nan))).exponents).all()


@pytest.mark.parametrize(
    "exponents, dimension",
    [([0.9, 0.0, -14.5], 2 + 0.9 / 14.5), ([-0.1, -0.2], 0), ([0.3, 0.1], 2), ([0.5, -0.2, -0.6], 2 + 0.3 / 0.6)],
)
def test_kaplan_yorke_dimension_by_hand(exponents, dimension):
    """The first row is the Lorenz attractor's, 2.06 (Sprott 2003)."""
    np.testing.assert_allclose(program(kaplan_yorke)(np.asarray(exponents)), dimension, rtol=1e-9)


def test_kaplan_yorke_is_unknown_where_too_few_exponents_are_known():
    dimension = program(partial(kaplan_yorke, n=5))
    assert np.isnan(dimension(np.asarray([0.3, 0.1])))
    np.testing.assert_allclose(dimension(np.asarray([0.3, -0.6])), 1.5)


def test_errors_over_inputs_are_standard_errors_of_the_mean():
    values = np.random.default_rng(0).standard_normal((7, 3))
    mean, error = program(over_inputs)(values)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(error, values.std(axis=0, ddof=1) / 7**0.5)


@pytest.mark.slow
def test_the_probe_averages_over_examples_each_without_its_own_first_tenth():
    lengths, modes, t, n = [30, 12], 7, 30, 6
    mask = valid_steps(jnp.asarray(lengths), t, "after")
    ids = jnp.asarray(np.where(mask, np.random.default_rng(0).integers(1, 9, mask.shape), 0), jnp.int32)
    spec = Spec(task="labelled", vocabulary=9, embedding=2, hidden=(3,), cell="lstm", steps=t, batch=2)

    def look(numbers):
        state, view = train.init(having(spec, numbers)), View(Batch(ids, jnp.zeros(2), mask), None, modes)
        (layer,) = model.per_layer(having(spec, numbers), state.params, view.batch)
        return lyapunov.measure(having(spec, numbers), state, view), layer[1:]

    with jax.enable_x64(False):  # training is float32
        numbers = Numbers(gain=1.5).arrays()
        looked, layer = compiled(look)(numbers)
        got = {name: value[0] for name, value in looked.items()}  # of the only layer
        alone = [
            spectrum(model.layers(having(spec, numbers))[0], *layer[:2], layer[2][:own], burn=own // 10)
            for own in lengths
        ]
    each = np.stack([found.exponents[b] for b, found in enumerate(alone)])
    np.testing.assert_allclose(got["lyapunov_exponent"][:n], each.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(got["lyapunov_error"][:n], np.abs(each[0] - each[1]) / 2, rtol=1e-3)
    assert np.isnan(got["lyapunov_exponent"][n:]).all() and got["kaplan_yorke"] == 0
    longer, shorter = (np.asarray(found.local)[:, b, 0] for b, found in enumerate(alone))
    expected = np.concatenate([longer[:18], (longer[18:] + shorter) / 2])
    np.testing.assert_allclose(got["local_exponent"], expected, rtol=1e-4, atol=1e-5)


TWO_DEVICES = """
import threading, jax
from seqdyn import backend
from seqdyn.measure.lyapunov import qr_exponents
devices = backend.start(2)
steps, key = jax.random.normal(jax.random.key(0), (60, 4, 80, 80)) / 9, jax.random.key(1)
look = backend.compiled(lambda steps: qr_exponents(steps, key).exponents)

def looking(device):
    given = jax.device_put(steps, device)
    for _ in range(20):
        look(given).block_until_ready()

threads = [threading.Thread(target=looking, args=(device,)) for device in devices]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(devices))
"""


@pytest.mark.slow
def test_two_devices_that_look_at_batches_at_once_do_not_wait_for_each_other():
    """In a process that is set up as for training: jaxlib's batched QR hangs there."""
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "2", done.stderr


def test_a_batch_that_is_factorised_one_by_one_has_the_factors_of_each():
    """Whatever the axes in front, and of a function of several results."""
    many = normal(2, 3, 5, 4)
    for ours, theirs in zip(program(partial(map_matrices, jnp.linalg.qr))(many), np.linalg.qr(many), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
