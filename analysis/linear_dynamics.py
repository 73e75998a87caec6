"""What `experiments.reproduce.linear_dynamics` found: how far modes are learned, and b, beside closed equations."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import style


def figure(found: dict[str, Any]) -> Figure:
    """Rows: share of s learned, and b; columns: the two tasks from aligned weights, the first from Gaussian ones."""
    columns = {
        ("rates", "aligned"): "three rates, aligned",
        ("rates", "gaussian"): "three rates, Gaussian",
        ("sizes", "gaussian"): "three sizes, Gaussian",
    }
    fig, axes = style.panels(2, len(columns), 1.6, sharex=True, sharey="row")
    for column, key in zip(axes.T, columns, strict=True):
        for curve, color in zip(
            [c for c in found["curves"] if (c["task"], c["begun"]) == key], style.OKABE, strict=False
        ):
            x = np.asarray(curve["update"])
            for ax, name in zip(column, ("share", "b"), strict=True):
                low, middle, high = np.asarray(curve[name])
                ax.plot(x, middle, color=color, label=curve["mode"])
                ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
                ax.plot(x, curve[f"{name}_closed"], color="k", linestyle=style.DASHES[2], linewidth=0.9)
            column[1].axhline(curve["rate"], color=color, linewidth=0.6, linestyle=style.DASHES[1])
    axes[0, 0].plot([], [], color="k", linestyle=style.DASHES[2], linewidth=0.9, label="closed equations")
    axes[1, 0].set_ylim(0, 1.4)
    style.frame(axes, ["", ""], list(columns.values()), "update", ["share of s learned", "recurrent mode b"])
    style.legend(fig, style.drawn(axes))
    return fig
