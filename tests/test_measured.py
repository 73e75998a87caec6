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

import seqdyn as sd
from analysis import attractors as orbits
from analysis import claims, long_products, measured
from analysis.sensitivity import theory
from experiments.reproduce import _orbits, attractors, ghost, learnability, linear_dynamics, sensitivity, smoothness
from experiments.reproduce import long_products as products
from seqdyn.nets import cells
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


def waited(cell, params, begun):
    """(periods, sets, exponents) of orbits that begin there, under no input."""
    carry = cell.initial_carry((len(begun),))
    carry = jax.tree.map(lambda h: jnp.asarray(begun)[:, None] + jnp.zeros_like(h), carry)
    tangent = jnp.ones((len(begun), 1))
    states, _, exponents = _orbits.wait(cell, params, carry, jnp.zeros(1), 1000, tangent)
    return *_orbits.ends(states[-_orbits.WINDOW :]), np.asarray(exponents)


def tanh_unit(u):
    return cells.rnn(1, 1, dtype=jnp.float64), cells.Weights(w=jnp.ones((1, 1)), u=jnp.full((1, 1), u), b=jnp.zeros(1))


@pytest.mark.parametrize(("u", "period", "sets"), [(0.5, 1, 1), (2.0, 1, 2), (-2.0, 2, 1)])
def test_a_tanh_unit_ends_in_its_fixed_points_or_its_cycle_at_the_exponent_of_its_slope(u, period, sets):
    """|h| = tanh(|u h|); for u = −2 the sign changes at every step, so ±h are one cycle."""
    begun = np.asarray([-0.9, -0.2, 0.1, 0.8, 0.81])
    periods, found, exponents = waited(*tanh_unit(u), begun)
    h = 1.0
    for _ in range(200):
        h = np.tanh(abs(u) * h)
    assert np.all(periods == period) and found == sets
    assert np.allclose(exponents, np.log(abs(u) * (1 - h**2)), atol=1e-6)


def test_chaos_is_one_set_that_never_settles_and_grows_by_log_2():
    def step(params, x, _):
        return 1 - 2 * x**2  # conjugate to the tent map

    cell = sd.cell(lambda key: {"a": jnp.zeros(())}, step, lambda batch: jnp.zeros((*batch, 1)))
    periods, sets, exponents = waited(cell, {"a": jnp.zeros(())}, np.linspace(-0.9, 0.87, 16))
    assert np.all(periods == 0) and sets == 1
    assert abs(exponents.mean() - np.log(2)) < 0.05


def test_orbits_on_one_closed_curve_are_one_set_and_a_drift_is_not_settled():
    t = np.arange(_orbits.WINDOW)[:, None]
    phases = np.asarray([0.0, 1.0, 2.0, 4.0])
    radii = np.asarray([1.0, 1.0, 0.5, 0.5])
    angles = 2 * np.pi * (np.sqrt(5) - 1) / 2 * t + phases
    periods, sets = _orbits.ends(jnp.asarray(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)))
    assert np.all(periods == 0) and sets == 2
    eighths = np.stack(
        [np.cos(2 * np.pi * t * [1 / 8, 1 / 7, 1 / 9]), np.sin(2 * np.pi * t * [1 / 8, 1 / 7, 1 / 9])], -1
    )
    assert _orbits.ends(jnp.asarray(eighths)).period.tolist() == [8, 7, 0]
    drift = np.stack([t * 1e-5, t * 1e-6], axis=1)  # over the window 0.003 and 0.0003
    assert _orbits.ends(jnp.asarray(drift)).period.tolist() == [0, 1]


def test_a_chain_of_orbits_that_are_near_is_one_set():
    at = np.append(0.04 * np.asarray([0, 8, 1, 7, 2, 6, 3, 5, 4]), 0.5)
    chain = np.broadcast_to(at[None, :, None], (_orbits.WINDOW, len(at), 1))
    assert _orbits.ends(jnp.asarray(chain)).attractors == 2
    assert _orbits.ends(jnp.asarray(chain[:, :-2])).attractors == 2  # without its middle


@pytest.mark.parametrize(("u", "held", "sets"), [(2.0, 1.0, 2), (0.5, 0.5, 1)])
def test_only_a_unit_of_two_attractors_still_says_what_it_read_under_the_mean_distractor(u, held, sets):
    """A pushes up, B down; of the distractors c and d push, too, but their mean does nothing."""
    push = jnp.asarray([5.0, -5.0, 8.0, -8.0, 0.0, 0.0])[:, None]
    cell, params = cells.rnn(6, 1, dtype=jnp.float64), cells.Weights(w=push, u=jnp.full((1, 1), u), b=jnp.zeros(1))
    symbols = jnp.asarray([[0, 1, 0, 1], [4, 5, 5, 4], [2, 2, 2, 2]])
    mask = jnp.asarray([[True] * 4, [True] * 4, [False] * 4])
    ran = SimpleNamespace(
        cell=cell, params=params, carry=cell.initial_carry((4,)), xs=jax.nn.one_hot(symbols, 6), mask=mask
    )
    readout = SimpleNamespace(w=jnp.asarray([[5.0, -5.0, 0.0, 0.0]]), b=jnp.asarray([0.1, 0.0, -9.0, -9.0]))
    look: Any = SimpleNamespace(
        layers=(SimpleNamespace(ran=ran),),
        params=SimpleNamespace(readout=readout),
        batch=SimpleNamespace(ys=jnp.asarray([0, 1, 0, 1])),
        key=jax.random.key(0),
    )
    seen = _orbits.Orbits(wait=500, orbits=4).measure(look)
    assert seen["held"] == held and seen["attractors"] == sets and np.all(seen["orbit_period"] == 1)
    assert np.allclose(seen["orbit_read"][:, 0], [0, 1, 0, 1] if sets == 2 else 0.475, atol=1e-3)


def looks(attractors, accuracy, loss, **more):
    path = {"case": "gru", "seed": 3, "update": np.arange(len(loss)) * 30, "attractors": np.asarray(attractors)}
    path |= {"accuracy": np.asarray(accuracy), "loss": np.asarray(loss), "held": np.asarray(accuracy) / 2}
    return path | {name: np.asarray(more.get(name, np.zeros(len(loss)))) for name in ("exponent", "settled", "chaotic")}


def test_a_run_is_judged_at_its_last_learned_look_and_its_loss_before_its_first_bifurcation():
    row = attractors.row(looks([1, 1, 2, 4, 3], [0.2, 0.3, 0.6, 1.0, 0.9], [1, 0.95, 0.6, 0.1, 0.3]))
    assert (row["learned"], row["one_at_start"], row["loss_before"], row["lead"]) == (1, 1, 0.95, 30)
    assert (row["attractors"], row["enough"], row["held"], row["chaos"]) == (4, 1, 0.5, 0)
    late = attractors.row(looks([2, 1], [0.2, 0.9], [1, 0.5], chaotic=[0, 0.25]))
    assert (late["learned"], late["one_at_start"], late["chaos"]) == (0, 0, 1)
    assert all(np.isnan(late[name]) for name in ("loss_before", "lead", "attractors", "enough", "held", "exponent"))
    assert attractors.row(looks([1, 1], [0.2, 1.0], [1, 0.5]))["lead"] == -np.inf


def test_the_orbits_that_are_drawn_are_those_of_the_seed_that_learns_at_the_median_look():
    def path(seed, at):
        return {"seed": seed, "accuracy": [1.0 if look == at else 0.5 for look in range(6)]}

    assert orbits.typical([path(0, 5), path(1, 1), path(2, 3), path(3, None)], 0.99) == 2
    assert orbits.typical([path(0, 5), path(1, 1)], 0.99) == 1
    assert orbits.typical([path(7, None)], 0.99) == 7


def test_a_claim_is_judged_on_rows_as_on_runs_and_keeps_what_the_paper_says():
    rows = [{"seed": seed, "of": kind, "value": seed + kind} for seed in range(20) for kind in (1, 100)]
    claim = claims.Claim("values", "median", claims.of("value", of=100), 50.0, source="who", paper="about 110")
    (row,) = measured.judged([claim], rows)
    assert row["paper"] == "about 110" and row["ours"] == "110" and row["verdict"] == "holds" and row["n"] == "20"


def test_what_is_measured_is_among_the_claims_below_a_directory(tmp_path, capsys):
    rows = [{"seed": i, "width": 8, "far": 1.0 + i / 100} for i in range(20)]
    kept = tmp_path / "one" / "one.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"rows": rows}))
    above = claims.Claim("it is far", "median", claims.of("far", width=8), 0.5, source="theirs", paper="> 0")
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
