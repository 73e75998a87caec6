"""What `experiments.reproduce.attractors` found: orbits along training, and how many sets they end in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import style

CLASSES = ("AA", "BA", "AB", "BB")
"""Of temporal order: the first symbol, the second."""


def typical(paths: Sequence[dict[str, Any]], target: float) -> int:
    """The seed that is drawn: of those whose accuracy is above the target at some look (of all, if none is) the one
    that gets there at the median look, of two the earlier."""
    learned = [path for path in paths if np.max(path["accuracy"]) > target] or list(paths)
    when = [int(np.argmax(np.asarray(path["accuracy"]) > target)) for path in learned]
    return learned[int(np.argsort(when, kind="stable")[(len(when) - 1) // 2])]["seed"]


def figure(found: dict[str, Any]) -> Figure:
    """Per case: the orbit diagram of one seed, the classes side by side; of all seeds test loss and what is still read
    out, and attractors."""
    fig, axes = style.panels(3, len(found["orbits"]), 1.6, sharex=True, sharey="row", height_ratios=(1.5, 1, 1))
    colors = style.shades(len(CLASSES))
    for column, one in enumerate(found["orbits"]):
        top, middle, low = axes[:, column]
        x = np.asarray(one["update"])
        beside = (np.arange(len(CLASSES)) - (len(CLASSES) - 1) / 2) * (x[-1] - x[0]) / max(len(x) - 1, 1) / 5
        for update, points in zip(x, one["points"], strict=True):
            of, y = np.asarray(points, float).reshape(-1, 2).T
            of = of.astype(int)
            top.scatter(update + beside[of], y, s=2, c=[colors[k] for k in of], linewidth=0, rasterized=True)
        paths = [path for path in found["paths"] if path["case"] == one["case"] and len(path["update"]) == len(x)]
        loss, held, number = (np.asarray([p[name] for p in paths]) for name in ("loss", "held", "attractors"))
        style.median_band(middle, x, loss, color="0.55", label="test loss over chance")
        style.median_band(middle, x, held, color="k", label="share still right after the wait")
        style.median_band(low, x, number, color="k")
        low.axhline(len(CLASSES), color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
        low.set_xlabel("update")
        top.set_title(f"{one['case']}\n{one['reads']}, seed {one['seed']}")
    for k, color in enumerate(colors):
        axes[0, 0].scatter([], [], s=12, color=color, label=f"after {CLASSES[k]}")
    axes[0, 0].set_yticks(range(len(CLASSES)), CLASSES)
    axes[0, 0].set_ylabel("class read out\nafter the wait")
    axes[1, 0].set_ylabel("loss, share right")
    axes[2, 0].set_ylabel("attractors")
    axes[2, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend(fig, style.drawn(axes))
    return fig
