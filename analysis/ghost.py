"""What `experiments.reproduce.ghost` found: where descent ends, against α T⁵, and the critical rate against T."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import style

CONSTANT = 3 * np.pi**4 / 32
"""α* T⁵ of the model."""


def figure(found: dict[str, Any]) -> Figure:
    """The share of runs in the no-learning zone against α T⁵, of the model and the unit; critical rates against T."""
    fig, axes = style.panels(1, 3, 2.2)
    kinds = {"model": "their loss |t* − T|", "unit": "the unit, through time"}
    lengths = sorted({row["T"] for row in found["rows"]})
    shades = dict(zip(lengths, style.shades(len(lengths)), strict=True))
    for ax, kind in zip(axes[0], kinds, strict=False):
        for end in sorted((e for e in found["ends"] if e["kind"] == kind), key=lambda e: -e["T"]):
            share = np.mean(np.asarray(end["r"]) < 0.25, axis=1)
            ax.plot(end["scaled"], share, color=shades[end["T"]], marker="o", markersize=2.5)
        ax.axvline(CONSTANT, color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
        ax.set_xscale("log")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("learning rate × T⁵")
        ax.set_title(kinds[kind])
    axes[0, 0].set_ylabel("share that ends in the no-learning zone")
    last = axes[0, 2]
    for kind, marker, size in zip(kinds, ("o", "x"), (6, 4), strict=True):
        rows = [r for r in found["rows"] if r["kind"] == kind]
        at = sorted({r["T"] for r in rows})
        middle = [float(style.median(np.asarray([r["critical"] for r in rows if r["T"] == t]))) for t in at]
        colors = "0.7" if kind == "model" else "k"
        last.plot(at, middle, marker=marker, markersize=size, linewidth=0, color=colors, label=kinds[kind])
    x = np.asarray([lengths[0], lengths[-1]])
    last.plot(x, CONSTANT * x**-5.0, color="0.4", linewidth=0.8, linestyle=style.DASHES[1], label="α* = (3π⁴/32) T⁻⁵")
    for t in lengths:
        last.plot([], [], color=shades[t], label=f"T = {t:g}")
    last.set_xscale("log")
    last.set_yscale("log")
    last.set_xlabel("T")
    last.set_ylabel("critical learning rate")
    style.legend(fig, style.drawn(axes))
    return fig
