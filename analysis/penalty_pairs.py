"""What a penalised network counts as in the claims of `experiments.penalties`: one value a run.

Bias and variance have no value a training set. They have one a pair of them: of the probabilities p and p' that the
networks of two sets say of a test example, variance is ‖p − p'‖² / 2 and bias² is (p − y)·(p' − y), mean over examples.
Both are unbiased as the two sets are drawn independently, and disjoint pairs are independent of each other: so medians
over pairs can be judged as those over seeds are. Their sum is the mean of both Brier scores.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from analysis import outcomes, penalties
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

MEASURED = ("error", "train_error", "nonzero", "radius", "reach", "bias", "variance")
VALUES = tuple(name + where for where in ("", "_chosen") for name in MEASURED)
"""What `columns` says of a run."""


def of_pair(
    one: Float[np.ndarray, "*s n k"], other: Float[np.ndarray, "*s n k"], classes: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """(bias², variance) of the predicted probabilities of two training sets."""
    truth = np.eye(one.shape[-1])[classes]
    bias = ((one - truth) * (other - truth)).sum(axis=-1).mean(axis=-1)
    return bias, np.square(one - other).sum(axis=-1).mean(axis=-1) / 2


def pairs(parts: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """The first and second training set by their seeds, the third and fourth, …; an odd one is left out."""
    ordered = sorted(parts, key=lambda part: np.ravel(manifest.experiment(part).numbers.seed)[0])
    return zip(ordered[::2], ordered[1::2], strict=False)


def columns(*parts: Path) -> "xr.Dataset":
    """At the end of training, and again as `…_chosen`, NaN but at the λ of each method that validation chose:

    error, train_error: share of the test and of the training split that is told wrong, 1 of what has diverged.
    nonzero: share of the weights that are not 0; radius: spectral radius of U.
    reach: log₁₀ of ‖∂L/∂h_t‖ at the first step over that at the last.
    bias, variance: of the pair that a training set begins (see above), NaN of the second set of a pair.

    Training sets that are unfinished are NaN, and so are runs that they were extended by.
    """
    done = [part for part in parts if (part / penalties.LEARNED).exists()]
    if len(done) < 2:
        return outcomes.gathered(parts, lambda part: dict.fromkeys(VALUES, np.full(load(part).sizes["run"], np.nan)))
    of = penalties.found(done)
    picked = np.zeros(of.weights.shape, bool)
    picked[np.arange(len(of.labels)), penalties.chosen(of)] = True
    with np.errstate(divide="ignore"):
        reach = np.log10(of.norms[..., -1])
    right = {split: np.nan_to_num(of.metrics[f"{split}_accuracy"]) for split in ("test", "train")}
    values = {
        "error": 1 - right["test"],
        "train_error": 1 - right["train"],
        "nonzero": penalties.nonzero(of),
        "radius": of.metrics["radius"],
        "reach": reach,
        "bias": np.full_like(reach, np.nan),
        "variance": np.full_like(reach, np.nan),
    }
    for both in pairs(done):
        noted = [np.load(part / penalties.LEARNED) for part in both]
        one, other = (of_one["probabilities"].astype(np.float64) for of_one in noted)
        found = of_pair(one, other, noted[0]["classes"])
        for name, part_of in zip(("bias", "variance"), found, strict=True):
            values[name][done.index(both[0])] = part_of.reshape(picked.shape)

    def measured(part: Path) -> dict[str, np.ndarray]:
        count, known = load(part).sizes["run"], {}
        for name, every in values.items():
            mine = every[done.index(part)] if part in done else np.full(picked.shape, np.nan)
            for where, of_it in (("", mine), ("_chosen", np.where(picked, mine, np.nan))):
                known[name + where] = np.full(count, np.nan)
                known[name + where][: mine.size] = of_it.ravel()
        return known

    return outcomes.gathered(parts, measured)
