"""What `experiments.reproduce.long_products` found: when ‖h_t‖² leaves the line, against t/√n and against n."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from analysis import style

FACTOR = 10.0
"""‖h_t‖² counts as exploded above as many times its stable value t."""
LAST = 30
"""The last step that is looked at, in √n."""
REPORTED = (5.6, 8.7)
"""√n steps."""


def exploded(squares: Float[np.ndarray, "*b t"]) -> Float[np.ndarray, "*b"]:
    """The first t at which ‖h_t‖²/t is above `FACTOR`; infinity if none."""
    above = squares > FACTOR
    return np.where(above.any(axis=-1), above.argmax(axis=-1) + 1.0, np.inf)


def figure(found: dict[str, Any]) -> Figure:
    """‖h_t‖²/t against t/√n, a curve a width; the length until it explodes, and √n (ϱ − 1), against n."""
    rows, curves = found["rows"], found["curves"]
    widths = sorted({r["n"] for r in rows})
    fig, axes = style.panels(1, 3, 2.2)
    left, middle, right = axes[0]
    shades = dict(zip(widths, style.shades(len(widths)), strict=True))
    for curve in curves:
        x, (low, mid, high) = np.asarray(curve["t"]) / curve["n"] ** 0.5, np.asarray(curve["quartiles"])
        glorot = curve["init"] == "glorot"
        label = f"n = {curve['n']}" if glorot else None
        dashes = style.DASHES[0 if glorot else 2]
        left.plot(x, mid, color=shades[curve["n"]], linestyle=dashes, label=label)
        if glorot:
            left.fill_between(x, low, high, color=shades[curve["n"]], alpha=0.15, linewidth=0)
    left.plot([], [], color="0.2", linestyle=style.DASHES[2], label="W / (1 + 1/√n)")
    left.axhline(FACTOR, color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
    left.axvspan(*REPORTED, color="0.9", linewidth=0, zorder=0, label="reported: 5.6 to 8.7 √n")
    left.set_yscale("log")
    left.set_ylim(0.02, 1e6)
    left.set_xlim(0, LAST * 2 / 3)
    left.set_xlabel("t / √n")
    left.set_ylabel("‖h$_t$‖² / t")
    for n in widths:
        of_n = [r for r in rows if r["n"] == n]
        lengths = np.minimum([r["glorot"] for r in of_n], LAST) * n**0.5  # longer is not told apart
        low, mid, high = style.quartiles(lengths)
        bars: dict[str, Any] = dict(capsize=2, marker="o", markersize=3.5, linewidth=1, color=shades[n])
        middle.errorbar([n], [mid], [[mid - low], [high - mid]], **bars)
        low, mid, high = style.quartiles(np.asarray([r["excess"] for r in of_n]))
        right.errorbar([n], [mid], [[mid - low], [high - mid]], **bars)
    x = np.asarray([widths[0], widths[-1]], float)
    middle.fill_between(x, *(k * x**0.5 for k in REPORTED), color="0.9", linewidth=0, zorder=0)
    middle.set_yscale("log", base=2)
    middle.yaxis.set_major_formatter("{x:.0f}")
    right.axhline(0, color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
    right.set_ylabel("√n (ϱ − 1)")
    middle.set_ylabel(f"t at which ‖h$_t$‖² > {FACTOR:.0f} t")
    for ax in (middle, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(widths, map(str, widths))
        ax.set_xlabel("n (units)")
    style.legend(fig, style.drawn(axes))
    return fig
