"""Does a recurrent network learn where theory puts the edge of chaos, and is the edge where theory puts it?

Hypothesis: in h_t = tanh(W h_{t−1} + V x_t), W_ij ~ N(0, g²/N), the squared adjoint E‖∂L/∂h_t‖² changes by χ₁ a step,
nearby states part at the exponent ½ log χ₁ (Molgedey, Schuchhardt & Schuster 1992; Poole et al. 2016), and the line
χ₁(g, s) = 1 bends towards larger gains g as the input's drive s, which suppresses chaos, grows. What is d steps away
can be learned only where a few depth scales ξ = 1/|log χ₁| reach as far, 6ξ ≥ d (Schoenholz et al. 2017; for recurrent
networks Chen, Pennington & Schoenholz 2018): a band along the line, narrower the longer d.
Training: delayed XOR (after Engelken 2023) at T = 15, that is over 9 and 4 steps, on a plane of gain × drive; inputs
±1, so s is exactly the deviation of V's entries. Exponents of each network are recorded before and along training.
Theory: wide networks driven by white Gaussian input are held against it at three drives: growth, largest exponent,
and the whole spectrum of exponents.
Cost: 720 runs × 2,000 updates and 297 wide networks, ten minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed. Wide networks are held against theory in the report: growth
against χ₁, exponents against ½ log χ₁ (above it where a weakly driven network is nearly linear and sees the largest
eigenvalue of its own W), whole spectra against the curve.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from analysis import chaos_plane, claims
from analysis import edge_of_chaos as analysis
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.measure.lyapunov import lyapunov_spectrum
from seqdyn.nets.bptt import Backprop, Tap, taps, unroll
from seqdyn.nets.cells import Cell, rnn
from seqdyn.nets.inits import Gaussian, Identity
from seqdyn.runs.script import Claiming, Seeds, launch, replicated, script, with_preset
from seqdyn.types import Array, ConfigError, Key


@dataclass(frozen=True, kw_only=True)
class Config(Claiming):
    """The plane is gains × drives × seeds; the wide networks are gains × white × nets."""

    gains: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0)
    """g of W_ij ~ N(0, g²/N)."""
    drives: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    """s: s² is the variance per unit of V x_t. Even ratios make an even plane."""
    seeds: Seeds = 10
    steps: int = 15
    """T; the bits to be compared lie a third and two thirds of the way."""
    hidden: int = 64
    """Width of the networks that are trained."""
    batch: int = 32
    lr: float = 1e-3
    clip: float = 1.0
    updates: int = 2000
    chunk: int = 250
    tile: int = 9
    white: tuple[float, ...] = (0.1, 0.4, 1.6)
    """Drives at which wide networks are held against theory."""
    spectra: tuple[float, ...] = (0.75, 1.5, 3.0)
    """Gains at which all of their exponents are measured."""
    width: int = 300
    """N of the wide networks."""
    length: int = 1000
    """Steps over which their largest exponent is taken; a third of it for all exponents."""
    nets: int = 4
    """Wide networks drawn for each point; one for a whole spectrum."""


def check(c: Config) -> None:
    """Raises ConfigError for what `Experiment` would not find."""
    for name in ("gains", "drives", "white", "spectra"):
        values = getattr(c, name)
        if not values or min(values) <= 0:
            raise ConfigError(f"{name} is {values}; give values greater than 0 (undriven, a network stays at rest).")
    for name, least in (("width", 2), ("length", 60), ("nets", 1)):
        if getattr(c, name) < least:
            raise ConfigError(f"{name} is {getattr(c, name)}; it must be at least {least}.")


def experiment(c: Config) -> Experiment:
    """One spec; what the wide networks are is part of what the directory holds."""
    spec = Spec(
        task="delayed_xor",
        steps=c.steps,
        batch=c.batch,
        hidden=(c.hidden,),
        w_init="gaussian",
        u_init="gaussian",
    )
    numbers = grid(seeds=c.seeds, gain=c.gains, input_gain=c.drives, lr=c.lr, clip=c.clip)
    every = c.chunk * max(1, c.updates // c.chunk // 4)
    settings = {name: getattr(c, name) for name in ("white", "spectra", "width", "length", "nets")}
    return Experiment(
        "edge_of_chaos",
        (spec,),
        numbers,
        c.updates,
        c.chunk,
        every,
        c.tile,
        probes=("weights", "lyapunov"),
        modes=4,
        settings=settings,
    )


# --- wide networks under white input ------------------------------------------------------------------------


def driven(n: int, steps: int, gain: Array, drive: Array, key: Key[Array, ""], b: int) -> tuple[Cell, Any, Any, Array]:
    """(cell, params, a state on the attractor, fresh input for every unit)."""
    k_params, k_xs = jax.random.split(key)
    cell = rnn(n, n, "tanh", w=Identity(drive), u=Gaussian(gain), dtype=jnp.float64)
    params, burn = cell.init(k_params), 100
    xs = jax.random.normal(k_xs, (burn + steps, b, n))
    _, carry = unroll(cell, params, cell.initial_carry((b,)), xs[:burn])
    return cell, params, carry, xs[burn:]


def growth(n: int, gain: Array, drive: Array, key: Key[Array, ""]) -> Array:
    """E‖∂L/∂h_t‖² a step further from L = v·h_T, v random: exp of the slope of its logarithm over lags 5 … 45."""
    first, last, b = 5, 45, 8
    k_net, k_v = jax.random.split(key)
    cell, params, carry, xs = driven(n, last + 1, gain, drive, k_net, b)
    v = jax.random.normal(k_v, (b, n))

    def loss(watch: Tap) -> Array:
        return jnp.sum(v * unroll(cell, params, carry, xs, Backprop(), watch)[1].h)

    norms = jax.grad(loss)(taps(cell, last + 1, (b,))).adjoint_norm.h
    energy = jnp.log(jnp.mean(jnp.square(norms), axis=1))[::-1][first:]
    lags = jnp.arange(energy.shape[0]) - (energy.shape[0] - 1) / 2
    return jnp.exp(lags @ energy / (lags @ lags))


def exponents(n: int, steps: int, k: int, gain: Array, drive: Array, key: Key[Array, ""]) -> Array:
    """The k largest exponents."""
    k_net, k_frame = jax.random.split(key)
    burn = steps // 10
    cell, params, carry, xs = driven(n, burn + steps, gain, drive, k_net, 1)
    return lyapunov_spectrum(cell, params, carry, xs, k_frame, k, burn).exponents[0]


def measured(c: Config) -> dict[str, Any]:
    """Rows of wide networks: drive, gain, and what each net gave."""
    programs = {
        "growth": backend.compiled(partial(growth, c.width)),
        "exponent": backend.compiled(lambda *at: exponents(c.width, c.length, 1, *at)[0]),
        "spectrum": backend.compiled(partial(exponents, c.width, c.length // 3, c.width)),
    }

    def over(name: str, gains: tuple[float, ...], nets: int) -> list[dict[str, Any]]:
        keys = jax.random.split(jax.random.key(0), nets)
        return [
            {"drive": s, "gain": g, "nets": [np.asarray(programs[name](g, s, key)).tolist() for key in keys]}
            for s in c.white
            for g in gains
        ]

    with jax.enable_x64(True):
        return {
            "growth": over("growth", c.gains, c.nets),
            "exponent": over("exponent", c.gains, c.nets),
            "spectrum": over("spectrum", c.spectra, 1),
        }


def keep(out: Path, c: Config) -> None:
    """Measures the wide networks, once a run directory."""
    kept = out / analysis.WIDE
    if not kept.exists():
        partial_file = kept.with_name(f".{kept.name}")
        partial_file.write_text(json.dumps(measured(c)) + "\n", encoding="utf-8")
        partial_file.replace(kept)


# --- what is claimed ----------------------------------------------------------------------------------------

SCHOENHOLZ = "Schoenholz et al. 2017"


def _of(column: str, **where: Any) -> Statistic:
    """At the default length."""
    return of(column, steps=15, **where)


CLAIMS = (
    Claim(
        "Within the band 6ξ ≥ d a larger share of a seed's networks learns than outside",
        "difference",
        minus(_of("learned", within=1), _of("learned", within=0)),
        0.0,
        "above",
        SCHOENHOLZ,
    ),
    Claim("Outside it fewer than a third learn", "median", _of("learned", within=0), 1 / 3, "below", SCHOENHOLZ),
    Claim(
        "Within it more learn near the critical line (3ξ ≥ d) than further off",
        "difference",
        minus(_of("learned", near=1), _of("learned", within=1, near=0)),
        0.0,
    ),
    Claim(
        "The band is not enough: within it fewer learn at the weakest drive than at s = 0.2",
        "difference",
        minus(_of("learned", within=1, input_gain=0.05), _of("learned", within=1, input_gain=0.2)),
        0.0,
        "below",
    ),
    Claim(
        "Nor is it at the strongest: fewer learn there than at s = 0.2",
        "difference",
        minus(_of("learned", within=1, input_gain=1.6), _of("learned", within=1, input_gain=0.2)),
        0.0,
        "below",
    ),
    Claim(
        "Before training the largest exponent of networks this small is within 0.1 of ½ log χ₁ (mean of the plane)",
        "median",
        _of("off"),
        0.1,
        "below",
    ),
    Claim(
        "Networks that learned end at the edge of chaos: the mean of their largest exponents is within 0.1 of 0",
        "median",
        _of("exponent_end", learned=1),
        0.1,
        "within",
    ),
    Claim(
        "They began further from it",
        "difference",
        minus(_of("distance_end", learned=1), _of("distance_start", learned=1)),
        0.0,
        "below",
    ),
)
"""At T = 15, within 2,000 updates, of a seed's networks on the plane."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), measures, then draws; the verdicts."""
    out = launch(experiment(config), config)
    keep(out, config)
    return claims.report(CLAIMS, [out], lambda verdicts: analysis.show(out, verdicts), chaos_plane.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(
        config,
        dict(
            gains=config.gains[:3], drives=config.drives[:2], seeds=2, steps=6, hidden=6, batch=4, updates=20, chunk=10
        )
        | dict(white=config.drives[:2], spectra=config.spectra[:2], width=16, length=60, nets=2),
    )
    check(config)
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
