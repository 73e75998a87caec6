"""Rows of `theory_check.py` on the states themselves: how large they become, how alike two of them stay, which share of
the directions between them is kept; and what else `seqdyn.theory` has of gates.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from analysis.theory_check import DRIVE
from seqdyn import backend, theory
from seqdyn.measure.jacobians import step_jacobians
from seqdyn.measure.lyapunov import lyapunov_spectrum
from seqdyn.nets.bptt import Backprop, Tap, taps, unroll
from seqdyn.nets.cells import Cell, rnn
from seqdyn.nets.from_step import cell
from seqdyn.nets.inits import Gaussian, Identity, chrono
from seqdyn.theory import MeanField
from seqdyn.types import Array, Key

F64 = {"dtype": jnp.float64}


def row(quantity: str, at: str, measured: Any, predicted: Any, within: float | None, **more: Any) -> dict[str, Any]:
    """measured | predicted | difference | agrees to; of several values, the one that is furthest off.

    `within` None reports only; `relative` makes the difference one of the predicted value; the rest is kept.
    """
    measured, predicted = np.broadcast_arrays(*np.atleast_1d(measured, predicted))
    off = (measured - predicted) / (predicted if more.get("relative") else 1.0)
    i = int(np.argmax(np.abs(np.where(np.isfinite(off), off, np.inf))))
    agrees = None if within is None else bool(abs(off[i]) <= within)
    values = {"measured": float(measured[i]), "predicted": float(predicted[i]), "difference": float(off[i])}
    return {"quantity": quantity, "at": at, **values, "within": within, "agrees": agrees, **more}


def standard_error(values: np.ndarray) -> float:
    """Of a mean over nets; NaN of one."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan


def exponents(cell: Cell, params: Any, xs: Array, key: Key[Array, ""], k: int | None, burn: int) -> tuple[Array, Array]:
    """(exponents, standard errors) from the state of rest."""
    found = lyapunov_spectrum(cell, params, cell.initial_carry(()), xs, key, k=k, burn=burn)
    return found.exponents, found.errors


def growth(energy: np.ndarray, lags: np.ndarray) -> float:
    """By which E‖∂L/∂h_t‖² grows a step of the lag: exp of the slope of its logarithm."""
    return float(np.exp(np.polyfit(lags, np.log(energy[lags]), 1)[0]))


def driven(n: int, gain: Any) -> Cell:
    """A tanh rnn with Gaussian U and fresh input of deviation `DRIVE` for every unit."""
    return rnn(n, n, "tanh", w=Identity(DRIVE), u=Gaussian(gain), **F64)


def replicas(n: int, steps: int, keys: Array) -> list[dict[str, Any]]:
    """q*, the variance of a pre-activation, σ_w² E[h²] + s²; and c*, the correlation of those of two states of one
    network with the same input, which began apart."""

    def measure(gain: Array, key: Key[Array, ""]) -> Array:
        k_params, k_carry, k_xs = jax.random.split(key, 3)
        one = driven(n, gain)
        carry = one.initial_carry((2,))._replace(h=jax.random.normal(k_carry, (2, n)))
        xs = jnp.broadcast_to(jax.random.normal(k_xs, (steps, 1, n)), (steps, 2, n))
        hs = unroll(one, one.init(k_params), carry, xs)[0][steps // 2 :]
        own, both = jnp.mean(hs**2), jnp.mean(hs[:, 0] * hs[:, 1])
        q = gain**2 * own + DRIVE**2
        return jnp.stack([q, (gain**2 * both + DRIVE**2) / q])

    program, rows = backend.compiled(measure), []
    for gain in (0.9, 1.5, 2.5):
        q, c = np.stack([np.asarray(program(gain, key)) for key in keys], axis=1)
        field, at = MeanField("tanh", gain, DRIVE), f"g = {gain}"
        for name, each, predicted, within in (("variance q*", q, field.q, 0.02), ("replicas c*", c, field.c, 0.06)):
            more = {"gain": gain, "nets": each.tolist(), "error": standard_error(each)}
            rows.append(row(name, at, each.mean(), predicted, within, relative=True, **more))
    return sorted(rows, key=lambda r: r["quantity"], reverse=True)


def volumes(n: int, steps: int, keys: Array) -> list[dict[str, Any]]:
    """The mean of all exponents, and their quartiles, of the same network."""

    def measure(gain: Array, key: Key[Array, ""]) -> Array:
        k_params, k_xs, k_tangent = jax.random.split(key, 3)
        one, burn = driven(n, gain), steps // 10
        xs = jax.random.normal(k_xs, (steps + burn, n))
        return exponents(one, one.init(k_params), xs, k_tangent, None, burn)[0]

    program, rows = backend.compiled(measure), []
    for gain in (0.9, 2.0):
        field, nets = MeanField("tanh", gain, DRIVE), np.stack([np.asarray(program(gain, key)) for key in keys])
        each = nets.mean(axis=1)
        more = {"gain": gain, "nets": each.tolist(), "error": standard_error(each)}
        rows.append(row("mean exponent", f"g = {gain}", each.mean(), field.volume(), 0.03, **more))
        shares = [(n // 4 * k - 0.5) / n for k in (1, 2, 3)]
        found = nets.mean(axis=0)[[n // 4 * k - 1 for k in (1, 2, 3)]]
        predicted = [field.spectrum(share) for share in shares]
        rows.append(row("quartiles of exponents", f"g = {gain}, worst", found, predicted, 0.06))
    return sorted(rows, key=lambda r: r["quantity"])


def bound(n: int, steps: int, key: Key[Array, ""]) -> list[dict[str, Any]]:
    """How far ‖∂h_t/∂h_{t−k}‖₂ lies above (σ_max(U) γ)^k at most, over all windows that end at the last step."""

    def measure(key: Key[Array, ""]) -> tuple[Array, Array]:
        k_params, k_xs = jax.random.split(key)
        one = driven(n, 1.5)
        params, xs = one.init(k_params), jax.random.normal(k_xs, (steps, n))
        return step_jacobians(one, params, one.initial_carry(()), xs), params.u

    jacobians, u = map(np.asarray, backend.compiled(measure)(key))
    window, above = np.eye(n), []
    for k, one in enumerate(jacobians[::-1], 1):
        window = window @ one
        above.append(np.linalg.norm(window, 2) / theory.jacobian_bound(u, "tanh", k) - 1)
    return [row("above Pascanu's bound", f"N = {n}, k = 1 … {steps}", np.max([0.0, *above]), 0.0, 1e-9)]


def minimal(n: int, steps: int, keys: Array) -> list[dict[str, Any]]:
    """Growth of E‖∂L/∂h_t‖² a step of the lag in a minimalRNN whose W is drawn anew at each step, an input like x."""
    field, first = theory.MinimalRNN(2.0, 0.7), steps // 8

    def step(params: Any, h: Array, inputs: Array) -> Array:
        w, v, x = jnp.split(inputs, [n * n, n * n + n], axis=-1)
        u = jax.nn.sigmoid(jnp.einsum("bij,bj->bi", w.reshape(-1, n, n), h) + v)
        return u * h + (1 - u) * x

    one = cell(lambda key: (), step, lambda batch: jnp.zeros((*batch, n), jnp.float64))
    scale = jnp.concatenate([jnp.full(n * n, field.gain / n**0.5), jnp.full(n, field.drive), jnp.full(n, field.inputs)])

    def measure(key: Key[Array, ""]) -> Array:
        k_xs, k_v = jax.random.split(key)
        xs, v = scale * jax.random.normal(k_xs, (steps, 1, n * n + 2 * n)), jax.random.normal(k_v, (1, n))

        def loss(watch: Tap) -> Array:
            return jnp.sum(v * unroll(one, (), one.initial_carry((1,)), xs, Backprop(), watch)[1].h)

        return jnp.square(jax.grad(loss)(taps(one, steps, (1,))).adjoint_norm.h[::-1, 0])

    program = backend.compiled(measure)
    energy = np.mean([np.asarray(program(key)) for key in keys], axis=0)
    measured = growth(energy, np.arange(first, steps - first))
    return [row("minimalRNN, growth", "g = 2, s = 0.7", measured, field.chi1, 0.04, relative=True)]


def gates(draws: int, key: Key[Array, ""]) -> list[dict[str, Any]]:
    """Time constants of chrono's forget gates: deciles of what the library draws."""
    longest, shares = 100.0, np.arange(0.1, 1, 0.1)
    biases = np.asarray(backend.compiled(lambda key: chrono(longest)(key, (draws,), jnp.float64))(key))
    found = np.quantile(-1 / theory.gate_rate(biases), shares)
    predicted = theory.chrono_quantile(shares, longest)
    return [row("chrono time constants", "T_max = 100, worst decile", found, predicted, 0.02, relative=True)]
