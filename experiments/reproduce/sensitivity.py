"""Zucchet & Orvieto 2024, 'Recurrent neural networks: vanishing and exploding gradients are not the end of the story'
(NeurIPS, arXiv 2405.21064).

Claim: without any exploding gradient, the state of h_t = λ h_{t−1} + x_t answers the more strongly to a change of λ the
longer its memory. Normalised inputs and λ = exp(−exp ν + iθ) tame that for ν, not for the angle. At the optimum of a
student of its own teacher the loss is as sharp for a complex diagonal recurrence as for a dense one, but its steepest
directions lie along few parameters, which Adam can scale.
Setting: sensitivity is E‖∂h_T/∂p‖² over white x, T = 8/(1 − |λ|), |λ| from 0.9 to 0.997, of our `diagonal` with λ
and of our LRU. The Hessian is that of the authors' code for figure 4: 4 states, conjugate pairs of eigenvalues, |λ|
from 0.99 to 0.993, complex Gaussian eigenvectors, one input and one output, 300 steps. Not as there: the mean over
inputs is exact, and they show one teacher. By theory E|∂h/∂λ|² = (1 + |λ|²)/(1 − |λ|²)³: the exponents of 1 − |λ|
are −3 for λ, 0 for ν and −2 for θ, where the state is normalised by √(1 − |λ|²).
Cost: 40 seeds × (4 × 3 sensitivities, 3 Hessians), half a minute of processor time; `--paper` takes minutes.
Expect: the claims, but one: over 40 teachers the dense recurrence is 25 times as sharp as the diagonal one. A steep
direction of it is made of 5 parameters, of the diagonal one of fewer than 3; the LRU's steepest is its angles.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import sensitivity as analysis
from analysis.claims import Claim, Statistic, minus, of
from analysis.measured import show
from experiments import _measured
from seqdyn import backend
from seqdyn.nets.diagonal import Coefficients, diagonal, parallel
from seqdyn.runs.script import Seeds, script, seeds, with_preset
from seqdyn.types import Array, ConfigError, whole

SOURCE = "Zucchet & Orvieto 2024"
TOP = 4
"""Steepest directions that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Presets):
    """Seeds of recurrences, inputs and teachers."""

    seeds: Seeds = 40
    """Seeds: how many, from 0 on, a range or a list."""
    sizes: tuple[float, ...] = (0.9, 0.97, 0.99, 0.997)
    """|λ|"""
    sequences: int = 64
    """Inputs over which a sensitivity is averaged."""
    states: int = 4
    """Of a teacher: an even number."""
    steps: int = 300
    """Of a teacher's sequences."""


def plain() -> Any:
    """h_t = λ h_{t−1} + x_t of one complex unit whose λ is the parameter, as two real ones."""

    def coefficients(params: Any, xs: Array) -> Coefficients:
        a, turn = (jnp.broadcast_to(params[name], (*xs.shape[:-1], 2)) for name in ("re", "im"))
        return Coefficients(a, xs, turn)

    return diagonal(lambda key: {"re": jnp.zeros(()), "im": jnp.zeros(())}, coefficients, 2)


def squares(cell: Any, params: Any, xs: Array) -> Any:
    """E‖∂h_T/∂p‖² of each parameter, over sequences xs [t, b, d]."""

    def each(x: Array) -> Any:
        return jax.jacrev(lambda p: parallel(cell, p, x[:, None])[-1, 0])(params)

    return jax.tree.map(lambda j: jnp.mean(jnp.sum(j.reshape(len(j), 2, -1) ** 2, (1, 2))), jax.vmap(each, 1)(xs))


def sensitivities(size: float, sequences: int, key: Any) -> dict[str, Array]:
    """Of one recurrence: by λ where that is the parameter, by ν and by the angle in our LRU; white complex inputs."""
    k_phase, k_x, k_lru = jax.random.split(key, 3)
    phase = jax.random.uniform(k_phase, maxval=2 * jnp.pi)
    xs = jax.random.normal(k_x, (round(8 / (1 - size)), sequences, 2)) / 2**0.5
    lru, one = sd.LRU(hidden=2).build(2), jnp.ones(1)
    weights = lru.init(k_lru)._replace(
        log_nu=jnp.log(-jnp.log(size * one)),
        log_theta=jnp.log(phase * one),
        log_gamma=0.5 * jnp.log1p(-((size * one) ** 2)),
        re=jnp.asarray([[1.0], [0.0]]),
        im=jnp.asarray([[0.0], [1.0]]),  # B x = x_0 + i x_1
    )
    by_lambda = squares(plain(), {"re": size * jnp.cos(phase), "im": size * jnp.sin(phase)}, xs)
    by_log = squares(lru, weights, xs)
    # ∂h/∂Re λ is as long as ∂h/∂Im λ, and ∂h/∂θ is ∂h/∂log θ over θ.
    return {"lambda": by_lambda["re"], "nu": by_log.log_nu, "theta": by_log.log_theta / phase**2}


def teacher(seed: int, states: int) -> dict[str, Any]:
    """A real linear system of `states` whose eigenvalues are conjugate pairs, dense and diagonal."""
    rng = np.random.default_rng(seed)
    half = states // 2
    values = (0.99 + 0.003 * rng.uniform(size=half)) * np.exp(2j * np.pi * rng.uniform(size=half))
    values = np.concatenate([values, values.conj()])
    u = (rng.standard_normal((half, states)) + 1j * rng.standard_normal((half, states))) / 8**0.5
    vectors = np.linalg.inv(np.concatenate([u, u.conj()]))
    vectors = vectors / np.linalg.norm(vectors, axis=0)  # as an eigenvalue routine returns them
    inverse = np.linalg.inv(vectors)
    a = (vectors @ (values[:, None] * inverse)).real
    b, c = rng.standard_normal(states) / states**0.5, rng.standard_normal(states) / states**0.5
    inner, outer = inverse @ b, c @ vectors
    return {"a": a, "b": b, "c": c, "values": values, "inner": inner, "outer": outer}


def responses(given: dict[str, Any], steps: int) -> dict[str, tuple[Any, Any]]:
    """Of each parametrisation: (parameters -> its response k ↦ c A^k b, k < steps, and D first), the parameters."""
    values, inner, outer = given["values"], given["inner"], given["outer"]

    def dense(p: Any) -> Array:
        def step(h: Array, _: Any) -> tuple[Array, Array]:
            return p["a"] @ h, p["c"] @ h

        return jnp.append(jax.lax.scan(step, p["b"], None, length=steps)[1], p["d"])

    def of_modes(lam: Array, p: Any, gamma: Any = 1.0) -> Array:
        b, c = (jax.lax.complex(*p[name]) for name in ("b", "c"))
        powers = jnp.cumprod(jnp.stack([jnp.ones_like(lam), *[lam] * (steps - 1)]), axis=0)
        both = b * c
        return jnp.append((powers @ jax.lax.complex(gamma * jnp.real(both), gamma * jnp.imag(both))).real, p["d"])

    def of_lambda(p: Any) -> Array:
        return of_modes(jax.lax.complex(*p["lambda"]), p)

    def lru(p: Any) -> Array:
        return of_modes(jnp.exp(jax.lax.complex(-jnp.exp(p["nu"]), jnp.exp(p["theta"]))), p, jnp.exp(p["gamma"]))

    def halves(z: Any) -> Array:
        return jnp.stack([jnp.asarray(z.real), jnp.asarray(z.imag)])

    gamma, angle = np.sqrt(1 - np.abs(values) ** 2), np.mod(np.angle(values), 2 * np.pi)
    logs = {"nu": np.log(-np.log(np.abs(values))), "theta": np.log(angle), "gamma": np.log(gamma)}
    alike = {"c": halves(outer), "d": jnp.zeros(())}
    return {
        "dense": (dense, {name: jnp.asarray(given[name]) for name in ("a", "b", "c")} | {"d": jnp.zeros(())}),
        "diagonal": (of_lambda, {"lambda": halves(values), "b": halves(inner)} | alike),
        "lru": (lru, {n: jnp.asarray(v) for n, v in logs.items()} | {"b": halves(inner / gamma)} | alike),
    }


def hessian(response: Any, params: Any, steps: int) -> np.ndarray:
    """Of ½ E (y_t − y*_t)², the mean over t ≤ `steps` and white inputs, where both are the same: Jᵀ diag(1 − k/T) J."""
    flat, back = jax.flatten_util.ravel_pytree(params)
    j = np.asarray(jax.jacfwd(lambda p: response(back(p)))(flat))
    return j.T @ (np.append(1 - np.arange(steps) / steps, 1.0)[:, None] * j)


def steepest(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues from the largest, the squares of the components of the steepest directions [p, TOP])"""
    values, vectors = np.linalg.eigh(h)
    return values[::-1], vectors[:, -TOP:] ** 2


def measured(c: Config) -> dict[str, Any]:
    """Of each seed: sensitivities at every |λ|, and the sharpness and spread of each parametrisation's Hessian."""
    rows, spectra = [], []
    for size in c.sizes:
        program = backend.compiled(partial(sensitivities, size, c.sequences))
        for seed in seeds(c.seeds):
            found = jax.device_get(program(jax.random.fold_in(jax.random.key(seed), round(1e4 * size))))
            rows.append({"seed": seed, "of": "state", "size": size} | {n: float(v) for n, v in found.items()})
    for seed in seeds(c.seeds):
        for name, (response, params) in responses(teacher(seed, c.states), c.steps).items():
            values, shares = steepest(hessian(response, params, c.steps))
            spectra.append({"of": name, "eigenvalues": values.tolist()})
            row: dict[str, Any] = {"seed": seed, "of": name, "sharpness": float(values[0])}
            row["reach"] = float(np.mean(1 / np.sum(shares**2, axis=0)))  # of how many parameters a direction is made
            if name == "lru":
                angle = np.asarray(
                    jax.flatten_util.ravel_pytree({n: v * 0 + (n == "theta") for n, v in params.items()})[0]
                )
                row["angle"] = float(angle @ shares[:, -1])
            rows.append(row)
    keys = dict.fromkeys(name for row in rows for name in row)
    return {"rows": [{name: row.get(name, float("nan")) for name in keys} for row in rows], "spectra": spectra}


def exponent(name: str, low: float, high: float, expected: int) -> Statistic:
    """Of E‖∂h/∂p‖² against 1 − |λ|, between two |λ|, less what is expected."""

    def values(runs: Any) -> Any:
        ends = [np.log(of(name, size=size)(runs)) for size in (high, low)]
        return (ends[0] - ends[1]) / np.log((1 - high) / (1 - low)) - expected

    return values


def stated(c: Config) -> list[Claim]:
    """The paper's statements."""
    low, high = min(c.sizes), max(c.sizes)
    parameters = {"lambda": ("λ itself", -3), "nu": ("ν, normalised", 0), "theta": ("the angle, normalised", -2)}

    def sharpness(name: str) -> Any:
        return lambda runs: np.log10(of("sharpness", of=name)(runs))

    reach = {name: of("reach", of=name) for name in ("dense", "diagonal")}
    found = []
    for name, (words, expected) in parameters.items():
        what = f"{words}: exponent of E‖∂h/∂p‖² in 1 − |λ|, less {expected}".replace("-", "−")
        found.append(Claim(what, "slope", exponent(name, low, high, expected), 0.2, "within", SOURCE, paper="0"))
    alike = "sharpness, dense over diagonal, decades"
    fewer = "parameters in the steepest directions, dense less diagonal"
    angle = "LRU: share of the angles in the steepest direction"
    return [
        *found,
        Claim(
            alike, "difference", minus(sharpness("dense"), sharpness("diagonal")), 0.5, "within", SOURCE, paper="alike"
        ),
        Claim(fewer, "difference", minus(reach["dense"], reach["diagonal"]), 0, source=SOURCE, paper="> 0"),
        Claim(angle, "median", of("angle", of="lru"), 0.5, source=SOURCE, paper="most"),
    ]


def main(config: Config) -> None:
    """Measures, keeps every number, draws, and holds the paper against it."""
    config = with_preset(
        config,
        smoke=dict(seeds=2, sizes=(0.5, 0.8), sequences=4, steps=20),
        paper=dict(seeds=100, sizes=(0.9, 0.97, 0.99, 0.997, 0.999)),
    )
    for name in ("sequences", "states", "steps"):
        whole(name, getattr(config, name), 1)
    if not config.sizes or not all(0 < size < 1 for size in config.sizes):
        raise ConfigError(f"sizes is {config.sizes}; it must be |λ| between 0 and 1, one or more.")
    longest = 8 / (1 - max(config.sizes))
    sizes = {"sizes": max(config.sizes), "sequences": config.sequences, "states": config.states, "steps": config.steps}
    _measured.check_memory(sizes, 20 * config.sequences * longest + config.steps * config.states**2)
    if config.states % 2:
        raise ConfigError(f"states is {config.states}; it must be even: eigenvalues come in conjugate pairs.")
    show(_measured.once("sensitivity", config, measured), stated(config), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
