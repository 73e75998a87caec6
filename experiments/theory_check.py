"""Do the instruments and the theory agree, where theory says what must come out?

Method: each quantity is measured with the library as any user would and held against `seqdyn.theory`, in float64:
    growth            E‖∂L/∂h_t‖² a step of the lag, read by `unroll` with `taps`, N = 400, T = 60, fitted over lags
                      10 … 50; tanh, input of deviation s = 0.5 a unit and step; against χ₁, Gaussian and orthogonal U
    largest exponent  the same network at N = 500 over 1,000 steps; against ½ log χ₁
    Gaussian product  all exponents of 20,000 independent 32 × 32 matrices; against Newman 1986
    linear rnn        all exponents of h = U h + …; against log|eig U|; of an orthogonal gQ: log g
    lstm              the largest and the middle exponent of the whole state (c, h), N = 100; theory has no number for
                      it, log σ(b_f) is what the forget gate alone would give
    states            the variance q* of tanh networks, the correlation c* of two states of one network with the same
                      input, the mean and the quartiles of all exponents; Pascanu's bound; the growth in a minimalRNN
                      with fresh weights; the time constants that chrono draws
    adjoint           by backpropagation through time, against products of step Jacobians and finite differences
Error bars are standard errors over nets (of one long product: over blocks of time).
Cost: 40 seconds of processor time.
Expect: every row agrees: growth within 4%, largest exponents within 0.01, the mean of all within 0.03, and below theory
by about 2/N, since in a network of finite width the mean of a logarithm lies below the logarithm of the mean. Rows of
LSTMs are there to be read: nothing is asked of them. A row that does not agree is an error: exit code 1.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from analysis import theory_check as analysis
from experiments import _measured, _theory_rows
from experiments._theory_rows import F64, driven, exponents, growth, row, standard_error
from seqdyn import backend, theory
from seqdyn.measure.jacobians import step_jacobians
from seqdyn.nets.bptt import Backprop, Tap, taps, unroll
from seqdyn.nets.cells import Cell, Hidden, gru, lstm, rnn
from seqdyn.nets.inits import Gaussian, Identity, Orthogonal, constant
from seqdyn.runs.script import script
from seqdyn.types import Array, Initializer, Key, whole

DRIVE = analysis.DRIVE
GROWTH_GAINS = (0.8, 1.0, 1.2, 1.5, 2.0)
EXPONENT_GAINS = (0.9, 1.2, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Once):
    """How many networks, and where to."""

    smoke: bool = False
    """Tiny sizes: seconds, along the same path; nothing has to agree."""
    nets: int = 5
    """Networks drawn for each growth and largest exponent."""
    seed: int = 0
    """Of all draws."""


class Sizes(NamedTuple):
    """Widths N and steps T."""

    growth: tuple[int, int, int, int] = (400, 60, 10, 50)  # N, T, first and last lag of the fit
    largest: tuple[int, int] = (500, 1000)
    product: tuple[int, int] = (32, 20_000)
    linear: tuple[int, int] = (16, 50_000)
    lstm: tuple[int, int] = (100, 1000)
    replicas: tuple[int, int] = (400, 400)
    volumes: tuple[int, int] = (200, 400)
    bound: tuple[int, int] = (50, 40)
    minimal: tuple[int, int] = (200, 40)
    gates: int = 200_000


SMOKE = Sizes((24, 12, 2, 10), (24, 40), (4, 100), (4, 200), (6, 40), (24, 20), (8, 20), (6, 5), (8, 16), 200)


# --- growth of the adjoint ----------------------------------------------------------------------------------


def energies(kind: str, n: int, steps: int, gain: Array, key: Key[Array, ""]) -> Array:
    """E‖∂L/∂h_t‖² over examples, at lags 0 … T − 1, of one network and L = v·h_T with v random."""
    k_params, k_xs, k_v = jax.random.split(key, 3)
    draw = {"Gaussian": Gaussian, "orthogonal": Orthogonal}[kind](gain)
    cell = rnn(n, n, "tanh", w=Identity(DRIVE), u=draw, **F64)  # fresh input for every unit
    params, b = cell.init(k_params), 8
    xs, v = jax.random.normal(k_xs, (steps, b, n)), jax.random.normal(k_v, (b, n))

    def loss(watch: Tap) -> Array:
        return jnp.sum(v * unroll(cell, params, cell.initial_carry((b,)), xs, Backprop(), watch)[1].h)

    norms = jax.grad(loss)(taps(cell, steps, (b,))).adjoint_norm.h
    return jnp.mean(jnp.square(norms), axis=1)[::-1]


def growths(sizes: Sizes, keys: Array) -> list[dict[str, Any]]:
    """Per gain and kind of U: exp of the slope of log E‖∂L/∂h_t‖² against the lag."""
    n, steps, first, last = sizes.growth
    lags, rows = np.arange(first, last + 1), []
    for kind in ("Gaussian", "orthogonal"):
        program = backend.compiled(partial(energies, kind, n, steps))
        for gain in GROWTH_GAINS:
            nets = np.stack([np.asarray(program(gain, key)) for key in keys])
            each = [growth(energy, lags) for energy in nets]
            more = {"kind": kind, "gain": gain, "nets": each, "error": standard_error(np.asarray(each))}
            chi1 = theory.MeanField("tanh", gain, DRIVE).chi1
            at = f"{kind}, g = {gain}"
            rows.append(row("growth", at, growth(nets.mean(axis=0), lags), chi1, 0.04, relative=True, **more))
    return rows


# --- exponents ----------------------------------------------------------------------------------------------


def largest(sizes: Sizes, keys: Array) -> list[dict[str, Any]]:
    """The largest exponent of a driven tanh network per gain, mean over nets."""
    n, steps = sizes.largest

    def one(gain: Array, key: Key[Array, ""]) -> Array:
        k_params, k_xs, k_tangent = jax.random.split(key, 3)
        cell = driven(n, gain)
        burn = steps // 10
        xs = jax.random.normal(k_xs, (steps + burn, n))
        return exponents(cell, cell.init(k_params), xs, k_tangent, 1, burn)[0][0]

    program, rows = backend.compiled(one), []
    for gain in EXPONENT_GAINS:
        each = np.stack([np.asarray(program(gain, key)) for key in keys])
        more = {"kind": "Gaussian", "gain": gain, "nets": each.tolist(), "error": standard_error(each)}
        predicted = theory.MeanField("tanh", gain, DRIVE).exponent
        rows.append(row("largest exponent", f"g = {gain}", each.mean(), predicted, 0.01, **more))
    return rows


def product(n: int) -> Cell:
    """h_t = X_t h_{t−1}: a cell whose input is the matrix."""

    def nonlinearity(params: Any, carry: Hidden, zx: Array, zh: Array) -> tuple[Hidden, tuple[()]]:
        return Hidden(jnp.einsum("...ij,...j->...i", zx, zh)), ()

    return Cell(
        gates=("h",),
        init=lambda key: (),
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, n), jnp.float64)),
        input_projection=lambda params, x: x.reshape(*x.shape[:-1], n, n),
        recurrent_projection=lambda params, h: h,
        nonlinearity=nonlinearity,
    )


def gaussian_product(sizes: Sizes, key: Key[Array, ""]) -> list[dict[str, Any]]:
    """The whole spectrum of a product of independent Gaussian matrices, and its largest exponent."""
    n, steps = sizes.product

    def measure(key: Key[Array, ""]) -> tuple[Array, Array]:
        k_xs, k_tangent = jax.random.split(key)
        xs = jax.random.normal(k_xs, (steps, n * n)) / n**0.5
        return exponents(product(n), (), xs, k_tangent, None, steps // 100)

    found, errors = map(np.asarray, backend.compiled(measure)(key))
    exact, at = theory.gaussian_product_exponents(n), f"N = {n}, T = {steps:,}"
    spectrum = {"spectrum": found.tolist(), "exact": exact.tolist(), "errors": errors.tolist()}
    worst = int(np.argmax(np.abs(found - exact)))
    return [
        row("Gaussian product", f"{at}, λ₁", found[0], exact[0], 0.004, error=float(errors[0])),
        row("Gaussian product", f"{at}, worst of all", found, exact, 0.03, error=float(errors[worst]), **spectrum),
    ]


def linear(sizes: Sizes, key: Key[Array, ""]) -> list[dict[str, Any]]:
    """The spectra of a linear rnn, which its input does not touch, and of an orthogonal one."""
    n, steps = sizes.linear

    def measure(draw: Initializer, length: int, key: Key[Array, ""]) -> tuple[Array, Array]:
        k_params, k_xs, k_tangent = jax.random.split(key, 3)
        cell, burn = rnn(1, n, "identity", u=draw, **F64), length // 5
        params, xs = cell.init(k_params), jax.random.normal(k_xs, (length + burn, 1))
        return exponents(cell, params, xs, k_tangent, None, burn)[0], params.u

    free, u = map(np.asarray, backend.compiled(partial(measure, Gaussian(0.6), steps))(key))
    flat, _ = map(np.asarray, backend.compiled(partial(measure, Orthogonal(0.9), steps // 50))(key))
    at = f"N = {n}, worst of all"
    return [
        row("linear rnn", at, free, theory.linear_exponents(u), 1e-4),
        row("orthogonal g·Q, g = 0.9", at, flat, np.log(0.9), 1e-5),
    ]


def gated(sizes: Sizes, keys: Array) -> list[dict[str, Any]]:
    """The largest and the middle of the 2N exponents of an LSTM's whole state, beside log σ(b_f)."""
    n, steps = sizes.lstm

    def one(bias: Array, key: Key[Array, ""]) -> Array:
        k_params, k_xs, k_tangent = jax.random.split(key, 3)
        biases = {"i": constant(0.0), "f": constant(bias), "o": constant(0.0), "g": constant(0.0)}
        cell = lstm(n, n, w=Gaussian(), u=Gaussian(), b=biases, **F64)
        burn = steps // 10
        xs = DRIVE * jax.random.normal(k_xs, (steps + burn, n))
        return exponents(cell, cell.init(k_params), xs, k_tangent, n, burn)[0]

    program, rows = backend.compiled(one), []
    for bias in (0.0, 1.0, 3.0):
        each = np.stack([np.asarray(program(bias, key)) for key in keys])
        for name, i in (("λ₁", 0), (f"λ{n}".translate(SUBSCRIPT), n - 1)):
            more = {"bias": bias, "nets": each[:, i].tolist(), "error": standard_error(each[:, i])}
            at = f"N = {n}, b_f = {bias:g}, {name}"
            rows.append(row("lstm, whole state", at, each[:, i].mean(), theory.gate_rate(bias), None, **more))
    return rows


SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


# --- the adjoint itself -------------------------------------------------------------------------------------


def adjoint(key: Key[Array, ""]) -> list[dict[str, Any]]:
    """Relative differences of ∂L/∂state_t from products of step Jacobians, and of slopes from finite differences."""
    cells = {"rnn": rnn(3, 5, **F64), "lstm": lstm(3, 5, **F64), "gru": gru(3, 5, **F64)}
    apart = {name: two_ways(cell, key) for name, cell in cells.items()}
    kinds = (("product of Jacobians", "worst step", 1e-6), ("finite differences", "worst direction", 1e-4))
    return [
        row(f"adjoint − {kind}", f"{name}, {worst}", apart[name][i], 0.0, within)
        for i, (kind, worst, within) in enumerate(kinds)
        for name in cells
    ]


def two_ways(cell: Cell, key: Key[Array, ""]) -> tuple[list[float], np.ndarray]:
    """How far the adjoint of a linear loss of the last state is from λ_{t−1} = J_tᵀ λ_t, at each step, and how far the
    gradient is from central differences, along random directions of parameters, first state and inputs."""
    steps, directions, eps = 12, 8, 1e-5

    def measure(key: Key[Array, ""]) -> Any:
        k_params, k_carry, k_xs, k_v, k_along = jax.random.split(key, 5)
        carry, v = _normal(k_carry, cell.initial_carry(())), _normal(k_v, cell.initial_carry(()))
        at = (_normal(k_params, cell.init(key)), carry, jax.random.normal(k_xs, (steps, 3)))
        flat, back = ravel_pytree(at)
        along = jax.random.normal(k_along, (directions, len(flat)))
        silent = Tap(adjoint=jax.tree.map(lambda leaf: jnp.zeros((steps, *leaf.shape)), carry))

        def loss(flat: Array, watch: Tap) -> Array:
            params, carry, xs = back(flat)
            last = unroll(cell, params, carry, xs, Backprop(), watch)[1]
            return jnp.vdot(ravel_pytree(v)[0], ravel_pytree(last)[0])

        gradient, reading = jax.grad(loss, argnums=(0, 1))(flat, silent)
        sides = jax.lax.map(lambda x: loss(x, Tap()), flat[None] + eps * jnp.concatenate([along, -along]))
        return along @ gradient, sides.reshape(2, -1), v, reading.adjoint, step_jacobians(cell, *at)

    slopes, (ahead, behind), v, lam, jacobians = jax.tree.map(np.asarray, backend.compiled(measure)(key))
    ours, lam_t, apart = np.concatenate(lam, axis=-1), np.concatenate(v), []
    for t in reversed(range(steps)):
        apart.append(float(np.linalg.norm(ours[t] - lam_t) / np.linalg.norm(lam_t)))
        lam_t = jacobians[t].T @ lam_t
    return apart, np.abs(2 * eps * slopes / (ahead - behind) - 1)


def _normal(key: Key[Array, ""], like: Any) -> Any:
    flat, back = ravel_pytree(like)
    return back(0.6 * jax.random.normal(key, flat.shape))


def main(config: Config) -> None:
    """Measures, keeps every number, draws the table and the figure; RuntimeError if theory and measurement differ."""
    whole("nets", config.nets)
    whole("seed", config.seed, 0)
    _measured.check_memory({"nets": config.nets}, config.nets)
    kept, settings = _measured.place("theory_check", config)
    backend.start()
    sizes = SMOKE if config.smoke else Sizes()
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(config.seed), config.nets)
        rows = [
            *growths(sizes, keys),
            *largest(sizes, keys),
            *gaussian_product(sizes, keys[0]),
            *linear(sizes, keys[0]),
            *gated(sizes, keys[:3]),
            *_theory_rows.replicas(*sizes.replicas, keys),
            *_theory_rows.volumes(*sizes.volumes, keys),
            *_theory_rows.bound(*sizes.bound, keys[0]),
            *_theory_rows.minimal(*sizes.minimal, keys),
            *_theory_rows.gates(sizes.gates, keys[0]),
            *adjoint(keys[0]),
        ]
    _measured.keep(kept, {"config": settings, "sizes": sizes._asdict(), "rows": rows})
    analysis.show(kept.parent)
    off = [f"{r['quantity']} ({r['at']})" for r in rows if r["agrees"] is False]
    if off and not config.smoke:
        raise RuntimeError(f"theory and measurement differ by more than they may in: {'; '.join(off)}.")


if __name__ == "__main__":
    script(Config, main, __doc__)
