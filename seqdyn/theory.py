"""What theory predicts of a recurrent network at initialisation: mean fields, exponents, bounds, time constants.

Nothing here is simulated: closed forms and one-dimensional root finding in float64 on the host. Weights are
W_ij ~ N(0, σ_w²/N), `gain` being σ_w, unless a function says otherwise; predictions are for N → ∞.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from seqdyn.averages import PHIS, Numbers, Phi, mean, pair_mean, phi, rule, sigmoid
from seqdyn.types import ConfigError


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq  # here, not above: SciPy loads OpenBLAS; `backend.start` comes first

    root: Any = brentq(f, low, high, xtol=1e-14 * high, rtol=np.float64(1e-14))
    return float(root)


# --- mean field ---------------------------------------------------------------------------------------------

_SMALL, _LARGE = 1e-12, 1e12  # variances that stand for 0 and ∞


@dataclass(frozen=True)
class MeanField:
    """Mean field of h_t = φ(W h_{t−1} + V x_t + b), N → ∞, of which every other number here follows.

    Poole et al. 2016; Schoenholz et al. 2017; for recurrent networks Chen, Pennington & Schoenholz 2018.
    Orthogonal W = σ_w Q scales norms exactly as Gaussian W does in the mean, so q*, χ₁, the growth of the adjoint and
    the largest exponent agree for large N where fresh input decorrelates the steps. The rest of the spectrum does
    not (`volume`), nor do fluctuations at finite N. ConfigError for a parameter that has no meaning.
    """

    phi: str | Phi = "tanh"
    """φ"""
    gain: float = 1.0
    """σ_w"""
    drive: float = 0.0
    """s: s² is the variance per unit of fresh input V x_t at each step."""
    bias: float = 0.0
    """σ_b: b_i ~ N(0, σ_b²), the same at every step."""
    shared: float = 1.0
    """Correlation of the fresh inputs of two replicas; 1: the same input read from two initial states."""

    def __post_init__(self) -> None:
        phi(self.phi)
        for name in ("gain", "drive", "bias"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0 and finite.")
        if not -1 <= self.shared <= 1:
            raise ConfigError(f"shared is {self.shared}; a correlation lies between -1 and 1.")

    def variance_map(self, q: float) -> float:
        """q' = σ_w² E[φ(√q z)²] + s² + σ_b²: the variance of a pre-activation one step later."""
        f = phi(self.phi)
        variance = mean(lambda u: f.value(u) ** 2, max(q, _SMALL**2), f.kinks)
        return self.gain**2 * variance + self.drive**2 + self.bias**2

    def variance_slope(self, q: float) -> float:
        """dq'/dq = σ_w² E[φ'² + φ'' φ], as σ_w² E[φ φ' z] / √q (Stein's lemma): no φ'', which kinks make a delta."""
        f, q = phi(self.phi), max(q, _SMALL)
        return self.gain**2 * mean(lambda u: f.value(u) * f.slope(u) * u, q, f.kinks) / q

    @cached_property
    def q(self) -> float:
        """q*, the smallest variance that attracts from below; inf where it grows for ever (relu from σ_w = √2 on)."""
        low = self.drive**2 + self.bias**2 or _SMALL
        if self.variance_map(low) <= low * (1 + 1e-9):
            return low if low > _SMALL else 0.0
        while low < _LARGE:
            high = 1.8 * low
            if self.variance_map(high) <= high:
                return _root(lambda q: self.variance_map(q) - q, low, high)
            low = high
        return np.inf

    @property
    def _q(self) -> float:
        return min(max(self.q, _SMALL), _LARGE)

    @cached_property
    def chi1(self) -> float:
        """χ₁ = σ_w² E[φ'(√q* z)²], by which E‖∂L/∂h_t‖² grows a step further from the loss; at q* = ∞ its limit."""
        f = phi(self.phi)
        return self.gain**2 * mean(lambda u: f.slope(u) ** 2, self._q, f.kinks)

    @property
    def exponent(self) -> float:
        """Largest Lyapunov exponent, ½ log χ₁. Molgedey, Schuchhardt & Schuster 1992."""
        return 0.5 * float(np.log(self.chi1))

    def volume(self, orthogonal: bool = False) -> float:
        """Mean of all N exponents, log σ_w + E log|φ'(√q* z)|, less ½ for Gaussian W, whose E log|det|/N is −½."""
        f = phi(self.phi)
        with np.errstate(divide="ignore"):  # a flat φ flattens volumes: -inf
            contraction = mean(lambda u: np.log(np.abs(f.slope(u))), self._q, f.kinks)
        return float(np.log(self.gain)) + contraction - (0.0 if orthogonal else 0.5)

    def spectrum(self, share: float, orthogonal: bool = False) -> float:
        """λ(x), which a share x of all N exponents exceeds: ½ log(σ_w² x/κ) where E[κφ'²/(1 + κφ'²)] = x.

        The exponents of a product of independent W_t diag(φ'), from the S-transform of one factor: `exponent` at
        x → 0, `volume` in the mean, ½ log(σ_w² (1 − x)) of Newman 1986 where φ' = 1. The same for the one W of a
        network whose slopes are fresh at each step. Orthogonal W: ½ log(σ_w² x / (κ (1 − x))). −inf for the share
        that a flat φ has flattened. Kargin 2008; Tucci 2011.
        """
        f = phi(self.phi)
        if not 0 < share < 1:
            raise ConfigError(f"share is {share}; it must lie between 0 and 1.")

        z, w = rule(np.asarray(f.kinks or [0.0]) / np.sqrt(self._q))  # once: it is the root's inner loop
        slopes = f.slope(np.sqrt(self._q) * z)

        def excess(up: float) -> float:
            s = np.exp(up - 80) * slopes**2
            return float(w @ (s / (1 + s))) - share

        if self.gain == 0 or excess(160.0) <= 0:
            return -np.inf
        log_kappa = _root(excess, 0.0, 160.0) - 80
        return float(np.log(self.gain) + 0.5 * (np.log(share) - log_kappa - orthogonal * np.log1p(-share)))

    def correlation_map(self, c: float) -> float:
        """c' = (σ_w² E[φ(u) φ(v)] + shared s² + σ_b²) / q': how alike two replicas of one network are a step later."""
        f = phi(self.phi)
        both = self.gain**2 * pair_mean(f.value, self._q, c, f.kinks)
        return (both + self.shared * self.drive**2 + self.bias**2) / self.variance_map(self._q)

    @cached_property
    def c(self) -> float:
        """c*, the correlation to which two replicas tend; 1 for the same input and χ₁ ≤ 1, less in chaos."""
        same = self.shared == 1 or self.drive == 0
        if self.q in (0, np.inf) or (same and self.chi1 <= 1):  # at 0 and ∞ nothing tells replicas apart
            return 1.0

        def rise(c: float) -> float:
            return self.correlation_map(c) - c

        # On [0, 1] the map is a power series in c with coefficients ≥ 0: convex, so it crosses c once below 1.
        for power in range(1, 13):
            below = 1 - 0.25**power
            if rise(below) < 0:
                return _root(rise, 0.0 if rise(0.0) >= 0 else -1.0, below)
        return 1.0

    def chi(self, c: float) -> float:
        """χ_c = σ_w² E[φ'(u) φ'(v)] at variance q*, which is dc'/dc; `chi1` at c = 1."""
        f = phi(self.phi)
        return self.gain**2 * pair_mean(f.slope, self._q, c, f.kinks)

    @property
    def xi_c(self) -> float:
        """ξ_c = −1/log χ_{c*}, steps in which replicas forget how alike they were. Schoenholz et al. 2017."""
        return time_constant(self.chi(self.c))

    @property
    def xi_q(self) -> float:
        """ξ_q = −1/log|χ₁ + σ_w² E[φ'' φ]|, steps in which the variance forgets. Schoenholz et al. 2017."""
        return time_constant(self.variance_slope(self._q))


def critical_gain(phi: str | Phi = "tanh", drive: float = 0.0, bias: float = 0.0) -> float:
    """The smallest σ_w at which χ₁ = 1: the edge of chaos at this input and bias; inf if none lies below 1,000."""

    def excess(gain: float) -> float:
        return MeanField(phi, gain, drive, bias).chi1 - 1

    low = 0.1
    while low < 1e3:
        if excess(1.5 * low) >= 0:
            return _root(excess, low, 1.5 * low)
        low *= 1.5
    return np.inf


@dataclass(frozen=True)
class MinimalRNN:
    """Mean field of h_t = u ⊙ h_{t−1} + (1 − u) ⊙ x_t, u = σ(W h_{t−1} + V x_t + b). Chen et al. 2018, §4.

    Each step's gates are taken as independent of h_{t−1}, as they are when W and b are drawn anew at each step. In a
    network whose gates persist, being slow or spread by σ_b, Q is smaller and the growth larger than this.
    """

    gain: float = 1.0
    """σ_w"""
    drive: float = 1.0
    """Deviation per unit of V x_t: σ_v √R if V ~ N(0, σ_v² / d), never σ_v itself."""
    bias: float = 0.0
    """σ_b"""
    shift: float = 0.0
    """μ_b, mean of b."""
    inputs: float = 1.0
    """√R, deviation of x."""

    def _gates(self, variance: float, f: Callable[[np.ndarray], np.ndarray]) -> float:
        q = self.gain**2 * variance + self.drive**2 + self.bias**2
        return mean(lambda e: f(e + self.shift), max(q, _SMALL))

    def variance_map(self, variance: float) -> float:
        """Q' = E[u²] Q + E[(1 − u)²] R, the variance of h; e has σ_w² Q + drive² + σ_b²."""
        keep = self._gates(variance, lambda e: sigmoid(e) ** 2)
        take = self._gates(variance, lambda e: sigmoid(-e) ** 2)
        return keep * variance + take * self.inputs**2

    @cached_property
    def variance(self) -> float:
        """Q* = R E[(1 − u)²] / (1 − E[u²]): R E[u²] / (1 − E[u²]) if μ_b = 0."""
        high = self.inputs**2
        while self.variance_map(high) > high:
            high *= 2
        return _root(lambda v: self.variance_map(v) - v, 0.0, high)

    @cached_property
    def chi1(self) -> float:
        """χ₁ = E[u²] + σ_w² E[σ'(e)²] (Q* + R): through the gate's leak, which E[u²] is, and through its opening."""
        leak = self._gates(self.variance, lambda e: sigmoid(e) ** 2)
        slope = self._gates(self.variance, lambda e: PHIS["sigmoid"].slope(e) ** 2)
        return leak + self.gain**2 * slope * (self.variance + self.inputs**2)


# --- exponents in closed form -------------------------------------------------------------------------------


def gaussian_product_exponents(n: int, gain: float = 1.0) -> Float[np.ndarray, " n"]:
    """λ_i = ½ [log(2 σ²/N) + ψ((N − i + 1)/2)], i = 1 … N: products of independent N × N matrices with entries
    N(0, σ²/N), exact at every N. Newman 1986."""
    from scipy.special import digamma

    return np.log(gain) + 0.5 * (np.log(2 / n) + digamma(np.arange(n, 0, -1) / 2))


def linear_exponents(w: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """log|eig W|, largest first: all exponents of h_t = W h_{t−1} + …, whatever the input; log g for W = g·Q."""
    with np.errstate(divide="ignore"):  # a singular W has exponents -inf
        return np.sort(np.log(np.abs(np.linalg.eigvals(w))))[::-1]


# --- bounds -------------------------------------------------------------------------------------------------


def jacobian_bound(u: Float[np.ndarray, "n n"], activation: str | Phi = "tanh", steps: int = 1) -> float:
    """(σ_max(U) γ)^k ≥ ‖∂h_t/∂h_{t−k}‖₂, γ = sup |φ'| (1 for tanh, ¼ for sigmoid). Pascanu et al. 2013, §2.1.

    σ_max is the largest singular value; the spectral radius bounds no norm unless U is normal.
    """
    return float(np.linalg.norm(u, 2) * phi(activation).steepest) ** steps


def must_vanish(u: Float[np.ndarray, "n n"], activation: str | Phi = "tanh") -> bool:
    """σ_max(U) < 1/γ suffices for the gradient to vanish. Pascanu et al. 2013, §2.1."""
    return jacobian_bound(u, activation) < 1


def may_explode(u: Float[np.ndarray, "n n"], activation: str | Phi = "tanh") -> bool:
    """σ_max(U) > 1/γ is necessary, and not sufficient, for it to explode. Pascanu et al. 2013, §2.1."""
    return jacobian_bound(u, activation) > 1


# --- time constants -----------------------------------------------------------------------------------------


def time_constant(f: Numbers) -> Any:
    """−1/log|f|, steps in which f^t falls to 1/e: f = 1 − α of a leaky unit, σ(b_f) of a forget gate, χ of a map.

    0 at f = 0, inf at |f| = 1; negative, the steps in which it grows by e, beyond.
    """
    with np.errstate(divide="ignore"):
        return 1 / (0.0 - np.log(np.abs(f)))


def gate_rate(b: Numbers) -> Any:
    """log σ(b): the rate at which a gate of bias b alone forgets. Not the LSTM's exponent, which feedback through h
    may raise above it."""
    return -np.logaddexp(0, -np.asarray(b))


def chrono_quantile(p: Numbers, longest: float) -> Any:
    """Time constants under b_f = log u, u ~ U(1, T_max − 1): the p-quantile of −1/log σ(b_f) = 1/log(1 + 1/u).

    They lie at most 0.06 below u + ½, so spread evenly over 1 … T_max. Tallec & Ollivier 2018, §2.
    """
    return 1 / np.log1p(1 / (1 + np.asarray(p) * (longest - 2)))


def chrono_cdf(tau: Numbers, longest: float) -> Any:
    """The share of gates whose time constant is at most τ: the inverse of `chrono_quantile`."""
    return np.clip((1 / np.expm1(1 / np.asarray(tau)) - 1) / (longest - 2), 0, 1)


# --- the linear recurrence ----------------------------------------------------------------------------------


def linear_variance(lam: float | complex, rho: float = 0.0) -> float:
    """E|h|² of h_{t+1} = λ h_t + x_t with E[x_t x_{t+Δ}] = ρ^|Δ|: (1 − ρ²|λ|²) / ((1 − |λ|²) |1 − ρ λ|²).

    1/(1 − |λ|²) for white input; |λ| < 1, |ρ| ≤ 1. Zucchet & Orvieto 2024, §2.2.
    """
    r = abs(lam)
    return (1 - (rho * r) ** 2) / ((1 - r * r) * abs(1 - rho * lam) ** 2)


def linear_sensitivity(lam: float | complex, rho: float = 0.0) -> float:
    """E|dh/dλ|² of the same recurrence, ∂_α ∂_β̄ E[h(α) h(β)*] at α = β = λ. Zucchet & Orvieto 2024, §2.2.

    (1 + |λ|²)/(1 − |λ|²)³ for white input: it grows as the cube of the memory 1/(1 − |λ|), E|h|² only as its
    first power, so parameters grow touchy while no gradient explodes.
    """
    memory = 1 / (1 - abs(lam) ** 2)
    ahead = rho * lam / (1 - rho * lam)  # Σ_{Δ ≥ 1} (ρ λ)^Δ
    moved = rho * lam / (1 - rho * lam) ** 2  # λ times its derivative
    white = (1 + abs(lam) ** 2) * memory**3
    return white * (1 + 2 * complex(ahead).real) + 2 * complex(moved).real * memory**2


def normalised_sensitivity(lam: float | complex, rho: float = 0.0) -> float:
    """E|d(γ h)/d|λ||² with γ = √(1 − |λ|²), which keeps E|γ h|² = 1 for white input: there (1 − |λ|²)^−2, one power
    of the memory less than without. Zucchet & Orvieto 2024, §3.2."""
    r, v = abs(lam), linear_variance(lam, rho)
    turn = lam / r if r else 1.0
    growth = 2 * r / (1 - r * r) - 2 * rho**2 * r / (1 - (rho * r) ** 2)
    slope = v * (growth + 2 * complex(rho * turn / (1 - rho * lam)).real)  # dE|h|²/d|λ|
    return r * r / (1 - r * r) * v - r * slope + (1 - r * r) * linear_sensitivity(lam, rho)
