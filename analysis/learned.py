"""Which runs learned, when, and what became of the others: each run by the criterion of its own task."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from analysis.style import GREEN, SKY, VERMILION
from seqdyn.data.tasks import TASKS, task_of
from seqdyn.described import rebuilt
from seqdyn.layout import layout
from seqdyn.learn.spec import Spec
from seqdyn.runs.records import diverged
from seqdyn.runs.records import latest as latest
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

AT_CHANCE = 0.75
"""A loss above this share of the constant predictor's counts as no better: one summand known would halve it."""
STATUSES = {
    "learned": GREEN,
    "not yet": "#8fd3bd",
    "at chance": "#bdbdbd",
    "trained": SKY,
    "diverged": VERMILION,
    "unfinished": "#ffffff",
}
"""What can become of a run, with its colour (Okabe & Ito's, safe for the colour-blind). Of a loss of one's own, or a
task that does not say it, nobody knows when it is learned: its runs have 'trained'."""


class Criterion(NamedTuple):
    """When the runs of a directory count as learned: NaN where nobody knows."""

    metric: str
    """Of a held-out split: a loss, which must be below the target, or an accuracy, above it."""
    target: Float[np.ndarray, " run"]
    chance: Float[np.ndarray, " run"]
    """The loss of the best constant prediction."""

    @property
    def known(self) -> Bool[np.ndarray, " run"]:
        """Of which runs?"""
        return np.isfinite(self.target)

    @property
    def of_loss(self) -> bool:
        """Is it a loss that must fall?"""
        return self.metric.endswith("loss")


def criterion(described: Mapping[str, Any]) -> Criterion:
    """Of an experiment as `manifest.described` has it; the code of users' parts is not needed.

    Lengths of one task have levels of their own: of 'copy' a constant costs less the longer the sequence.
    """
    specs = described["specs"]
    own = described.get("learned") or [None] * len(specs)
    found = [_criterion(*both) for both in zip(specs, own, strict=True)]
    metric = next((name for name, target, _ in found if np.isfinite(target)), "test_loss")
    counts = layout(described).counts
    target, chance = (np.repeat([float(of[i]) for of in found], counts) for i in (1, 2))
    return Criterion(metric, target, chance)


def _criterion(said: Mapping[str, Any], own: Sequence[Any] | None) -> tuple[str, float, float]:
    """(metric, target, chance) of the words of a spec, or what a task of one's `own` says."""
    if own:
        target, chance = (np.nan if level is None else float(level) for level in own[1:])
        return own[0], target, chance
    task = said.get("task", Spec.task)
    known = isinstance(task, str) and task in TASKS
    if isinstance(task, dict) and task["part"].startswith("seqdyn:"):
        with contextlib.suppress(ConfigError):  # of another version
            task, known = rebuilt(task), True
    if not known or said.get("loss") is not None or said.get("network") is not None:
        return "test_loss", np.nan, np.nan
    words = {name: value for name, value in said.items() if isinstance(value, str | int)}
    found = task_of(Spec(**words | {"task": task}))
    return *found.learned, found.chance


def passes(values: Float[np.ndarray, " run *s"], of: Criterion) -> Bool[np.ndarray, " run *s"]:
    """Which values of the metric count as learned; NaN never does."""
    target = of.target.reshape(-1, *[1] * (values.ndim - 1))
    return values < target if of.of_loss else values > target


def learned_at(ds: "xr.Dataset", of: Criterion) -> Float[np.ndarray, " run"]:
    """After how many updates a look first met the criterion; NaN if none did."""
    met = passes(ds[of.metric].values, of)
    return np.where(met.any(axis=1), ds["probe_step"].values[met.argmax(axis=1)].astype(float), np.nan)


def unfinished(ds: "xr.Dataset") -> Bool[np.ndarray, " run"]:
    """Runs that go on: neither diverged, nor stopped early, nor at their last update."""
    ended = diverged(ds).any(axis=1) | ds["recorded"].all("step").values
    return np.asarray(~(ended | (latest(ds["stopped"].values) == 1 if "stopped" in ds else False)))


def statuses(ds: "xr.Dataset", of: Criterion) -> np.ndarray:
    """Of each run: diverged; learned, at its latest probe; unfinished, or never tested; or censored, as 'at chance' or
    'not yet'; 'trained' where nobody knows."""
    tested = latest(ds[of.metric].values)
    told = {
        "diverged": diverged(ds).any(axis=1),
        "learned": passes(tested, of),
        "unfinished": unfinished(ds) | (np.isnan(tested) & of.known),
        "trained": ~of.known,
        "at chance": latest(ds["test_loss"].values) > AT_CHANCE * of.chance,
    }
    return np.select(list(told.values()), list(told), "not yet")
