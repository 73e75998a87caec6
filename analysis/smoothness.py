"""What `experiments.reproduce.smoothness` found: how fast the gradient changes, against how large it is."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import style


def figure(found: dict[str, Any]) -> Figure:
    """Smoothness against ‖∇L‖ of one run, coloured by update, and of all; both along training, medians over seeds."""
    fig, axes = style.panels(1, 3, 2.2)
    left, middle, right = axes[0]
    paths = found["paths"]
    rank = np.asarray([row["rank"] for row in found["rows"]])
    typical = paths[int(np.argsort(rank)[len(rank) // 2])]
    last = max(path["update"][-1] for path in paths)
    for path, ax, size in [(typical, left, 12), *((path, middle, 2) for path in paths)]:
        colors = {"c": path["update"], "cmap": "plasma", "vmin": 0, "vmax": last / 0.8}
        drawn = ax.scatter(path["gradient"], path["smoothness"], s=size, linewidth=0, **colors)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("‖∇L‖")
    left.set_ylabel("local smoothness")
    left.set_title("the seed of median correlation")
    middle.set_title("all seeds")
    fig.colorbar(drawn, ax=middle, label="update", boundaries=np.linspace(0, last, 100), ticks=[0, last // 2, last])
    whole = [path for path in paths if len(path["update"]) == len(paths[0]["update"])]
    x = np.asarray(whole[0]["update"])
    for name, color in (("gradient", "0.5"), ("smoothness", "k")):
        values = np.asarray([path[name] for path in whole])
        style.median_band(right, x, values, color=color, label={"gradient": "‖∇L‖"}.get(name, "local smoothness"))
    right.set_yscale("log")
    right.set_xlabel("update")
    style.legend(fig, style.drawn(axes))
    return fig
