"""Dinc et al. 2025, 'A ghost mechanism: An analytical model of abrupt learning in recurrent networks' (2501.02378).

Claim: a unit that must turn on at time T learns by the ghost of a saddle-node, x' = x² + r: from x = 0 it takes
t* = π/(2 √r). The loss |t* − T| has its minimum at r* = (π/2T)², a no-learning zone below r*/4, where nothing happens
within 2T, and steep walls between: above a critical learning rate ∝ T⁻⁵ descent ends in that zone.
Setting, as in the authors' code for their figure 2: r starts at 10 r* with 10% of noise, plain descent. From their
gradient, π/4 r^{−3/2} → 2T³/π² at r*, follows a rate α* whose step from r* just reaches r*/4: α* = (3π⁴/32) T⁻⁵. Not as
there: besides their loss we train the unit itself through time. As x runs to infinity in finite time, it is written
x = tan(θ/2), θ' = 1 − cos θ + (1 + cos θ) r, which is smooth, and stops at θ = π; the output is (1 − cos θ)/2, wanted 0
before T and 1 from T to 2T; the loss is the integral of the square of its error; Euler steps of 1/8.
Cost: their loss 1,200 runs × 15,000 updates, the unit 1,600 × 1,500; two minutes of processor time; `--paper` takes
an hour.
Expect: the claim of their loss, where T can be scaled away: exactly, within the grid of rates. The unit's critical rate
has the exponent −5.1 from T = 8 to 64, and at 64 it is 1.4 α*; above 4 α* most runs end where nothing is learned.
That zone is their word for their own loss. Of the unit it means that it does not turn on within 2T: at T = 8 such runs
lie below the bifurcation, at r < 0, and drift on from there.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import ghost as analysis
from analysis.claims import Claim, Statistic, of
from analysis.ghost import CONSTANT
from analysis.measured import show
from experiments import _measured
from seqdyn import backend
from seqdyn.nets.bptt import unroll
from seqdyn.runs.script import Seeds, script, seeds, with_preset
from seqdyn.types import Array, ConfigError, whole

SOURCE = "Dinc et al. 2025"
DT = 0.125
"""The unit's Euler step."""
LONGEST = 1_000_000
"""Of T, whose steps are memory."""


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Presets):
    """Lengths × rates × seeds."""

    seeds: Seeds = 20
    """Seeds of the beginnings: how many, from 0 on, a range or a list."""
    lengths: tuple[float, ...] = (8, 16, 32, 64)
    """T of the unit; that of the model goes to 100 times as long."""
    updates: int = 1500
    """Of each run of the unit; ten times as many of the model."""
    rates: int = 20
    """Learning rates, α T⁵ from 3 to 100."""


def optimum(t: Any) -> Any:
    """r* = (π / 2T)²"""
    return (np.pi / (2 * t)) ** 2


def starts(c: Config, t: float) -> np.ndarray:
    """r of each seed, 10 r* with 10% of r* as noise: [seeds]."""
    noise = [np.random.default_rng((seed, round(t))).standard_normal() for seed in seeds(c.seeds)]
    return optimum(t) * (10 + 0.1 * np.asarray(noise))


def slope(r: Any, t: Any) -> Any:
    """d|t* − T|/dr = ± π/4 r^{−3/2}; 0 below r*/4, where t* > 2T."""
    best = optimum(t)
    steep = np.pi / 4 * np.maximum(r, best / 4) ** -1.5
    return np.where(r < best / 4, 0.0, np.where(r <= best, -steep, steep))


def model(c: Config, t: float, rates: np.ndarray) -> np.ndarray:
    """r / r* at the end of descent on |t* − T|: [rates, seeds]."""
    r = np.broadcast_to(starts(c, t), (len(rates), len(seeds(c.seeds)))).copy()
    for _ in range(10 * c.updates):
        r -= rates[:, None] * slope(r, t)
    return r / optimum(t)


def unit() -> sd.Cell:
    """θ' = 1 − cos θ + (1 + cos θ) r, at rest from π on."""

    def step(params: Any, theta: Array, x: Array) -> Array:
        after = theta + DT * (1 - jnp.cos(theta) + (1 + jnp.cos(theta)) * params["r"])
        return jnp.minimum(after, jnp.pi)

    return sd.cell(lambda key: {"r": jnp.zeros(())}, step, lambda batch: jnp.zeros((*batch, 1)))


def loss(r: Array, t: float) -> Array:
    """∫ (output − [time ≥ T])² up to 2T."""
    of = unit()
    steps = round(2 * t / DT)
    theta, _ = unroll(of, {"r": r}, of.initial_carry((1,)), jnp.zeros((steps, 1, 1)))
    wanted = np.asarray(np.arange(1, steps + 1) * DT >= t, float)
    return DT * jnp.sum(((1 - jnp.cos(theta[:, 0, 0])) / 2 - jnp.asarray(wanted)) ** 2)


def trained(c: Config, t: float, rates: np.ndarray) -> np.ndarray:
    """r / r* at the end of descent on the unit's loss, its gradient by backpropagation through time: [rates, seeds]."""

    @partial(backend.compiled, static_argnums=2)
    def descend(r: Array, rate: Array, updates: int) -> Array:
        gradient = jax.vmap(jax.grad(lambda r: loss(r, t)))
        return jax.lax.fori_loop(0, updates, lambda _, r: r - rate * gradient(r), r)

    first = starts(c, t)
    grid = np.broadcast_to(rates[:, None], (len(rates), len(first))).ravel()
    r = descend(jnp.asarray(np.tile(first, len(rates))), jnp.asarray(grid), c.updates)
    return np.asarray(r).reshape(len(rates), len(first)) / optimum(t)


def critical(rates: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The smallest rate of which a seed's run ends in the no-learning zone, infinity if of none: [seeds]."""
    dead = ends < 0.25
    return np.where(dead.any(axis=0), rates[dead.argmax(axis=0)], np.inf)


def measured(c: Config) -> dict[str, Any]:
    """Where runs end, and the critical rate of each length and seed."""
    scaled = np.geomspace(3, 100, c.rates)
    rows, ends = [], []
    lengths = {"model": [min(c.lengths), max(c.lengths), 100 * max(c.lengths)], "unit": list(c.lengths)}
    for kind, of_kind in lengths.items():
        for t in of_kind:
            # α is a multiple of T⁻⁵ in either, so that the grid is no finer at one length than at another.
            rates = scaled * float(t) ** -5
            found = (model if kind == "model" else trained)(c, float(t), rates)
            crit = critical(rates, found)
            rows += [
                {
                    "seed": s,
                    "kind": kind,
                    "T": float(t),
                    "critical": float(a),
                    "scaled": float(a) * float(t) ** 5,
                    "dead_above": float(np.mean(found[scaled > 4 * CONSTANT, k] < 0.25)),
                }
                for k, (s, a) in enumerate(zip(seeds(c.seeds), crit, strict=True))
            ]
            ends.append({"kind": kind, "T": float(t), "scaled": scaled.tolist(), "r": found.tolist()})
    return {"rows": rows, "ends": ends}


def exponent(kind: str, low: float, high: float) -> Statistic:
    """Of the critical rate, from one length to another, plus 5."""

    def values(runs: Any) -> Any:
        ends = [np.log(of("critical", kind=kind, T=float(t))(runs)) for t in (high, low)]
        return (ends[0] - ends[1]) / np.log(high / low) + 5

    return values


def stated(c: Config) -> list[Claim]:
    """The paper's law, of its model and of the unit."""
    low, high = float(min(c.lengths)), float(max(c.lengths))
    longest = 100 * high
    return [
        Claim(
            f"their loss: critical rate ∝ T⁻⁵, exponent from T = {low:g} to {longest:g}, plus 5",
            "slope",
            exponent("model", low, longest),
            0.1,
            "within",
            SOURCE,
            paper="0",
        ),
        Claim(
            f"their loss, T = {high:g}: critical rate over (3π⁴/32) T⁻⁵, less 1",
            "median",
            lambda runs: of("scaled", kind="model", T=high)(runs) / CONSTANT - 1,
            0.25,
            "within",
            "derived here",
        ),
        Claim(
            f"the unit: critical rate ∝ T⁻⁵, exponent from T = {low:g} to {high:g}, plus 5",
            "slope",
            exponent("unit", low, high),
            0.25,
            "within",
            SOURCE,
            paper="0",
        ),
        Claim(
            f"the unit, T = {high:g}: critical rate over (3π⁴/32) T⁻⁵, less 1",
            "median",
            lambda runs: of("scaled", kind="unit", T=high)(runs) / CONSTANT - 1,
            0.5,
            "within",
            "derived here",
        ),
        Claim(
            f"the unit, T = {high:g}, rates above four times that: share that ends where nothing is learned",
            "median",
            of("dead_above", kind="unit", T=high),
            0.5,
            source=SOURCE,
            paper="most",
        ),
    ]


def main(config: Config) -> None:
    """Measures, keeps every number, draws, and holds the paper against it."""
    config = with_preset(
        config,
        smoke=dict(seeds=2, lengths=(4, 8), updates=30, rates=6),
        paper=dict(seeds=100, lengths=(8, 16, 32, 64, 128), updates=3000),
    )
    for name in ("updates", "rates"):
        whole(name, getattr(config, name), 1)
    for length in config.lengths:
        if not 1 <= length <= LONGEST:
            raise ConfigError(f"lengths has {length:g}; it must be from 1 to {LONGEST:,}.")
    runs = config.rates * len(seeds(config.seeds))
    sizes = {"lengths": max(config.lengths), "rates": config.rates, "seeds": len(seeds(config.seeds))}
    _measured.check_memory(sizes, runs * 2 * max(config.lengths) / DT)
    show(_measured.once("ghost", config, measured), stated(config), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
