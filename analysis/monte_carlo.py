"""Monte Carlo evaluation, of `experiments.dropout`: the mean prediction of a trained network over draws of its dropout,
against its prediction without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from analysis import style
from analysis.lags import axis, picked
from analysis.style import BLUE, VERMILION, spread
from seqdyn.runs.records import load

CAPTION = (
    "The test split at the end of training, judged by the network without dropout (open) and by the mean prediction of "
    "several with it (filled): means over seeds, and each seed."
)


class Pair(NamedTuple):
    """A kind at a rate, judged in both ways at the last look: [2 (without, Monte Carlo), seed]."""

    kind: str
    rate: float
    loss: Float[np.ndarray, "2 seed"]
    accuracy: Float[np.ndarray, "2 seed"]


def pairs(done: Mapping[str, Path]) -> list[Pair]:
    """The test split at the last look, by the same trained networks."""
    if "sampled" not in done:
        return []
    plain, sampled = load(done["kinds"]), load(done["sampled"])
    found = []
    for kind in axis(sampled, "label"):
        for rate in axis(sampled, "dropout"):
            runs = [picked(ds, label=kind, dropout=np.float32(rate)) for ds in (plain, sampled)]
            both = {
                name: np.stack([ds[f"test_{name}"].values[r, -1] for ds, r in zip((plain, sampled), runs, strict=True)])
                for name in ("loss", "accuracy")
            }
            found.append(Pair(kind, float(rate), both["loss"], 100 * both["accuracy"]))
    return found


def by_pair(found: Sequence[Pair]) -> Figure:
    """Test loss and accuracy of the network without dropout and of the mean prediction of several with it."""
    fig, axes = style.panels(1, 2, 0.35 + 0.19 * len(found), sharey=True)
    fig.set_figwidth(style.PAGE * 0.85)
    y = np.arange(len(found))
    for ax, name, unit in zip(axes[0], ("loss", "accuracy"), ("test loss (nats)", "test accuracy (%)"), strict=True):
        for way, (color, face, label) in enumerate(
            ((BLUE, "white", "without dropout"), (VERMILION, VERMILION, "Monte Carlo"))
        ):
            values = np.stack([getattr(pair, name)[way] for pair in found])
            for seed in values.T:
                ax.plot(seed, y + 0.2 * (way - 0.5), "|", color=color, markersize=5)
            mark: dict[str, Any] = dict(color=color, markerfacecolor=face, markersize=4, label=label)
            ax.plot(values.mean(axis=1), y + 0.2 * (way - 0.5), "o", **mark)
        ax.set_xlabel(unit)
        ax.grid(axis="x", linewidth=0.3)
    axes[0, 0].set_yticks(y, [f"{pair.kind.replace('_', ' ')} {pair.rate:g}" for pair in found])
    axes[0, 0].set_ylim(len(found) - 0.4, -0.6)
    style.legend(fig, style.drawn(axes[:1, :1]))
    return fig


def table(found: Sequence[Pair]) -> list[dict[str, str]]:
    """For the reader."""
    lines = []
    for pair in found:
        lines.append(
            {
                "dropped": pair.kind.replace("_", " "),
                "rate": f"{pair.rate:g}",
                "test loss, without dropout": spread(pair.loss[0], 2),
                "Monte Carlo": spread(pair.loss[1], 2),
                "difference": style.interval(pair.loss[1] - pair.loss[0], 2),
                "test accuracy, without dropout": spread(pair.accuracy[0], 1),
                "Monte Carlo ": spread(pair.accuracy[1], 1),
                "difference ": style.interval(pair.accuracy[1] - pair.accuracy[0]),
            }
        )
    return lines
