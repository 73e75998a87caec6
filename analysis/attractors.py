"""What `experiments.reproduce.attractors` found: orbits along training, and how many sets they end in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

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
    """Per case: the orbit diagram of one seed; test loss and what is still read out, and attractors, of all seeds."""
    cases = [one["case"] for one in found["orbits"]]
    fig, axes = style.panels(3, len(cases), 1.5, sharex=True, sharey="row")
    colors = style.shades(len(CLASSES))
    for column, one in enumerate(found["orbits"]):
        top, middle, low = axes[:, column]
        for update, points in zip(one["update"], one["points"], strict=True):
            of, y = np.asarray(points).T
            top.scatter(np.full(len(y), update), y, s=3, c=[colors[int(k)] for k in of], linewidth=0)
        paths = [path for path in found["paths"] if path["case"] == one["case"]]
        paths = [path for path in paths if len(path["update"]) == len(one["update"])]
        x = np.asarray(one["update"])
        style.median_band(middle, x, np.asarray([p["loss"] for p in paths]), color="0.5", label="test loss over chance")
        held = "share still right after the wait"
        style.median_band(middle, x, np.asarray([p["held"] for p in paths]), color="k", label=held)
        style.median_band(low, x, np.asarray([p["attractors"] for p in paths]), color="k")
        low.axhline(len(CLASSES), color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
        low.set_xlabel("update")
        top.set_title(f"{style.plain(one['case'])}, seed {one['seed']}")
    for k, color in enumerate(colors):
        axes[0, 0].scatter([], [], s=12, color=color, label=CLASSES[k])
    axes[0, 0].set_yticks(range(len(CLASSES)), CLASSES)
    axes[0, 0].set_ylabel("class read out")
    axes[1, 0].set_ylabel("all seeds")
    axes[2, 0].set_ylabel("attractors")
    style.legend(fig, style.drawn(axes))
    return fig
