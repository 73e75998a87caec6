"""Laws of `experiments._polynomials`: an orthonormal basis, fits that are formulas, errors that add up."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import polynomials as analysis
from experiments import _polynomials as poly
from experiments import polynomials

N, NOISE = 20, 0.3


def sample(draws=300, n=N, seed=0, truth=np.sin):
    return poly.draw(np.random.default_rng(seed), (draws, n), NOISE, truth)


def test_the_basis_is_orthonormal_and_norm_is_the_mean_square():
    x, weights = poly.nodes()
    design = poly.legendre(x, 60)
    np.testing.assert_allclose((design.T * weights) @ design, np.eye(61), atol=1e-12)
    w = np.random.default_rng(0).normal(size=61)
    np.testing.assert_allclose((design @ w) ** 2 @ weights, w @ w, rtol=1e-12)


def test_degree_1_is_a_line_through_the_origin_and_no_other_degree_lacks_a_bias():
    x = np.linspace(-5, 5, 11)
    design = poly.unbiased(x, 1)
    assert design.shape == (11, 1)
    np.testing.assert_allclose(design[:, 0] / design[-1, 0], x / 5, atol=1e-15)
    np.testing.assert_array_equal(poly.unbiased(x, 3), poly.legendre(x, 3))


@pytest.mark.parametrize("degree", [3, 17, 19, 20, 40])
def test_the_fit_is_least_squares_and_beyond_the_points_that_of_least_norm(degree):
    s = sample(3)
    design = poly.legendre(s.x, degree)
    for phi, y, w in zip(design, s.y, poly.fit(design, s.y), strict=True):
        np.testing.assert_allclose(w, np.linalg.lstsq(phi, y, rcond=None)[0], rtol=1e-6, atol=1e-8)
        if degree + 1 >= N:
            np.testing.assert_allclose(phi @ w, y, atol=1e-7)
        else:
            assert np.abs(phi.T @ (phi @ w - y)).max() < 1e-9


def test_degree_17_is_found_again_to_all_digits_and_powers_of_x_lose_ten_of_them():
    x = np.linspace(-5, 5, 30)
    w = np.random.default_rng(0).normal(size=18)
    y = poly.legendre(x, 17) @ w
    between = np.linspace(-5, 5, 501)
    truth = poly.legendre(between, 17) @ w

    def off(design, told, solve):
        return np.abs(told @ solve(design, y) - truth).max() / np.abs(truth).max()

    def normal_equations(design, y):
        return np.linalg.solve(design.T @ design, design.T @ y)

    raw, told = poly.powers(x, 17, 1.0), poly.powers(between, 17, 1.0)
    ours, ours_told = poly.legendre(x, 17), poly.legendre(between, 17)
    assert np.linalg.cond(ours) < 20 and np.linalg.cond(raw) > 1e12
    assert off(ours, ours_told, poly.fit) < 1e-13 and off(ours, ours_told, normal_equations) < 1e-13
    assert off(raw, told, poly.fit) > 1e-12 and off(raw, told, normal_equations) > 1e-8


def test_ridge_is_its_closed_form_and_without_penalty_the_fit():
    s = sample(2)
    for degree in (5, 30):
        design = poly.legendre(s.x, degree)
        of = poly.spectrum(design, s.y)
        w = of.learned(poly.ridge(of, 0.03))
        for phi, y, found in zip(design, s.y, w, strict=True):
            normal = phi.T @ phi / N + 0.03 * np.eye(degree + 1)
            np.testing.assert_allclose(found, np.linalg.solve(normal, phi.T @ y / N), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(of.learned(poly.ridge(of, 0.0)), poly.fit(design, s.y), rtol=1e-8, atol=1e-10)


def test_gradient_descent_is_its_formula():
    s = sample(1)
    for basis in (poly.legendre, poly.powers):
        phi, y = jnp.asarray(basis(s.x, 9)[0]), jnp.asarray(s.y[0])
        of = poly.spectrum(np.asarray(phi), np.asarray(y))
        slope = jax.grad(lambda w, phi=phi, y=y: jnp.sum((phi @ w - y) ** 2) / (2 * N))
        rate = N / of.s[0] ** 2
        w = jnp.zeros(10)
        for _ in range(7):
            w = w - rate * slope(w)
        np.testing.assert_allclose(of.learned(poly.descent(of, 7)), w, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(of.learned(poly.descent(of, 1e15)), poly.fit(phi, y), rtol=1e-6)


def test_effective_coefficients_are_the_trace_of_the_hat_matrix():
    s = sample(1)
    phi = poly.legendre(s.x[0], 9)
    of = poly.spectrum(phi, s.y[0])
    for share in (poly.ridge(of, 0.1), poly.descent(of, 5)):
        columns = [poly.spectrum(phi, e).learned(share) for e in np.eye(N)]
        np.testing.assert_allclose(poly.effective(share), np.trace(phi @ np.stack(columns, 1)), rtol=1e-10)


def test_gradient_descent_learns_low_degrees_of_powers_first():
    """Half of the truth's component of degree 1, 3, 5 and 7 is there after ever more updates."""
    s = sample(100)
    x, weights = poly.nodes()
    of = poly.spectrum(poly.powers(s.x, 9), s.y)
    project = (poly.legendre(x, 9) * weights[:, None]).T
    truth = project @ np.sin(x)

    def component(k, t):
        return np.median(of.learned(poly.descent(of, t)) @ poly.powers(x, 9).T @ project[k]) / truth[k]

    times = np.logspace(0, 6, 61)
    half = [next(t for t in times if component(k, t) > 0.5) for k in (1, 3, 5, 7)]
    assert half == sorted(half) and half[-1] > 100 * half[0]


@pytest.mark.parametrize("degree,penalty", [(3, 0.0), (9, 0.0), (17, 0.01), (25, 0.1)])
def test_bias_variance_and_noise_add_up_to_the_expected_test_error(degree, penalty):
    """Exactly in what is expected, and within four standard errors of what is counted on new points and noise."""
    s = sample(500)
    model = partial(poly.unbiased, degree=degree)
    of = poly.spectrum(model(s.x), s.y)
    w = of.learned(poly.ridge(of, penalty))
    bias, variance = poly.bias_variance(model, w)
    test = poly.expected(model, w, NOISE)
    np.testing.assert_allclose(bias + variance + NOISE**2, test.mean(), rtol=1e-12)
    apart = poly.error(model, w, sample(500, n=100, seed=9)) - test
    assert abs(apart.mean()) < 4 * apart.std() / len(apart) ** 0.5
    assert variance > 0 and test.mean() > NOISE**2


def test_bias_and_variance_of_pairs_are_those_of_all_draws_in_the_mean():
    """And the two of a pair add up to its mean test error but for the noise, which needs no mean."""
    s = sample(4001)  # an odd draw is left out
    for degree in (3, 7):
        model = partial(poly.unbiased, degree=degree)
        w = poly.fit(model(s.x), s.y)
        pairs = poly.of_pairs(model, w)
        assert pairs.shape == (2000, 2)
        test = poly.expected(model, w[:-1], NOISE).reshape(2000, 2).mean(1)
        np.testing.assert_allclose(pairs.sum(1) + NOISE**2, test, rtol=1e-9)
        apart = pairs.mean(0) - poly.bias_variance(model, w)
        assert (np.abs(apart) < 4 * pairs.std(0) / 2000**0.5).all(), apart


def test_what_claims_are_about_are_the_errors_of_each_draw():
    c = polynomials.Config(draws=5, beyond=18)
    found = polynomials.sweep(c) | polynomials.descent(c)
    runs = analysis.columns(found | {"points": np.asarray(c.points)})
    at = runs.isel(run=runs["degree"] == 17)
    assert at["seed"].values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(at["test"], found["test"][16])
    weak = np.argmin(np.abs(found["penalties"] - 0.1))
    np.testing.assert_allclose(np.median(at["weak"]), found["ridge_test"][16, weak, 1])
    assert (at["best"] <= at["weak"]).all()
    np.testing.assert_array_equal(np.isnan(at["bias"]), [False, True, False, True, True])
    np.testing.assert_allclose(np.median(at["powers_last"]), found["powers_test"][3, -1, 1])
    assert (at["powers"] < at["powers_last"]).all() and np.isnan(runs["powers"][runs["degree"] == 16]).all()


def test_the_variance_at_given_points_is_noise_times_coefficients_over_points():
    """With x held fixed, the mean variance at the training points is σ² p / n, and the mean training error
    σ² (n − p) / n, of a truth that the polynomial can be."""
    x = np.linspace(-5, 5, N)
    rng = np.random.default_rng(0)
    y = x**2 / 10 + NOISE * rng.standard_normal((4000, N))
    for degree in (2, 6):
        phi, p = poly.legendre(x, degree), degree + 1
        fitted = poly.fit(np.broadcast_to(phi, (4000, N, p)), y) @ phi.T
        np.testing.assert_allclose(fitted.var(0).mean(), NOISE**2 * p / N, rtol=0.05)
        np.testing.assert_allclose(np.mean((fitted - y) ** 2), NOISE**2 * (N - p) / N, rtol=0.05)


def test_test_error_peaks_where_coefficients_equal_points_and_ridge_removes_the_peak():
    s = sample(200)

    def middle(degree, penalty):
        model = partial(poly.unbiased, degree=degree)
        of = poly.spectrum(model(s.x), s.y)
        return np.median(poly.expected(model, of.learned(poly.ridge(of, penalty)), NOISE))

    alone = {degree: middle(degree, 0.0) for degree in (5, 12, 19, 30, 60)}
    assert alone[5] < alone[12] < alone[19] > 1e4 * alone[30] and alone[19] > 1e4 * alone[60]
    assert alone[30] > 2 * alone[5]  # the second descent is no way to the best
    assert max(middle(degree, 0.1) for degree in alone) < 0.5
