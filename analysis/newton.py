"""What `experiments.reproduce.newton` found: the paper's statements beside ours, and Newton steps against λ and T."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from analysis import style
from analysis.claims import Claim, of

if TYPE_CHECKING:
    import xarray as xr


def lengths(steps: int) -> list[int]:
    """T of the lengths that are looked at: about ten a decade, from 10 to `steps`."""
    return sorted({*np.geomspace(10, steps, max(2, round(10 * np.log10(steps / 10)))).round().astype(int).tolist()})


def _columns(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(λ [net], steps [net, T], T)"""
    at = [int(t) for t in rows[0]["steps"]]
    return np.asarray([r["exponent"] for r in rows]), np.asarray([[*r["steps"].values()] for r in rows]), at


SOURCE = "Gonzalez et al. 2025"


def row(net: int, gain: float, exponent: float, steps: dict[int, int]) -> dict[str, Any]:
    """Of a network its exponent and the Newton steps of each T; grown: by how many steps from the T in the middle, of
    logarithms, to the longest; share: steps over T, at the longest."""
    at = [*steps]
    middle = at[int(np.argmin(np.abs(np.log(at) - np.log(at[-1]) / 2)))]
    regime = "calm" if exponent < -0.1 else "wild" if exponent > 0.1 else "between"
    told = {"grown": steps[at[-1]] - steps[middle], "share": steps[at[-1]] / at[-1]}
    return {"seed": net, "gain": gain, "exponent": exponent, "regime": regime, **told, "steps": steps}


def _rank(rows: "xr.Dataset") -> "xr.DataArray":
    """Of each draw, over its gains: Spearman's correlation of λ and steps."""
    import xarray as xr

    of_seeds = {seed: part for seed, part in rows.groupby("seed")}
    found = {}
    for seed, part in of_seeds.items():
        ranks = [rankdata(part[name]) for name in ("exponent", "share")]
        if all(np.ptp(of) for of in ranks):  # of what is constant there is none
            found[seed] = float(np.corrcoef(*ranks)[0, 1])
    return xr.DataArray([*found.values()], {"seed": [*found]}, "seed")


CLAIMS = (
    Claim(
        "λ < −0.1: from the middle T to the longest fewer than two steps are added (mean over gains)",
        "median",
        of("grown", regime="calm"),
        2.0,
        "below",
        SOURCE,
        paper="few, whatever T",
    ),
    Claim(
        "λ > 0.1: steps are more than half of the longest T (mean over gains)",
        "median",
        of("share", regime="wild"),
        0.5,
        source=SOURCE,
        paper="near 1",
    ),
    Claim("Rank correlation of steps and λ over gains", "median", _rank, 0.8, source=SOURCE, paper="steps follow λ"),
)
"""Statements of a network drawn once and scaled by each gain."""


def figure(found: dict[str, Any]) -> Figure:
    """Steps against λ at the longest T; and against T, a curve a gain."""
    exponents, steps, at = _columns(found["rows"])
    gains = np.asarray([r["gain"] for r in found["rows"]])
    levels = np.unique(gains)
    fig, axes = style.panels(1, 2, 2.2)
    left, right = axes[0]
    for gain, color in zip(levels, style.shades(len(levels)), strict=True):
        of = gains == gain
        left.scatter(exponents[of], steps[of, -1], s=8, color=color, linewidth=0)
        label = f"g = {gain:.2g}" if gain in levels[:: max(1, len(levels) // 4)] else None
        style.median_band(right, np.asarray(at), steps[of].astype(float), color=color, label=label)
    left.axvline(0, color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
    left.axhline(at[-1], color="0.4", linewidth=0.8, linestyle=style.DASHES[2])
    right.plot(at, at, color="0.4", linewidth=0.8, linestyle=style.DASHES[2], label="T steps, as one after the other")
    right.set_xscale("log")
    left.set_yscale("log")
    right.set_yscale("log")
    left.set_xlabel("largest Lyapunov exponent λ (nats per step)")
    right.set_xlabel("T (steps of the sequence)")
    left.set_ylabel(f"Newton steps, T = {at[-1]:,}")
    right.set_ylabel("Newton steps")
    style.legend(fig, style.drawn(axes))
    return fig
