"""What the experiments on film reviews share: their options, their data, and how often they look."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdyn.data.datasets import imdb
from seqdyn.data.text import Text, shuffled
from seqdyn.learn.config import Experiment, Spec
from seqdyn.numbers import Numbers
from seqdyn.runs.script import Options, Seeds, fingerprint
from seqdyn.types import ConfigError

SMOKE = 200
"""Reviews of each half that a smoke test reads."""


@dataclass(frozen=True, kw_only=True)
class Reviews(Options):
    """What every experiment on reviews asks."""

    data_dir: Path | None = None
    vocabulary: int = 10_000
    """Ids, the special ones included; the rest of the words are <unk>."""
    seeds: Seeds = 3


def read(c: Reviews, length: int, order: bool = False) -> Text:
    """The last `length` words of each review; with `order` also the test reviews with their words shuffled."""
    text = imdb(c.data_dir, vocabulary=c.vocabulary, length=length, limit=SMOKE if c.smoke else None)
    if order:
        text.splits["shuffled"] = shuffled(text.splits["test"], seed=0)
    return text


def experiment(
    name: str,
    specs: Sequence[Spec],
    numbers: Numbers,
    data: dict[str, Any],
    epochs: int,
    looks: int = 1,
    chunk: int = 26,
) -> Experiment:
    """`epochs` passes over the training split (rounded to whole chunks), held-out errors `looks` times in each."""
    batch, training = specs[0].batch, len(data["train"].ys)
    if epochs < 1 or looks < 1 or batch < 1:
        raise ConfigError(
            f"epochs is {epochs}, looks is {looks}, batch is {batch}; each must be a whole number of at least 1."
        )
    if batch > training:
        raise ConfigError(f"batch is {batch}; there are only {training} training reviews.")
    chunk = min(chunk, training // batch)
    every = chunk * max(1, round(training // batch / chunk / looks))
    settings = {"data": fingerprint(data), "updates per epoch": training // batch}
    return Experiment(
        name,
        tuple(specs),
        numbers,
        updates=epochs * looks * every,
        chunk=chunk,
        probe_every=every,
        tile=1,
        probes=(),
        settings=settings,
    )
