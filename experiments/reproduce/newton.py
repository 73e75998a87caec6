"""Gonzalez et al. 2025, 'Predictability enables parallelization of nonlinear state space models', figure 2.

Claim: Newton's method on a whole trajectory takes few steps where the largest Lyapunov exponent λ is negative, whatever
the length T, and about T where the dynamics are chaotic.
Setting, as in the paper and its authors' code: s_t = g W tanh(s_{t−1}) + u_t, D = 100, W ~ N(0, 1/D) without its
diagonal, u_t = a sin(ω t + φ), states guessed uniform in [−1, 1], float64. Not as there: they stop where ½ Σ r²/T is
below 1e-10, here no state may be off by more than 1e-5; and a Newton step is solved from t to t + 1, which on a CPU
counts the same steps in less time.
Cost: 160 networks of 1,000 steps, 15 minutes of processor time; `--paper` has 1,000 of 10,000 steps, hours.
Expect: the claims; their verdicts are printed, and how much longer Newton's method takes on this CPU than one step
after the other.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import newton as analysis
from analysis.measured import show
from experiments import _measured
from seqdyn import backend
from seqdyn.measure.lyapunov import lyapunov_spectrum
from seqdyn.measure.newton import newton
from seqdyn.nets.bptt import unroll
from seqdyn.runs.display import plain_console
from seqdyn.runs.script import script, with_preset
from seqdyn.types import Array, Key, whole

TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Presets):
    """How many networks, and how long."""

    nets: int = 10
    """Networks drawn for each gain."""
    gains: int = 16
    """Gains g from 0.5 to 2."""
    hidden: int = 100
    """D, units."""
    steps: int = 1000
    """T of the longest sequence; the others are its first steps."""
    seed: int = 0
    """Of all draws."""


def cell(hidden: int) -> sd.Cell:
    """s' = W tanh(s) + u."""

    def step(params: Any, s: Array, u: Array) -> Array:
        return jnp.tanh(s) @ params["w"].T + u

    return sd.cell(lambda key: {"w": jnp.zeros((hidden, hidden))}, step, lambda batch: jnp.zeros((*batch, hidden)))


def networks(key: Key[Array, ""], n: int, steps: int) -> tuple[Array, Array, Array, Array]:
    """(W, u_t, s_0, the guess) of a network at g = 1."""
    k_w, k_a, k_omega, k_phi, k_s, k_guess = jax.random.split(key, 6)
    a = jax.random.uniform(k_a, (n,), maxval=0.2)
    omega = jax.random.uniform(k_omega, (n,), minval=0.5, maxval=3.0)
    phi = jax.random.uniform(k_phi, (n,), maxval=2 * jnp.pi)
    u = a * jnp.sin(omega * jnp.arange(1.0, steps + 1)[:, None] + phi)
    w = jax.random.normal(k_w, (n, n)) / n**0.5 * (1 - jnp.eye(n))
    first = jax.random.uniform(k_s, (n,), minval=-1.0, maxval=1.0)
    return w, u, first, jax.random.uniform(k_guess, (steps, n), minval=-1.0, maxval=1.0)


def measured(c: Config) -> list[dict[str, Any]]:
    """Of each gain and network its largest exponent and, for each length, the Newton steps."""
    of = cell(c.hidden)

    @backend.compiled
    def program(gain: Array, key: Array) -> tuple[Array, Array]:
        w, u, first, guess = networks(key, c.hidden, c.steps)
        given = of, {"w": gain * w}, of.initial_carry(())._replace(h=first), u
        found = newton(*given, tolerance=TOLERANCE, guess=given[2]._replace(h=guess), sequential=True)
        burn = c.steps // 10
        return found.steps, lyapunov_spectrum(*given, jax.random.key(0), k=1, burn=burn).exponents[0]

    rows = []
    for gain in np.linspace(0.5, 2.0, c.gains):
        for net, key in enumerate(jax.random.split(jax.random.key(c.seed), c.nets)):
            steps, exponent = jax.device_get(program(gain, key))
            at = {t: int(steps[t - 1]) for t in analysis.lengths(c.steps)}
            rows.append(analysis.row(net, float(gain), float(exponent), at))
    return rows


def timed(c: Config) -> dict[str, float]:
    """Milliseconds, medians in turn, of all states of one network at g = 0.8: one after the other, and by Newton's
    method with an associative scan."""
    of = cell(c.hidden)
    w, u, first, guess = networks(jax.random.key(c.seed), c.hidden, c.steps)
    given = {"w": 0.8 * w}, of.initial_carry(())._replace(h=first), u
    ways = {
        "unroll": backend.compiled(lambda *given: unroll(of, *given)[0]),
        "newton": backend.compiled(
            lambda *given: newton(of, *given, tolerance=TOLERANCE, guess=given[1]._replace(h=guess)).states.h
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(8):
        for name, program in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*given))
            if turn:  # the first compiles
                found[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(times)) for name, times in found.items()}


def main(config: Config) -> None:
    """Measures, keeps every number, draws, and holds the paper against it."""
    config = with_preset(
        config,
        smoke=dict(nets=2, gains=4, hidden=8, steps=40),
        paper=dict(nets=20, gains=50, steps=10_000),
    )
    for name in ("nets", "gains", "hidden", "steps"):
        whole(name, getattr(config, name), 10 if name == "steps" else 1)
    whole("seed", config.seed, 0)
    _measured.check_memory({"steps": config.steps, "hidden": config.hidden}, config.steps * config.hidden**2)
    _measured.check_memory({"gains": config.gains, "nets": config.nets}, config.gains * config.nets)
    kept = _measured.once("newton", config, lambda c: {"rows": measured(c), "milliseconds": timed(c)})
    show(kept, analysis.CLAIMS, analysis.figure)
    times = json.loads(kept.read_text(encoding="utf-8"))["milliseconds"]
    slower = times["newton"] / times["unroll"]
    plain_console().print(f"At g = 0.8 Newton's method took {slower:.2g} times as long as one step after the other.")


if __name__ == "__main__":
    script(Config, main, __doc__)
