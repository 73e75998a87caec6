"""What validation chose, and what the test split says of it: epochs, numbers of the grid, and whether a run fits.

Everything here that chooses reads training and validation alone. The test split is read at what was chosen; its own
best look is shown beside it as what could not have been selected.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from analysis import style
from analysis.lags import diverged
from analysis.learned import latest

if TYPE_CHECKING:
    import xarray as xr

ACCURACY = "validation_accuracy"
"""What the experiments on reviews choose by."""
WORSE = 0.05
"""A run overfits whose validation loss ends by this share of a guess's loss above its best look."""
HALF = 0.5
"""A run underfits whose training loss stays above this share of a guess's."""
RULE = (
    f"Overfitted: the validation loss at the last look is above its best by more than {WORSE:.0%} of a guess's loss "
    f"while the training loss fell; underfitted: not that, and the training loss ends above {HALF:.0%} of a guess's."
)


def best(values: Float[np.ndarray, "run probe"], metric: str) -> Int[np.ndarray, " run"]:
    """The first look of each run with its smallest loss or largest accuracy; 0 for a run without a value."""
    cost = np.asarray(values, np.float64) * (1 if metric.endswith("loss") else -1)
    return np.where(np.isnan(cost), np.inf, cost).argmin(axis=1)


def chosen(ds: "xr.Dataset", by: str = "validation_loss") -> Int[np.ndarray, " run"]:
    """The look that validation chooses of each run."""
    return best(ds[by].values, by)


def at(ds: "xr.Dataset", name: str, look: Int[np.ndarray, " run"]) -> Float[np.ndarray, " run"]:
    """A recorded value of each run at a look of its own."""
    return np.take_along_axis(ds[name].values, look[:, None], axis=1)[:, 0].astype(np.float64)


def at_chosen(ds: "xr.Dataset", name: str, by: str = "validation_loss") -> Float[np.ndarray, " run"]:
    """A recorded value of each run at the look that validation chooses."""
    return at(ds, name, chosen(ds, by))


def not_selectable(ds: "xr.Dataset", metric: str = "test_accuracy") -> Float[np.ndarray, " run"]:
    """The best look of the test split itself, which nobody who has not seen it can choose."""
    return at(ds, metric, best(ds[metric].values, metric))


def settled(ds: "xr.Dataset", name: str, by: str = "validation_loss", runs: Any = slice(None)) -> Any:
    """The value of a number of the grid with the best mean over seeds of validation at each run's chosen look."""
    scores, given = at_chosen(ds, by, by)[runs], ds[name].values[runs]
    scores = scores * (1 if by.endswith("loss") else -1)
    scores = np.where(np.isnan(scores), np.inf, scores)
    values = np.unique(given)
    return values[np.argmin([scores[given == v].mean() for v in values])]


def verdicts(ds: "xr.Dataset", chance: float) -> list[str]:
    """Of each run 'diverged' or, by `RULE`, 'overfitted', 'underfitted' or 'fitted'; `chance` is a guess's loss."""
    look = chosen(ds)
    train, validation = (latest(ds[name].values) for name in ("train_loss", "validation_loss"))
    risen = validation - at(ds, "validation_loss", look) > WORSE * chance
    over, under = risen & (train < at(ds, "train_loss", look)), train > HALF * chance
    gone = diverged(ds).any(axis=1)
    return list(np.select([gone, over, under], ["diverged", "overfitted", "underfitted"], "fitted"))


def counted(names: Sequence[str]) -> str:
    """'3 overfitted, 1 fitted', the most frequent first."""
    counts = {name: list(names).count(name) for name in names}
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))


class Course(NamedTuple):
    """Runs of one setting, to be drawn against epochs."""

    ds: "xr.Dataset"
    runs: Any
    per_epoch: float
    """Updates of an epoch."""


def curves(panels: Mapping[str, Course], columns: int = 3) -> Figure:
    """Training, validation and test accuracy against epochs, a panel a setting: medians over seeds with the middle
    half, and dotted the epoch that the least validation loss chooses, the runs' median."""
    fig, axes, used = style.wrapped(len(panels), columns, 1.5, sharey="row")
    for ax, (name, (ds, runs, per_epoch)) in zip(used, panels.items(), strict=True):
        epochs = ds["probe_step"].values / per_epoch
        for split, line in style.SPLITS.items():
            style.median_band(ax, epochs, 100 * ds[f"{split}_accuracy"].values[runs], **line)
        stop = float(np.median(epochs[chosen(ds)[runs]]))
        ax.axvline(stop, color="0.5", linestyle=":", linewidth=1, label="chosen by validation")
        ax.set(title=name, xlabel="epochs", xlim=(0, None))
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy (%)")
    style.legend(fig, style.drawn(axes[:1, :1]))
    return fig
