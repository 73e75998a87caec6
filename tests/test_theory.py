"""Laws of `seqdyn.theory`: known numbers, sums and closed forms, finite differences, and small simulations in NumPy."""

import ast
import inspect
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit

from seqdyn import averages, theory
from seqdyn.nets.cells import ACTIVATIONS
from seqdyn.nets.inits import chrono
from seqdyn.theory import PHIS, MeanField, MinimalRNN, Phi, critical_gain
from seqdyn.types import ConfigError

SMOOTH = ("tanh", "sigmoid", "gelu", "softplus", "identity")
every_phi = pytest.mark.parametrize("name", PHIS)


def close(ours, theirs, rtol=1e-9, atol=0.0):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def orthogonal(n, rng):
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def weights(kind, n, gain, rng):
    return gain * (orthogonal(n, rng) if kind == "orthogonal" else rng.standard_normal((n, n)) / np.sqrt(n))


@pytest.mark.parametrize("module", [averages, theory])
def test_scipy_is_imported_only_where_it_is_used(module):
    """It loads OpenBLAS, which reads its thread count once: before `backend.start` has set it, every QR crawls."""
    tree = ast.parse(inspect.getsource(module))
    assert "scipy" in ast.unparse(tree) and not any("scipy" in ast.unparse(n) for n in tree.body if hasattr(n, "names"))


# --- activations and averages -------------------------------------------------------------------------------


def test_theory_knows_every_activation_of_the_cells_with_the_same_values_and_slopes():
    assert list(PHIS) == list(ACTIVATIONS)
    z = np.linspace(-4, 4, 82)  # meets no kink
    for name, f in PHIS.items():
        value, slope = ACTIVATIONS[name](jnp.asarray(z))
        close(f.value(z), value, atol=1e-14)
        close(f.slope(z), slope, atol=1e-14)


@every_phi
def test_the_steepest_slope_is_attained_and_never_exceeded(name):
    slopes = np.abs(PHIS[name].slope(np.linspace(-30, 30, 60_001)))
    assert slopes.max() <= PHIS[name].steepest * (1 + 1e-12)
    close(slopes.max(), PHIS[name].steepest, rtol=1e-6)


@every_phi
@pytest.mark.parametrize("q", [0.01, 0.7, 60.0])
def test_averages_equal_adaptive_quadrature_between_the_kinks(name, q):
    f = PHIS[name]
    edges = sorted({-np.inf, *f.kinks, 0.0, 3.0, -3.0, np.inf})

    def square(u):
        return np.stack([f.value(u) ** 2, f.slope(u) ** 2])

    for i in range(2):
        parts = [
            integrate.quad(lambda u, i=i: square(u)[i] * stats.norm.pdf(u, scale=q**0.5), a, b, epsabs=1e-13)[0]
            for a, b in pairwise(edges)
        ]
        close(theory.mean(lambda u, i=i: square(u)[i], q, f.kinks), sum(parts))


@pytest.mark.parametrize("name", SMOOTH)
def test_averages_of_smooth_functions_equal_gauss_hermite(name):
    z, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    f, q, c = PHIS[name].value, 0.8, 0.6
    close(theory.mean(f, q), w @ f(q**0.5 * z), rtol=1e-8, atol=1e-14)
    v = q**0.5 * (c * z[:, None] + (1 - c * c) ** 0.5 * z)
    close(theory.pair_mean(f, q, c), w @ (f(q**0.5 * z)[:, None] * f(v)) @ w, rtol=1e-8)


@pytest.mark.parametrize("c", [-1.0, -0.7, 0.0, 0.5, 0.99, 1 - 1e-5, 1.0])
def test_relu_pairs_equal_the_arc_cosine_kernels(c):
    """Cho & Saul 2009: a kink does not cost accuracy, at any correlation."""
    angle, q, f = np.arccos(c), 2.3, PHIS["relu"]
    close(
        theory.pair_mean(f.value, q, c, f.kinks),
        q * (np.sin(angle) + (np.pi - angle) * c) / (2 * np.pi),
        rtol=1e-9,
        atol=1e-14,
    )
    close(theory.pair_mean(f.slope, q, c, f.kinks), (np.pi - angle) / (2 * np.pi), rtol=1e-7, atol=1e-14)


def test_hard_tanh_slopes_have_the_mass_between_the_kinks():
    f = PHIS["hard_tanh"]
    for q in (0.05, 1.0, 400.0):
        close(theory.mean(f.slope, q, f.kinks), 1 - 2 * stats.norm.sf(q**-0.5), rtol=1e-11)


# --- variance -----------------------------------------------------------------------------------------------


def test_tanh_has_the_known_chi_at_drive_one_half():
    known = {0.8: 0.405, 1.0: 0.580, 1.2: 0.748, 1.5: 0.967, 2.0: 1.272}
    close([MeanField("tanh", g, 0.5).chi1 for g in known], list(known.values()), rtol=0, atol=1e-3)


@pytest.mark.parametrize("gain", [0.3, 1.0, 1.4, 1.6])
def test_relu_and_linear_chi_do_not_depend_on_the_variance(gain):
    for drive in (0.0, 0.1, 3.0):
        close(MeanField("relu", gain, drive).chi1, gain**2 / 2)
        close(MeanField("identity", gain, drive).chi1, gain**2)


def test_linear_and_relu_variances_are_geometric_series():
    close(MeanField("identity", 0.8, 0.5, 0.3).q, (0.25 + 0.09) / (1 - 0.64))
    close(MeanField("relu", 1.2, 0.5).q, 0.25 / (1 - 0.72))
    assert MeanField("relu", 1.5, 0.1).q == np.inf
    assert MeanField("identity", 1.01, 0.1).q == np.inf


def test_without_drive_the_state_dies_below_gain_one_and_lives_above():
    assert MeanField("tanh", 0.9).q == 0
    close(MeanField("tanh", 0.9).chi1, 0.81)
    assert MeanField("tanh", 1.1).q > 0.05


@every_phi
def test_fixed_points_are_fixed_and_reached_at_the_rate_of_xi_q(name):
    field = MeanField(name, 0.9, 0.5, 0.2)
    close(field.variance_map(field.q), field.q, rtol=1e-11)
    q, gaps = 1.3 * field.q, []
    while len(gaps) < 400 and (not gaps or gaps[-1] > 1e-7 * field.q):
        q = field.variance_map(q)
        gaps.append(abs(q - field.q))
    close(-1 / np.log(gaps[-1] / gaps[-2]), field.xi_q, rtol=1e-4)


@every_phi
@pytest.mark.parametrize("q", [0.2, 5.0])
def test_the_slope_of_the_variance_map_is_its_finite_difference(name, q):
    field = MeanField(name, 1.3, 0.5)
    slope = (field.variance_map(q * (1 + 1e-4)) - field.variance_map(q * (1 - 1e-4))) / (2e-4 * q)
    close(field.variance_slope(q), slope, rtol=1e-6)


def test_xi_q_holds_the_published_expression():
    """χ₁ + σ_w² E[φ'' φ] with tanh's own second derivative."""
    field = MeanField("tanh", 1.7, 0.4, 0.3)
    second = theory.mean(lambda u: -2 * np.tanh(u) ** 2 / np.cosh(u) ** 2, field.q)
    close(field.xi_q, -1 / np.log(abs(field.chi1 + 1.7**2 * second)))


# --- correlation --------------------------------------------------------------------------------------------


@every_phi
def test_the_correlation_map_has_slope_chi(name):
    field = MeanField(name, 0.9, 0.5, 0.2, shared=0.3)
    for c in (-0.4, 0.0, 0.8):
        slope = (field.correlation_map(c + 1e-4) - field.correlation_map(c - 1e-4)) / 2e-4
        close(field.chi(c), slope, rtol=1e-5)


@every_phi
def test_at_equal_replicas_the_slope_is_chi_1(name):
    field = MeanField(name, 0.9, 0.5, 0.2)
    close(field.correlation_map(1.0), 1.0, rtol=1e-12)
    close(field.chi(1.0), field.chi1, rtol=1e-10)
    close((1 - field.correlation_map(1 - 1e-6)) / 1e-6, field.chi1, rtol=5e-3)  # a kink bends it like √(1 − c)


@pytest.mark.parametrize(
    "field",
    [
        MeanField("tanh", 2.0, 0.5),
        MeanField("tanh", 1.2, 0.5, shared=0.0),
        MeanField("tanh", 1.2, 0.5, shared=-0.5),
        MeanField("tanh", 3.0, 0.5, 0.5, shared=0.7),
        MeanField("relu", 1.2, 0.5, 0.1, shared=0.5),
    ],
    ids=lambda f: f"{f.phi}-{f.gain}-{f.bias}-{f.shared}",
)
def test_replicas_tend_to_c_at_the_rate_of_xi_c(field):
    close(field.correlation_map(field.c), field.c, rtol=1e-10, atol=1e-14)
    assert field.c < 1 and abs(field.chi(field.c)) < 1
    c, gaps = field.c + 0.05, []
    while not gaps or gaps[-1] > 1e-7:
        c = field.correlation_map(c)
        gaps.append(c - field.c)
    close(-1 / np.log(gaps[-1] / gaps[-2]), field.xi_c, rtol=1e-3)


def test_replicas_with_the_same_input_meet_exactly_below_the_critical_line():
    gain = critical_gain("tanh", 0.5)
    assert MeanField("tanh", 0.99 * gain, 0.5).c == 1
    assert 0.9 < MeanField("tanh", 1.01 * gain, 0.5).c < 1
    assert MeanField("tanh", 1.01 * gain, 0.5, shared=0.0).c < MeanField("tanh", 1.01 * gain, 0.5, 1.0, shared=0.0).c


def test_without_bias_or_shared_input_odd_units_forget_their_replica():
    assert MeanField("tanh", 1.2, 0.5, shared=0.0).c == 0
    close(MeanField("tanh", 1.2, 0.5, shared=0.0).xi_c, -1 / np.log(MeanField("tanh", 1.2, 0.5).chi(0.0)))


@pytest.mark.parametrize("phi, drive, bias", [("tanh", 0.0, 0.0), ("tanh", 0.5, 0.3), ("hard_tanh", 0.5, 0.0)])
def test_on_the_critical_line_chi_is_one(phi, drive, bias):
    gain = critical_gain(phi, drive, bias)
    close(MeanField(phi, gain, drive, bias).chi1, 1.0, rtol=1e-6)
    assert MeanField(phi, 0.98 * gain, drive, bias).chi1 < 1 < MeanField(phi, 1.02 * gain, drive, bias).chi1


def test_critical_gains_are_the_known_ones():
    close(critical_gain("tanh"), 1.0, rtol=1e-6)
    close(critical_gain("relu", 0.3), 2**0.5)
    close(critical_gain("identity", 0.3), 1.0)
    assert critical_gain("tanh", 1.0) > critical_gain("tanh", 0.5) > 1.4  # drive suppresses chaos


def test_a_phi_of_ones_own_is_held_to_the_same_theory():
    mine = MeanField(Phi(np.tanh, lambda z: 1 - np.tanh(z) ** 2), 1.5, 0.5)
    close((mine.q, mine.chi1, mine.xi_q), [getattr(MeanField("tanh", 1.5, 0.5), n) for n in ("q", "chi1", "xi_q")])
    sine = MeanField(Phi(np.sin, np.cos), 1.3, 0.4)
    # E sin² = (1 − e^−2q)/2 and E cos² = (1 + e^−2q)/2.
    close(sine.q, 1.3**2 * (1 - np.exp(-2 * sine.q)) / 2 + 0.16)
    close(sine.chi1, 1.3**2 * (1 + np.exp(-2 * sine.q)) / 2)


@pytest.mark.parametrize("wrong", [{"phi": "tanhh"}, {"gain": -1.0}, {"drive": np.nan}, {"shared": 1.5}], ids=str)
def test_wrong_parameters_are_said_in_a_sentence(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is .*"):
        MeanField(**wrong)


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
def test_a_wide_network_has_the_predicted_variance_growth_and_volume(kind):
    """W the same at every step. Gaussian and orthogonal agree in q* and χ₁, and their volumes lie ½ apart."""
    n, b, field, measured = 300, 8, MeanField("tanh", 1.5, 0.5, 0.3), []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        w, bias, h = weights(kind, n, 1.5, rng), 0.3 * rng.standard_normal((n, 1)), np.zeros((n, b))
        variances, slopes, lam, adjoint = [], [], rng.standard_normal((n, b)), []
        for _ in range(60):
            z = w @ h + 0.5 * rng.standard_normal((n, b)) + bias
            h = np.tanh(z)
            variances.append(np.mean(z * z))
            slopes.append(1 - h * h)
        for slope in slopes[:19:-1]:
            lam = w.T @ (slope * lam)
            adjoint.append(np.mean(lam * lam))
        growth = (adjoint[-1] / adjoint[4]) ** (1 / (len(adjoint) - 5))
        volume = np.linalg.slogdet(w)[1] / n + np.mean(np.log(slopes[20:]))
        measured.append([np.mean(variances[20:]), growth, volume])
    q, chi1, volume = np.mean(measured, axis=0)
    close((q, chi1), (field.q, field.chi1), rtol=0.03)
    close(volume, field.volume(kind == "orthogonal"), rtol=0, atol=0.03)
    assert MeanField("relu", 1.5).volume() == -np.inf


def test_the_exponent_is_half_the_log_of_the_growth():
    field = MeanField("tanh", 1.5, 0.5)
    close(np.exp(2 * field.exponent), field.chi1)


SHARES, STEPS = np.polynomial.legendre.leggauss(40)
SHARES, STEPS = (1 + SHARES) / 2, STEPS / 2


@pytest.mark.parametrize("orthogonal", [False, True], ids=["gaussian", "orthogonal"])
def test_the_spectrum_falls_from_the_exponent_and_has_the_volume_as_its_mean(orthogonal):
    for field in (MeanField("tanh", 1.5, 0.5), MeanField("tanh", 3.0, 0.1), MeanField("softsign", 0.8, 1.0)):
        spectrum = np.asarray([field.spectrum(x, orthogonal) for x in SHARES])
        assert np.all(np.diff(spectrum) < 0)
        close(field.spectrum(1e-9, orthogonal), field.exponent, rtol=0, atol=1e-6)
        close(STEPS @ spectrum, field.volume(orthogonal), rtol=0, atol=2e-3)


def test_the_spectrum_of_a_linear_network_is_newmans_and_that_of_an_orthogonal_one_flat():
    n, field = 2000, MeanField("identity", 1.3)
    exact = theory.gaussian_product_exponents(n, 1.3)
    for i in (50, 1000, 1500):
        close(field.spectrum((i + 0.5) / n), exact[i], rtol=0, atol=2e-3)
        close(field.spectrum((i + 0.5) / n, orthogonal=True), np.log(1.3))


def test_what_a_flat_phi_flattens_has_no_exponents():
    """Half of all relu units are dead at any step: of W diag(φ') as much is left as of the rest."""
    field = MeanField("relu", 1.3, 0.5)
    assert field.spectrum(0.51) == -np.inf and field.spectrum(0.49) > -3
    close(field.spectrum(0.2), np.log(1.3) + 0.5 * np.log(0.5 - 0.2))  # κ/(1 + κ) = 2x


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
@pytest.mark.slow
def test_a_wide_network_has_the_predicted_spectrum_of_exponents(kind):
    """W the same at every step, by QR in NumPy."""
    n, steps, field, rng = 80, 120, MeanField("tanh", 1.5, 0.5), np.random.default_rng(5)
    w, h, logs = weights(kind, n, 1.5, rng), np.zeros(n), np.zeros(n)
    q = orthogonal(n, rng)
    for t in range(steps):
        h = np.tanh(w @ h + 0.5 * rng.standard_normal(n))
        q, r = np.linalg.qr((1 - h * h)[:, None] * (w @ q))
        logs += np.log(np.abs(np.diag(r))) * (t >= 20)
    predicted = [field.spectrum((i + 0.5) / n, kind == "orthogonal") for i in range(n - 10)]
    off = np.sort(logs)[::-1][: n - 10] / (steps - 20) - predicted
    assert np.sqrt(np.mean(off**2)) < 0.05


# --- minimalRNN ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift, bias", [(0.0, 0.0), (1.0, 0.5)])
def test_minimal_rnn_equals_its_own_recursion_with_fresh_weights(shift, bias):
    rng, n, b, m = np.random.default_rng(1), 300, 60, MinimalRNN(2.0, 0.7, bias, shift, inputs=1.3)
    h, tangent, variances, growth = np.zeros((n, b)), rng.standard_normal((n, b)), [], []
    for _ in range(40):
        w = weights("gaussian", n, 2.0, rng)
        x, v, e = rng.standard_normal((3, n, b))
        u = expit(w @ h + 0.7 * v + shift + bias * e)
        moved = u * tangent + u * (1 - u) * (h - 1.3 * x) * (w @ tangent)
        growth.append(np.mean(np.sum(moved**2, 0) / np.sum(tangent**2, 0)))
        tangent, h = moved, u * h + (1 - u) * 1.3 * x
        variances.append(np.mean(h * h))
    close(np.mean(variances[15:]), m.variance, rtol=0.02)
    close(np.mean(growth[15:]), m.chi1, rtol=0.02)


def test_minimal_rnn_without_shift_has_the_closed_variance_and_its_leak_alone_at_gain_zero():
    m = MinimalRNN(1.5, 1.0)
    q = 1.5**2 * m.variance + 1
    u2 = theory.mean(lambda e: expit(e) ** 2, q)
    close(m.variance, u2 / (1 - u2))
    leak = MinimalRNN(0.0, 1.0)
    close(leak.chi1, theory.mean(lambda e: expit(e) ** 2, 1.0))
    assert leak.chi1 > theory.mean(expit, 1.0) ** 2 + 0.02  # E[u²], not E[u]²


# --- exponents in closed form -------------------------------------------------------------------------------


def test_products_of_gaussian_matrices_have_newmans_spectrum():
    rng, n, steps = np.random.default_rng(2), 6, 6000
    q, logs = np.eye(n), np.zeros(n)
    for w in 1.3 * rng.standard_normal((steps, n, n)) / n**0.5:
        q, r = np.linalg.qr(w @ q)
        logs += np.log(np.abs(np.diag(r)))
    close(logs / steps, theory.gaussian_product_exponents(n, 1.3), rtol=0, atol=0.03)


def test_the_sum_of_newmans_spectrum_is_the_mean_log_volume():
    """E log|det| of a Gaussian matrix, from independent chi-squared distances (Bartlett)."""
    n, gain = 5, 0.7
    chi2 = [integrate.quad(lambda x, k=k: np.log(x) * stats.chi2.pdf(x, k), 0, np.inf)[0] for k in range(1, n + 1)]
    exact = n * np.log(gain / n**0.5) + 0.5 * sum(chi2)
    close(theory.gaussian_product_exponents(n, gain).sum(), exact, rtol=1e-6)


def test_newmans_spectrum_falls_from_log_gain_to_the_mean_fields_volume():
    many = theory.gaussian_product_exponents(4000, 1.3)
    assert np.all(np.diff(many) < 0)
    close(many[0], np.log(1.3), rtol=0, atol=1e-3)
    close(many.mean(), MeanField("identity", 1.3).volume(), rtol=0, atol=1e-3)


def test_linear_exponents_are_what_powers_of_a_non_normal_matrix_grow_by():
    rng = np.random.default_rng(3)
    w = np.triu(rng.standard_normal((4, 4)), 1) * 3 + np.diag([0.5, -2.0, 1.1, 0.2])
    close(theory.linear_exponents(w), np.log([2.0, 1.1, 0.5, 0.2]))
    close(np.log(np.linalg.norm(np.linalg.matrix_power(w, 400), 2)) / 400, np.log(2.0), rtol=0.03)
    close(theory.linear_exponents(0.7 * orthogonal(5, rng)), np.log(0.7))


# --- bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "hard_tanh"])
def test_no_product_of_step_jacobians_exceeds_the_bound(name):
    rng = np.random.default_rng(4)
    for _ in range(20):
        u, product = rng.standard_normal((6, 6)), np.eye(6)
        for k in range(1, 5):
            product = np.diag(PHIS[name].slope(0.3 * rng.standard_normal(6))) @ u @ product
            assert np.linalg.norm(product, 2) <= theory.jacobian_bound(u, name, k) * (1 + 1e-12)


def test_the_bound_is_attained_where_the_slope_is_steepest():
    u = np.random.default_rng(5).standard_normal((6, 6))
    close(np.linalg.norm(np.diag(PHIS["sigmoid"].slope(np.zeros(6))) @ u, 2), theory.jacobian_bound(u, "sigmoid"))
    q = 0.9 * orthogonal(6, np.random.default_rng(5))
    close(np.linalg.norm(np.linalg.matrix_power(q, 7), 2), theory.jacobian_bound(q, "tanh", 7))


def test_a_small_spectral_radius_bounds_nothing():
    u = np.asarray([[0.5, 3.0], [0.0, 0.5]])
    assert np.abs(np.linalg.eigvals(u)).max() < 1 < np.linalg.norm(u @ u, 2)
    assert not theory.must_vanish(u, "tanh") and theory.may_explode(u, "tanh")


def test_conditions_of_vanishing_and_exploding_turn_at_one_over_gamma():
    q = orthogonal(5, np.random.default_rng(6))
    assert theory.must_vanish(0.99 * q, "tanh") and not theory.may_explode(0.99 * q, "tanh")
    assert theory.must_vanish(3.9 * q, "sigmoid") and theory.may_explode(4.1 * q, "sigmoid")


# --- time constants -----------------------------------------------------------------------------------------


def test_a_leaky_unit_falls_to_one_over_e_in_its_time_constant():
    f = 0.93
    close(f ** theory.time_constant(f), np.exp(-1))
    close(theory.time_constant(np.asarray([0.0, 1.0, 1.1, -f])), [0.0, np.inf, -1 / np.log(1.1), -1 / np.log(f)])


def test_a_gates_rate_is_minus_one_over_its_time_constant_even_where_the_gate_rounds_to_one():
    b = np.asarray([-2.0, 0.0, 3.0])
    close(theory.gate_rate(b), -1 / theory.time_constant(expit(b)))
    close(theory.gate_rate(50.0), -np.exp(-50.0))


def test_chrono_biases_have_the_predicted_distribution_of_time_constants(key):
    b = np.asarray(chrono(40.0)(key, (4000,), jnp.float64))
    taus = theory.time_constant(expit(b))
    assert stats.kstest(taus, lambda tau: theory.chrono_cdf(tau, 40.0)).pvalue > 0.01
    assert stats.kstest(taus, lambda tau: theory.chrono_cdf(tau, 30.0)).pvalue < 1e-6
    close(np.median(taus), theory.chrono_quantile(0.5, 40.0), rtol=0.05)


def test_chrono_quantiles_invert_the_distribution_and_lie_just_below_u_plus_one_half():
    p = np.linspace(0, 1, 50)
    tau = theory.chrono_quantile(p, 100.0)
    close(theory.chrono_cdf(tau, 100.0), p, atol=1e-12)
    below = 1 + p * 98 + 0.5 - tau
    assert np.all((below > 0) & (below < 0.06))


# --- the linear recurrence ----------------------------------------------------------------------------------


def recur(lam, rho, n=40_000, steps=250, seed=7):
    """h, dh/dλ after `steps` of h ← λ h + x with x autocorrelated as ρ^|Δ|, for n sequences."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    h = dh = np.zeros(n, complex)
    for _ in range(steps):
        h, dh = lam * h + x, lam * dh + h
        x = rho * x + (1 - rho**2) ** 0.5 * rng.standard_normal(n)
    return h, dh


@pytest.mark.parametrize("lam, rho", [(0.9, 0.0), (0.8, 0.7), (-0.8, 0.7), (0.9 * np.exp(0.5j), 0.6)])
def test_the_linear_recurrence_has_the_predicted_variance_and_sensitivity(lam, rho):
    h, dh = recur(lam, rho)
    close(np.mean(np.abs(h) ** 2), theory.linear_variance(lam, rho), rtol=0.03)
    close(np.mean(np.abs(dh) ** 2), theory.linear_sensitivity(lam, rho), rtol=0.04)
    gamma, turn = (1 - abs(lam) ** 2) ** 0.5, lam / abs(lam)
    normalised = -abs(lam) / gamma * h + gamma * turn * dh
    close(np.mean(np.abs(normalised) ** 2), theory.normalised_sensitivity(lam, rho), rtol=0.04)


@pytest.mark.parametrize("lam, rho", [(0.7, 0.0), (0.6, 0.5), (0.5 + 0.4j, 0.8), (0.0, 0.5)])
def test_sensitivities_are_sums_over_impulse_responses(lam, rho):
    """E|Σ a_k x_{t−k}|² = aᴴ R a with a = λ^k, k λ^(k−1), and their derivative with γ."""
    k = np.arange(250)
    r = float(rho) ** np.abs(k[:, None] - k) if rho else np.eye(len(k))
    size, turn = abs(lam), lam / abs(lam) if lam else 1.0
    gamma = (1 - size**2) ** 0.5
    a = np.asarray(lam, complex) ** k
    da = np.concatenate([[0.0], k[1:] * np.asarray(lam, complex) ** (k[1:] - 1)])
    for ours, response in (
        (theory.linear_variance, a),
        (theory.linear_sensitivity, da),
        (theory.normalised_sensitivity, -size / gamma * a + gamma * turn * da),
    ):
        close(ours(lam, rho), (response.conj() @ r @ response).real, rtol=1e-9)


def test_sensitivity_grows_as_the_cube_of_the_memory_and_normalisation_takes_one_power_away():
    memory = np.asarray([1e2, 1e3, 1e4])
    lam = 1 - 1 / memory
    for f, power in ((theory.linear_variance, 1), (theory.linear_sensitivity, 3), (theory.normalised_sensitivity, 2)):
        slopes = np.diff(np.log([f(x) for x in lam])) / np.diff(np.log(memory))
        close(slopes[-1], power, rtol=1e-3)
    close(theory.linear_variance(0.9), 1 / 0.19)
    close(theory.linear_sensitivity(0.9), 1.81 / 0.19**3)
    close(theory.normalised_sensitivity(0.9), 0.19**-2)
