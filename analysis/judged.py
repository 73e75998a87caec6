"""What a run that reads reviews counts as in claims: its accuracy where validation chose, and how far back the gradient
of its last layer reaches.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from analysis import lags, outcomes
from analysis.lags import picked, stage
from analysis.learned import unfinished
from analysis.selection import ACCURACY, at_chosen
from seqdyn.learn.spec import Spec
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

VALUES = (
    *outcomes.VALUES,
    *("test", "order", "first", "top_start", "top_end", "embedding_start", "embedding_end"),
)
"""What `columns` says of a run."""
MEAN = 20
"""Updates, the first and the last ones, over which the embedding's gradient is a mean."""


def columns(*parts: Path) -> "xr.Dataset":
    """`outcomes.columns`, and

    test: test accuracy at the look with the best validation accuracy; order: so much it loses there where the words are
        shuffled, NaN if that was not tried; first: validation accuracy at the first look after an epoch; in percent.
    top_start, top_end: horizon of the last layer, in lags, at initialisation and after training; 0 of what diverged.
    embedding_start, embedding_end: log₁₀ of ‖∂L/∂E‖, E the embedding, a mean over the first and last 20 updates; NaN
        where there is none.
    """
    return outcomes.gathered(parts, measured)


def measured(part: Path) -> Mapping[str, np.ndarray]:
    """Of one part: what `columns` says, name -> values [run]."""
    ds, made = load(part), manifest.experiment(part)
    test, nothing = 100 * at_chosen(ds, "test_accuracy", ACCURACY), np.full(ds.sizes["run"], np.nan)
    shuffled = 100 * at_chosen(ds, "shuffled_accuracy", ACCURACY) if "shuffled_accuracy" in ds else nothing
    start, end = (np.log10(size) for size in embedding_gradients(ds))
    open_ = unfinished(ds)
    ended = {
        "test": test,
        "order": test - shuffled,
        "first": 100 * after_an_epoch(ds, made.settings.get("updates per epoch", np.inf)),
        "top_end": np.where(lags.diverged(ds).any(axis=1), 0.0, tops(ds, made.specs, 1.0)),
        "embedding_end": end,
    }
    return (
        outcomes.measured(part)
        | {"top_start": tops(ds, made.specs, 0.0), "embedding_start": start}
        | {name: np.where(open_, np.nan, values) for name, values in ended.items()}
    )


def tops(ds: "xr.Dataset", specs: Sequence[Spec], fraction: float, bottom: bool = False) -> Float[np.ndarray, " run"]:
    """Horizon of each run's top or bottom layer (of a bidirectional level, the layer that reads forwards), in lags."""
    norms, found = stage(ds, "adjoint_norm", fraction), np.full(ds.sizes["run"], np.nan)
    for spec in specs:
        runs, top = picked(ds, label=spec.label), len(spec.widths) - (2 if spec.bidirectional else 1)
        found[runs] = lags.horizon(norms[runs, 0 if bottom else top])
    return found


def after_an_epoch(ds: "xr.Dataset", updates: float) -> Float[np.ndarray, " run"]:
    """Validation accuracy at the first look after so many updates, NaN where there was none."""
    first = int(np.searchsorted(ds["probe_step"].values, updates))
    values = ds[ACCURACY].values
    return values[:, first] if first < values.shape[1] else np.full(len(values), np.nan)


def embedding_gradients(ds: "xr.Dataset") -> tuple[Float[np.ndarray, " run"], Float[np.ndarray, " run"]]:
    """‖∂L/∂E‖, a mean over the first and over the last updates."""
    values = embedding_gradient(ds)
    return values[:, :MEAN].mean(axis=1), values[:, -MEAN:].mean(axis=1)


def embedding_gradient(ds: "xr.Dataset") -> Float[np.ndarray, "run step"]:
    """‖∂L/∂E‖ at every update."""
    return ds["group_grad_norm"].reindex(group=["embedding"]).isel(group=0).transpose("run", "step").values
