"""Laws of `seqdyn.measure.weights`: spectra against matrices whose spectra are known, and the probe's shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from _training import having, over

from seqdyn.backend import compiled
from seqdyn.data.tasks import Batch
from seqdyn.learn import train
from seqdyn.learn.config import Spec
from seqdyn.measure import weights
from seqdyn.measure.view import View
from seqdyn.numbers import Numbers

X64 = False
N = 6
SCALARS = ("spectral_radius", "largest_singular_value", "departure_from_normality", "orthogonality_distance")


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def orthogonal(n=N, seed=0):
    return scipy.linalg.qr(gaussian(n, n, seed=seed))[0]


def with_spectrum(moduli, seed=0):
    """S Λ S⁻¹ with real eigenvalues and a matrix S that is far from orthogonal: not normal."""
    s = gaussian(len(moduli), len(moduli), seed=seed)
    return s @ np.diag(moduli) @ np.linalg.inv(s)


# --- one block ----------------------------------------------------------------------------------------------


def test_eigenvalues_are_those_the_matrix_was_made_of_by_modulus():
    made = np.array([0.3, -2.0, 1.0, -0.1])
    np.testing.assert_allclose(weights.eigenvalues(with_spectrum(made)), [-2.0, 1.0, 0.3, -0.1], atol=1e-12)
    turn, r = 0.7, np.array([0.5, 1.5, 1.0])
    blocks = [r_ * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) for r_ in r]
    s = gaussian(6, 6)
    got = weights.eigenvalues(s @ scipy.linalg.block_diag(*blocks) @ np.linalg.inv(s))
    expected = [r_ * np.exp(1j * sign * turn) for r_ in (1.5, 1.0, 0.5) for sign in (1, -1)]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_the_eigenvalues_satisfy_the_characteristic_polynomial_of_a_random_matrix():
    u = gaussian(N, N)
    got = weights.eigenvalues(u)
    for value in got:
        assert np.linalg.svd(u - value * np.eye(N), compute_uv=False)[-1] < 1e-12
    np.testing.assert_allclose([got.sum(), np.prod(got)], [np.trace(u), np.linalg.det(u)], atol=1e-11)
    assert (np.diff(np.abs(got)) <= 0).all() and np.iscomplexobj(got) and (got.imag != 0).any()


def test_singular_values_are_those_the_matrix_was_made_of_descending():
    made = np.array([0.2, 3.0, 1.0, 0.0, 0.5, 2.0])
    got = weights.singular_values(orthogonal(seed=1) @ np.diag(made) @ orthogonal(seed=2))
    np.testing.assert_allclose(got, [3.0, 2.0, 1.0, 0.5, 0.2, 0.0], atol=1e-12)


def test_the_spectral_radius_is_not_the_largest_singular_value():
    u = np.array([[0.5, 10.0], [0.0, 0.4]])
    np.testing.assert_allclose(weights.spectral_radius(u), 0.5, rtol=1e-12)
    x = np.stack([np.cos(a := np.linspace(0, np.pi, 100_001)), np.sin(a)], axis=-1)
    np.testing.assert_allclose(weights.largest_singular_value(u), np.linalg.norm(x @ u, axis=-1).max(), rtol=1e-8)
    assert weights.largest_singular_value(u) > 20 * weights.spectral_radius(u)


def test_the_spectral_radius_is_the_growth_of_the_powers():
    u = gaussian(N, N)
    grown = scipy.linalg.norm(np.linalg.matrix_power(u / weights.spectral_radius(u), 4000)) ** (1 / 4000)
    np.testing.assert_allclose(grown, 1.0, rtol=2e-3)


@pytest.mark.parametrize("normal", ["symmetric", "antisymmetric", "orthogonal", "circulant"])
def test_a_normal_matrix_does_not_depart_from_normality(normal):
    a = gaussian(N, N)
    u = {"symmetric": a + a.T, "antisymmetric": a - a.T, "orthogonal": 0.7 * orthogonal()}
    u["circulant"] = scipy.linalg.circulant(a[0])
    assert weights.departure_from_normality(u[normal]) < 1e-7
    np.testing.assert_allclose(weights.spectral_radius(u[normal]), weights.largest_singular_value(u[normal]))


def test_departure_from_normality_is_the_strict_upper_part_of_the_schur_form():
    jordan = 0.5 * np.eye(N) + np.eye(N, k=1)
    expected = np.sqrt((N - 1) / (N - 1 + N * 0.25))
    turned = orthogonal() @ jordan @ orthogonal().T
    np.testing.assert_allclose(weights.departure_from_normality(np.stack([jordan, turned])), expected, rtol=1e-5)
    np.testing.assert_allclose(weights.departure_from_normality(np.eye(N, k=1)), 1.0)
    u = gaussian(N, N)
    schur = scipy.linalg.schur(u, output="complex")[0]
    expected = np.linalg.norm(np.triu(schur, 1)) / np.linalg.norm(u)
    np.testing.assert_allclose(weights.departure_from_normality(3.0 * u), expected)
    assert weights.departure_from_normality(np.zeros((3, 3))) == 0


def test_orthogonality_distance_is_what_its_formula_says():
    q = orthogonal()
    assert weights.orthogonality_distance(q) < 1e-14
    for g in (0.3, 1.4):
        np.testing.assert_allclose(weights.orthogonality_distance(g * q), abs(g * g - 1))
    u = gaussian(N, N)
    expected = np.linalg.norm(u.T @ u - np.eye(N)) / np.sqrt(N)
    np.testing.assert_allclose(weights.orthogonality_distance(u), expected)


@pytest.mark.parametrize("name", [*SCALARS, "eigenvalues", "singular_values"])
def test_leading_axes_are_blocks_and_one_that_is_not_finite_is_nan_alone(name):
    measure = getattr(weights, name)
    u = gaussian(2, 3, N, N)
    u[0, 1, 2, 3], u[1, 2, 0, 0] = np.inf, np.nan
    got = measure(u)
    for i in np.ndindex(2, 3):
        if i in [(0, 1), (1, 2)]:
            assert np.isnan(got[i]).all()
        else:
            np.testing.assert_allclose(got[i], measure(u[i]), rtol=1e-12, atol=1e-12)
    assert np.isnan(measure(jnp.full((2, 2), jnp.nan))).all()


def test_float32_blocks_are_measured_in_float64():
    u = jnp.asarray(with_spectrum([1.0, 0.999, 0.5]), jnp.float32)
    np.testing.assert_array_equal(weights.eigenvalues(u), weights.eigenvalues(np.asarray(u, np.float64)))
    assert weights.eigenvalues(u).dtype == np.complex128 and weights.singular_values(u).dtype == np.float64


# --- the probe ----------------------------------------------------------------------------------------------

GATES = {"rnn": "h", "lstm": "ifog", "gru": "rzn", "gru_reset_before": "rzn"}


UNSEEN = View(Batch(jnp.zeros((4, 2, 2)), jnp.zeros(2)), None, 1)
"""Weights are looked at without data."""


def looked(spec, states, by="map"):
    """What the probe hands out of runs that are stacked."""

    def look(state):
        return weights.measure(having(spec, Numbers()), state, UNSEEN)

    every = {"map": lambda states: jax.lax.map(look, states), "vmap": jax.vmap(look)}[by]
    return jax.tree.map(np.asarray, compiled(every)(states))


def drawn(spec, runs=2):
    """Runs with random numbers for everything."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(over(train.init, spec), Numbers().arrays())
    return jax.tree.map(lambda leaf: rng.standard_normal((runs, *leaf.shape)).astype(leaf.dtype), shapes)


@pytest.mark.parametrize("cell", GATES)
def test_the_probe_measures_every_block_of_every_layer(cell):
    spec = Spec(steps=4, batch=2, holdout=2, cell=cell, hidden=(5, 3))
    states = drawn(spec)
    got = weights.finish(spec, looked(spec, states), 8)
    assert {v.shape for k, v in got.items() if k in SCALARS} == {(2, 2, len(GATES[cell]))}
    assert set(got) == {*SCALARS, "eigenvalue_real", "eigenvalue_imag", "singular_value"}
    for run in range(2):
        for layer, h in enumerate(spec.hidden):
            for gate in range(len(GATES[cell])):
                u = states.params.layers[layer].u[run].astype(float)[:, gate * h : (gate + 1) * h]
                at = (run, layer, gate)
                for name in SCALARS:
                    np.testing.assert_allclose(got[name][at], getattr(weights, name)(u), rtol=1e-5, err_msg=name)
                values = got["eigenvalue_real"][at] + 1j * got["eigenvalue_imag"][at]
                np.testing.assert_allclose(values[:h], weights.eigenvalues(u), rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(got["singular_value"][at][:h], scipy.linalg.svdvals(u), rtol=1e-5)
                for name in ("eigenvalue_real", "eigenvalue_imag", "singular_value"):
                    assert got[name].shape == (2, 2, len(GATES[cell]), 5) and np.isnan(got[name][at][h:]).all()


def test_an_orthogonal_initialisation_has_its_gain_as_radius_norm_and_distance():
    spec = Spec(steps=4, batch=2, holdout=2, hidden=(8,))
    numbers = jax.tree.map(lambda *leaves: np.stack(leaves), *(Numbers(gain=g).arrays() for g in (0.5, 1.0, 1.5)))
    states = compiled(jax.vmap(over(train.init, spec)))(numbers)
    got = weights.finish(spec, looked(spec, states, by="vmap"), 8)
    gain = np.array([0.5, 1.0, 1.5])[:, None, None]
    np.testing.assert_allclose(got["spectral_radius"], gain, rtol=1e-5)
    np.testing.assert_allclose(got["largest_singular_value"], gain, rtol=1e-5)
    np.testing.assert_allclose(got["orthogonality_distance"], np.abs(gain**2 - 1), rtol=1e-5, atol=1e-5)
    assert (got["departure_from_normality"] < 1e-3).all()


def test_a_run_that_is_not_finite_is_nan_and_its_neighbour_is_not():
    spec = Spec(steps=4, batch=2, holdout=2, cell="gru", hidden=(4,))
    states = drawn(spec)
    states.params.layers[0].u[1, :, ::4] = np.nan  # one column of each block
    for name, v in weights.finish(spec, looked(spec, states), 8).items():
        assert np.isfinite(v[0]).all() and np.isnan(v[1]).all(), name
