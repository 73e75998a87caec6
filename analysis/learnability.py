"""What `experiments.reproduce.learnability` found: how many examples it takes to see a gradient at a lag."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style

LABELS = ("rnn tanh", "lstm", "gru")


def figure(found: dict[str, Any]) -> Figure:
    """N against the lag, before training and after the first updates, and against what arrives; tail indices and test
    loss along training. Medians and quartiles over seeds."""
    fig, axes = style.panels(2, 3, 1.9)
    (start, after, power), (tail, whole, loss) = axes
    for label, color in zip(LABELS, style.shades(len(LABELS)), strict=True):
        paths = [path for path in found["paths"] if path["label"] == label]
        update = np.asarray(paths[0]["update"])
        of = {name: np.asarray([path[name] for path in paths], float) for name in paths[0] if name != "label"}
        lag = np.arange(of["all"].shape[2])[::-1]
        for ax, at in ((start, 0), (after, min(1, len(update) - 1))):
            style.median_band(ax, lag, of["all"][:, at], color=color, label=label)
            ax.plot(lag, style.median(of["own"][:, at]), color=color, linestyle=style.DASHES[2], linewidth=1)
            ax.set_title("before training" if at == 0 else f"after {update[at]:,} updates")
        power.scatter(of["arrives"][:, 0], of["all"][:, 0], s=1.5, color=color, linewidth=0, rasterized=True)
        for ax, name in ((tail, "tail"), (whole, "tail_whole"), (loss, "loss")):
            style.median_band(ax, update, of[name], color=color)
    lines = {"beside the whole scatter": "-", "beside the scatter at that lag": style.DASHES[2]}
    handles = {name: Line2D([], [], color="0.4", linestyle=line) for name, line in lines.items()}
    for ax in (start, after):
        ax.set_xlabel("lag T − t")
    start.set_ylabel("examples N")
    f = np.asarray([np.min(x := power.dataLim.intervalx[power.dataLim.intervalx > 0]), np.max(x)])
    power.plot(f, 10 * f[1] ** 2 / f**2, color="0.4", linewidth=0.8)
    middle = np.sqrt(f[0] * f[1])
    at = (middle, 10 * (f[1] / middle) ** 2)
    power.annotate("slope −2", at, (4, 4), textcoords="offset points", ha="left", va="bottom", color="0.4")
    power.set_xscale("log")
    power.set_xlabel("‖∂L/∂h$_t$‖")
    power.set_title("before training")
    style.log_axis(axes[0], [line.get_ydata() for ax in axes[0, :2] for line in ax.lines])
    tail.set_ylabel("tail index α")
    tail.set_title("at one lag, median over lags")
    whole.set_title("of the whole gradient")
    for ax in (tail, whole):
        ax.set_ylim(0.55, 2.05)
        ax.set_xlabel("update")
    loss.set_yscale("log")
    loss.set_xlabel("update")
    loss.set_title("test loss")
    style.legend(fig, style.drawn(axes) | handles)
    return fig
