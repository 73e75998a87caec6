"""Laws of `seqdyn.measure.lyapunov`: linear systems, random matrices, determinants, and a second trajectory."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn import theory
from seqdyn.backend import compiled, each
from seqdyn.data.tasks import Batch
from seqdyn.learn import model, train
from seqdyn.learn.config import Hypers, Spec
from seqdyn.measure import lyapunov
from seqdyn.measure.jacobians import step_jacobians
from seqdyn.measure.lyapunov import kaplan_yorke, lyapunov_spectrum, over_inputs, qr_exponents, two_trajectories
from seqdyn.measure.view import View
from seqdyn.nets.bptt import live_steps
from seqdyn.nets.cells import lstm, rnn
from seqdyn.nets.inits import constant, gaussian, orthogonal

OPTIMISED = True
KEY = jax.random.key(0)
ROOT = Path(__file__).parents[1]


def driven(cell, steps, batch=(), seed=0, scale=1.0):
    params = cell.init(jax.random.key(seed))
    xs = scale * jax.random.normal(jax.random.key(seed + 1), (steps, *batch, params.w.shape[0]), params.w.dtype)
    return params, cell.rest(batch), xs


def spectrum(cell, params, carry, xs, **options):
    return compiled(partial(lyapunov_spectrum, cell, key=KEY, **options))(params, carry, xs)


def test_exponents_of_a_linear_rnn_are_the_logs_of_the_moduli_of_its_eigenvalues():
    u = np.random.default_rng(0).standard_normal((5, 5)) / 5**0.5
    moduli = np.sort(np.abs(np.linalg.eigvals(u)))[::-1]
    cell = rnn(1, 5, "identity", dtype=jnp.float64)
    params, carry, xs = driven(cell, 6000)
    got = spectrum(cell, params._replace(u=jnp.asarray(u)), carry, xs * 0, burn=2000).exponents
    together = np.flatnonzero(np.abs(np.diff(moduli)) < 1e-9)  # a pair's two exponents trade places along the way
    expected, got = np.log(moduli), np.sort(np.asarray(got))[::-1].copy()
    for i in together:
        got[i : i + 2] = got[i : i + 2].mean()
    assert len(together) > 0
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("gain", [0.7, 1.3])
def test_all_exponents_of_g_times_an_orthogonal_matrix_are_log_g(gain):
    cell = rnn(1, 6, "identity", u=orthogonal(gain))
    found = spectrum(cell, *driven(cell, 50))
    np.testing.assert_allclose(found.exponents, np.log(gain), atol=1e-5)
    np.testing.assert_allclose(found.errors, 0, atol=1e-5)


def test_exponents_of_gaussian_products_are_newmans_and_their_errors_cover_them():
    n = 6
    steps = jax.random.normal(KEY, (4000, n, n), jnp.float64) / n**0.5
    found = compiled(partial(qr_exponents, key=KEY, burn=20))(steps)
    apart = np.asarray(found.exponents) - theory.gaussian_product_exponents(n)
    assert np.all(np.abs(apart) < 4 * np.asarray(found.errors)) and np.all(np.asarray(found.errors) < 0.03)
    logdet = np.linalg.slogdet(np.asarray(steps[20:]))[1].mean()
    np.testing.assert_allclose(np.sum(found.exponents), logdet, rtol=1e-9)


def test_the_frame_is_carried_forward_in_time():
    """Two matrices that do not commute, in turn: in the other order of each pair the exponents would be the same, so
    the law is about a finite product: R's growth is that of the product of the first steps, not the last."""
    steps = jax.random.normal(KEY, (7, 3, 3), jnp.float64)
    found = compiled(partial(qr_exponents, key=KEY))(steps)
    frame = np.linalg.qr(jax.random.normal(KEY, (3, 3), jnp.float64))[0]
    for t, j in enumerate(np.asarray(steps)):
        frame, r = np.linalg.qr(j @ frame)
        np.testing.assert_allclose(found.local[t], np.log(np.abs(np.diag(r))), rtol=1e-8)


def test_the_whole_state_of_an_lstm_has_2h_exponents_whose_sum_is_the_mean_log_determinant():
    cell = lstm(2, 3, dtype=jnp.float64)
    params, carry, xs = driven(cell, 60)
    found = spectrum(cell, params, carry, xs)
    assert found.exponents.shape == (6,)
    steps = compiled(partial(step_jacobians, cell))(params, carry, xs)
    np.testing.assert_allclose(np.sum(found.exponents), np.linalg.slogdet(np.asarray(steps))[1].mean(), rtol=1e-8)
    top = spectrum(cell, params, carry, xs, k=2)
    np.testing.assert_allclose(top.exponents[0], found.exponents[0], atol=0.05)


def test_an_lstm_without_recurrence_has_the_rates_of_its_forget_gate():
    """With U = 0 and W = 0, c decays by σ(b_f) a step and h passes nothing on: log σ(b_f), and nothing but rounding."""
    zero = constant(0.0)
    bias = {"i": zero, "f": constant(2.0), "o": zero, "g": zero}
    cell = lstm(1, 3, w=zero, u=zero, b=bias, dtype=jnp.float64)
    found = spectrum(cell, *driven(cell, 30), burn=2)  # at first the tangents point along h, too
    np.testing.assert_allclose(found.exponents[:3], np.log(1 / (1 + np.exp(-2.0))), rtol=1e-9)
    assert np.all(np.asarray(found.exponents[3:]) < -30)


def test_a_second_trajectory_parts_at_the_rate_of_the_largest_exponent():
    cell = rnn(1, 40, "tanh", u=gaussian(2.5), dtype=jnp.float64)
    params, carry, xs = driven(cell, 1500, scale=0.1)
    largest = spectrum(cell, params, carry, xs, k=1, burn=100)
    assert float(largest.exponents[0]) > 0.1  # chaotic
    two = compiled(partial(two_trajectories, cell, key=KEY, burn=100))(params, carry, xs)
    np.testing.assert_allclose(two, largest.exponents[0], atol=0.01)


@pytest.mark.parametrize("t", [3, 9])
def test_errors_are_those_of_single_steps_where_there_are_fewer_than_blocks(t):
    steps = jax.random.normal(KEY, (t, 3, 3), jnp.float64)
    found = compiled(partial(qr_exponents, key=KEY, burn=1))(steps)
    expected = np.asarray(found.local)[1:].std(axis=0, ddof=1) / (t - 1) ** 0.5
    np.testing.assert_allclose(found.errors, expected, rtol=1e-9)
    assert np.isnan(compiled(partial(qr_exponents, key=KEY, burn=t - 1))(steps).errors).all()


def test_padding_is_neither_walked_nor_counted():
    cell, lengths = lstm(2, 2, dtype=jnp.float64), [30, 12]
    params, carry, xs = driven(cell, 30, (2,))
    padded = compiled(lambda p, c, x, live: lyapunov_spectrum(cell, p, c, x, KEY, live=live))(
        params, carry, xs, live_steps(jnp.asarray(lengths), 30, "before")
    )
    whole = spectrum(cell, params, carry, xs[18:])  # the frame is drawn for the whole batch
    np.testing.assert_allclose(padded.exponents[1], whole.exponents[1], rtol=1e-9)
    np.testing.assert_array_equal(padded.local[:18, 1], 0)


def test_a_dead_direction_is_minus_infinity_and_a_state_that_is_not_finite_is_nan():
    cell = rnn(1, 3, "relu", b=constant(-100.0))
    found = spectrum(cell, *driven(cell, 20))
    assert np.isneginf(found.exponents).all() and np.isnan(found.errors).all()
    params, carry, xs = driven(cell, 20)
    assert np.isnan(spectrum(cell, params._replace(b=params.b * jnp.nan), carry, xs).exponents).all()


@pytest.mark.parametrize(
    "exponents, dimension",
    [([0.9, 0.0, -14.5], 2 + 0.9 / 14.5), ([-0.1, -0.2], 0), ([0.3, 0.1], 2), ([0.5, -0.2, -0.6], 2 + 0.3 / 0.6)],
)
def test_kaplan_yorke_dimension_by_hand(exponents, dimension):
    """The first row is the Lorenz attractor's, 2.06 (Sprott 2003)."""
    np.testing.assert_allclose(kaplan_yorke(jnp.asarray(exponents)), dimension, rtol=1e-9)


def test_kaplan_yorke_is_unknown_where_too_few_exponents_are_known():
    assert np.isnan(kaplan_yorke(jnp.asarray([0.3, 0.1]), n=5))
    np.testing.assert_allclose(kaplan_yorke(jnp.asarray([0.3, -0.6]), n=5), 1.5)


def test_errors_over_inputs_are_standard_errors_of_the_mean():
    values = np.random.default_rng(0).standard_normal((7, 3))
    mean, error = over_inputs(jnp.asarray(values))
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(error, values.std(axis=0, ddof=1) / 7**0.5)


def test_the_probe_averages_over_examples_each_without_its_own_first_tenth():
    lengths, modes, t, n = [30, 12], 7, 30, 6
    live = live_steps(jnp.asarray(lengths), t, "after")
    ids = jnp.asarray(np.where(live, np.random.default_rng(0).integers(1, 9, live.shape), 0), jnp.int32)
    spec = Spec(task="labelled", vocabulary=9, embedding=2, hidden=(3,), cell="lstm", steps=t, batch=2)

    def look(hypers):
        state, view = train.init(spec, hypers), View(Batch(ids, jnp.zeros(2), live), None, modes)
        (layer,) = model.per_layer(spec, hypers, state.params, view.batch)
        return lyapunov.look(spec, hypers, state, view), layer[1:]

    with jax.enable_x64(False):  # training is float32
        hypers = Hypers(gain=1.5).arrays()
        looked, layer = compiled(look)(hypers)
        got = {name: value[0] for name, value in looked.items()}  # of the only layer
        alone = [spectrum(model.layers(spec, hypers)[0], *layer[:2], layer[2][:own], burn=own // 10) for own in lengths]
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
    many = jax.random.normal(KEY, (2, 3, 5, 4), jnp.float64)
    for ours, theirs in zip(compiled(partial(each, jnp.linalg.qr))(many), np.linalg.qr(many), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
