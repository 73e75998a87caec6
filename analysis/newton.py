"""What `experiments.reproduce.newton` found: the paper's statements beside ours, and Newton steps against λ and T."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table
from scipy.stats import rankdata

from analysis import style
from analysis.published import HOLDS, Claim
from seqdyn.runs.display import plain_console


def lengths(steps: int) -> list[int]:
    """T of the lengths that are looked at: about ten a decade, from 10 to `steps`."""
    return sorted({*np.geomspace(10, steps, max(2, round(10 * np.log10(steps / 10)))).round().astype(int).tolist()})


def _columns(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(λ [net], steps [net, T], T)"""
    at = [int(t) for t in rows[0]["steps"]]
    return np.asarray([r["exponent"] for r in rows]), np.asarray([[*r["steps"].values()] for r in rows]), at


def claims(found: dict[str, Any]) -> list[Claim]:
    """The paper's statements, and what came out."""
    exponents, steps, at = _columns(found["rows"])
    middle = int(np.argmin(np.abs(np.log(at) - np.log(at[-1]) / 2)))
    calm, wild = exponents < -0.1, exponents > 0.1
    rank = float(np.corrcoef(rankdata(exponents), rankdata(steps[:, -1]))[0, 1])  # Spearman's
    slower = found["milliseconds"]["newton"] / found["milliseconds"]["unroll"]
    few, many = (steps[of] if of.any() else np.full((1, len(at)), np.nan) for of in (calm, wild))
    return [
        Claim(
            f"λ < −0.1 ({calm.sum()} networks): most steps at T = {at[middle]:,} | {at[-1]:,}",
            "few, whatever T",
            f"{few[:, middle].max():.0f} | {few[:, -1].max():.0f}",
            bool(few[:, -1].max() <= few[:, middle].max() + 2) if calm.any() else None,
        ),
        Claim(
            f"λ > 0.1 ({wild.sum()} networks): median steps / T at T = {at[middle]:,} | {at[-1]:,}",
            "near 1",
            f"{np.median(many[:, middle]) / at[middle]:.2f} | {np.median(many[:, -1]) / at[-1]:.2f}",
            bool(np.median(many[:, -1]) / at[-1] > 0.5) if wild.any() else None,
        ),
        Claim(f"rank correlation of steps and λ, T = {at[-1]:,}", "steps follow λ", f"{rank:.2f}", rank > 0.8),
        Claim(
            f"time of Newton's method over that of one step after the other, on this CPU, g = 0.8, T = {at[-1]:,}",
            "–",
            f"{slower:.0f}",
            None,
        ),
    ]


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


def show(out: Path) -> list[Path]:
    """Prints the table of claims, writes it and the figure beside what was measured, and returns both files."""
    found = json.loads((out / "newton.json").read_text(encoding="utf-8"))
    console = plain_console(width=130, record=True)
    table = Table("claim", "paper", "ours", "holds here", title="Newton's method in parallel over time", box=None)
    for c in claims(found):
        table.add_row(c.what, c.paper, c.ours, HOLDS[c.holds])
    console.print(table)
    with style.look():
        drawn = style.save(figure(found), out / "newton")
    console.print(str(drawn), soft_wrap=True)
    told = out / "newton.txt"
    told.write_text(console.export_text(), encoding="utf-8")
    return [drawn, told]
