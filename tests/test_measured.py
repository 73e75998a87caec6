"""Laws of what the reproductions that measure state, against closed forms."""

import itertools
import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import claims, long_products, measured
from analysis.sensitivity import theory
from experiments.reproduce import ghost, learnability, linear_dynamics, sensitivity, smoothness
from experiments.reproduce import long_products as products
from seqdyn.nets.bptt import unroll


def wick(n, t):
    """E‖W^t x‖² of real Gaussian W, by counting: each way to pair the 2t factors has a power of n."""
    copies = [list(range(t + 1)), [0, *range(t + 1, 2 * t), t]]
    factors = [(path[k], path[k + 1]) for path in copies for k in range(t)]
    powers = Counter()
    for order in itertools.permutations(range(2 * t)):
        pairs = list(zip(order[::2], order[1::2], strict=True))
        if all(a < b for a, b in pairs) and pairs == sorted(pairs):
            classes = np.arange(2 * t)
            for a, b in pairs:
                for u, v in zip(factors[a], factors[b], strict=True):
                    classes[classes == classes[v]] = classes[u]
            powers[len(set(classes))] += 1
    return sum(count * n**free for free, count in powers.items()) / n ** (t + 1)


def test_the_mean_square_of_a_linear_recurrence_is_the_sum_of_its_exact_moments():
    n, draws = 3, 40_000
    assert np.allclose([wick(n, 2), wick(n, 3)], [1 + 2 / n**2, 1 + 10 / n**2 + 4 / n**3])
    rng = np.random.default_rng(0)
    w = rng.standard_normal((draws, n, n)) / n**0.5
    squares = products.norms(w, 1, 4, rng) * np.arange(1, 5)
    exact = np.cumsum([1, *(wick(n, t) for t in (1, 2, 3))])
    error = squares.std(axis=0) / draws**0.5
    assert np.all(np.abs(squares.mean(axis=0) - exact) < 4 * error) and error[-1] < 0.05 * exact[-1]
    orthogonal = np.linalg.qr(rng.standard_normal((draws, n, n)))[0]
    assert abs(products.norms(orthogonal, 1, 6, rng)[:, -1].mean() - 1) < 0.02


def test_a_recurrence_that_never_explodes_has_an_infinite_length():
    squares = np.asarray([[1.0, 11.0, 2.0], [1.0, 9.0, 10.0]])
    assert long_products.exploded(squares).tolist() == [2.0, np.inf]


def test_the_ghost_is_passed_in_the_time_that_its_loss_says_and_the_critical_step_reaches_the_zone():
    """x' = x² + r from 0 takes π/(2√r) to infinity, θ = π; the Euler step is first order in DT."""
    t = 16.0
    best = ghost.optimum(t)
    rate = ghost.CONSTANT * t**-5
    assert np.isclose(best - rate * ghost.slope(best * (1 + 1e-12), t), best / 4)
    assert ghost.slope(best / 5, t) == 0 and ghost.slope(best / 2, t) < 0
    of, r = ghost.unit(), jnp.asarray(best)
    theta, _ = unroll(of, {"r": r}, of.initial_carry((1,)), jnp.zeros((400, 1, 1)))
    arrived = float(jnp.argmax(theta[:, 0, 0] >= np.pi)) * ghost.DT
    assert abs(arrived - t) < 0.06 * t
    above, below = jax.vmap(jax.grad(lambda r: ghost.loss(r, t)))(jnp.asarray([2 * best, best / 2]))
    assert above > 0 > below


def test_closed_equations_of_a_linear_mode_end_at_the_rate_of_its_singular_values():
    s = linear_dynamics.values("rates")
    ended = linear_dynamics.closed(s, 0.1, 0.01, 4000, 4000)[-1]
    assert np.allclose(ended, s, atol=1e-6) and np.allclose(ended[:, 1] / ended[:, 0], [1, 0.8, 1.25], atol=1e-5)


@pytest.mark.slow
def test_sensitivity_of_the_lru_is_the_theory_and_hessians_are_those_of_the_loss():
    rows = [sensitivity.sensitivities(0.8, 2000, jax.random.key(seed)) for seed in (0, 1)]
    for name, exact in theory(0.8).items():
        assert abs(np.mean([row[name] for row in rows]) / exact - 1) < 0.1, name
    given = sensitivity.teacher(0, 4)
    made = sensitivity.responses(given, 6)
    curves = [np.asarray(response(params)) for response, params in made.values()]
    assert np.allclose(curves[0], curves[1]) and np.allclose(curves[0], curves[2])
    response, params = made["dense"]
    weights = np.append(1 - np.arange(6) / 6, 1.0)
    flat, back = jax.flatten_util.ravel_pytree(params)
    exact = jax.hessian(lambda p: 0.5 * jnp.sum(weights * (response(back(p)) - curves[0]) ** 2))(flat)
    assert np.allclose(sensitivity.hessian(response, params, 6), exact, atol=1e-10)


def test_smoothness_of_a_quadratic_is_that_of_its_hessian_along_the_gradient_whatever_the_step():
    h, p = np.asarray([1.0, 4.0]), np.asarray([2.0, 1.0])
    look: Any = SimpleNamespace(params=jnp.asarray(p), loss_of=lambda q: 0.5 * jnp.sum(jnp.asarray(h) * q**2))
    for clip in (0.1, 100.0):
        seen = smoothness.Smoothness(lr=0.3, clip=clip).measure(look)
        assert np.isclose(seen["gradient_size"], np.linalg.norm(h * p))
        assert np.isclose(seen["local_smoothness"], np.linalg.norm(h * h * p) / np.linalg.norm(h * p))


def test_a_claim_is_judged_on_rows_as_on_runs_and_keeps_what_the_paper_says():
    rows = [{"seed": seed, "of": kind, "value": seed + kind} for seed in range(20) for kind in (1, 100)]
    claim = claims.Claim("values", "median", claims.of("value", of=100), 50.0, source="who")
    (row,) = measured.judged([measured.Stated("about 110", claim)], rows)
    assert row["paper"] == "about 110" and row["ours"] == "110" and row["verdict"] == "holds" and row["n"] == "20"


def test_what_is_measured_is_among_the_claims_below_a_directory(tmp_path, capsys):
    rows = [{"seed": i, "width": 8, "far": 1.0 + i / 100} for i in range(20)]
    kept = tmp_path / "one" / "one.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"rows": rows}))
    above = measured.Stated("> 0", claims.Claim("it is far", "median", claims.of("far", width=8), 0.5, source="theirs"))
    measured.show(kept, [above], lambda found: Figure())
    capsys.readouterr()
    claims.main(claims.Config((tmp_path,)))
    said = " ".join(capsys.readouterr().out.split())
    assert str(kept.parent) in said and "it is far" in said and "> 0" in said and "holds" in said


def test_the_exponent_of_a_power_is_that_power_and_a_window_ends_at_its_first_blind_lag():
    f = np.logspace(-3, 0, 40)
    n = np.where(np.arange(40) % 7, 5 * f**-1.7, np.nan)
    assert np.isclose(learnability.exponent(n, f), -1.7)
    assert np.isnan(learnability.exponent(n, np.linspace(0.9, 1.0, 40)))  # where all arrives there is no power to tell
    assert np.isnan(learnability.exponent(n[:9], f[:9]))
    seen = np.full(12, 10.0)
    assert learnability.window(seen) == 12
    for lag in (0, 3):
        assert learnability.window(np.where(np.arange(12)[::-1] == lag, 2e4, seen)) == lag
