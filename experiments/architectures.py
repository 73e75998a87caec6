"""What does an architecture need to read a review: weights for each position, order, memory, gates?

Hypothesis: a dense layer per position and shared weights receive their gradient straight from the readout at every
position, so they train at once, but shared weights cannot use order; a simple rnn can, but hears only the last words,
because its gradient dies on the way back; gates carry the gradient to the first word and gain the most from order.
Data: IMDB reviews (Maas et al., ACL 2011), 10,000 ids, the last 80 words, padding masked.
Setting: embedding 50, width 32, Adam 1e-3, batch 128, no regularisation: {dense per position, dense shared, rnn of 1,
2, 3 layers and in both directions, lstm, gru}, 12 seeds. The dense layers are pooled (mean), the others read out at the
end.
'Shuffled' is the same test reviews with their words in random order: what order is worth to a trained network.
Cost: 96 runs × 2 epochs, 22 minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from analysis import architectures as analysis
from analysis import claims, judged
from analysis.claims import Claim, Statistic, minus, of
from experiments._reviews import Reviews, experiment, read
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import sweep
from seqdyn.runs.script import Claiming, Seeds, launch, replicated, script, with_preset
from seqdyn.types import ConfigError

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "dense per position": dict(cell="dense_per_position", readout="mean"),
    "dense, shared": dict(cell="dense", readout="mean"),
    "rnn": dict(),
    "rnn, 2 layers": dict(levels=2),
    "rnn, 3 layers": dict(levels=3),
    "rnn, both ways": dict(bidirectional=True),
    "lstm": dict(cell="lstm"),
    "gru": dict(cell="gru"),
}


@dataclass(frozen=True, kw_only=True)
class Config(Reviews, Claiming):
    """The grid is architectures × seeds."""

    architectures: tuple[str, ...] = tuple(ARCHITECTURES)
    """Names among the above."""
    length: int = 80
    embedding: int = 50
    """Width of the trained embedding."""
    hidden: int = 32
    batch: int = 128
    epochs: int = 2
    """Passes over the 20,000 training reviews."""
    lr: float = 1e-3
    seeds: Seeds = 12


def specs(c: Config) -> tuple[Spec, ...]:
    """One per architecture."""
    unknown = [name for name in c.architectures if name not in ARCHITECTURES]
    if unknown:
        raise ConfigError(f"architectures has {unknown[0]!r}; it must be among {', '.join(ARCHITECTURES)}.")
    found = []
    for name in c.architectures:
        changes = dict(ARCHITECTURES[name])
        hidden = (c.hidden,) * changes.pop("levels", 1)
        shape: dict[str, Any] = dict(vocabulary=c.vocabulary, embedding=c.embedding, hidden=hidden, name=name)
        found.append(Spec("labelled", c.length, c.batch, **shape, **changes))
    return tuple(found)


def seconds(e: Experiment, data: Any) -> dict[str, float]:
    """What an epoch of one run takes, alone on one core: the median of five chunks that were compiled before."""
    took = {}
    with jax.default_device(jax.local_devices()[0]):
        held = jax.device_put(data, jax.local_devices()[0])
        for tile in {tile.spec: tile for tile in e.layout.tiles}.values():
            programs, runs = sweep.programs(e.specs[tile.spec], sweep.width(e)), sweep.tile_runs(e, tile)
            states, times = programs.init(runs, jnp.ones(e.tile, bool), held), []
            for _ in range(6):
                begun = time.perf_counter()
                states = jax.block_until_ready(programs.chunk(runs, states, held, e.chunk)[0])
                times.append(time.perf_counter() - begun)
            took[e.specs[tile.spec].label] = float(np.median(times[1:])) * e.settings["updates per epoch"] / e.chunk
    return took


def _of(column: str, *names: str) -> Statistic:
    """A mean over architectures."""
    return of(column, label=names, steps=80)


CLAIMS = (
    Claim(
        "Order is worth something to LSTM and GRU: shuffled words cost accuracy (mean of the two)",
        "median",
        _of("order", "lstm", "gru"),
        0.0,
    ),
    Claim(
        "Order is worth more to LSTM and GRU (mean of the two) than to the rnn",
        "difference",
        minus(_of("order", "lstm", "gru"), _of("order", "rnn")),
        0.0,
    ),
    Claim(
        "LSTM and GRU are at most two points better than shared weights that cannot use order (test accuracy)",
        "difference",
        minus(_of("test", "lstm", "gru"), _of("test", "dense, shared")),
        2.0,
        "below",
    ),
    Claim(
        "The rnn, trained, hears 40 of the 80 words or fewer",
        "median",
        _of("top_end", "rnn"),
        40.5,
        "below",
    ),
    Claim(
        "Trained, the top of two or three rnn layers hears fewer words than the bottom one (mean of both stacks)",
        "difference",
        minus(_of("top_end", "rnn, 2 layers", "rnn, 3 layers"), _of("horizon_end", "rnn, 2 layers", "rnn, 3 layers")),
        0.0,
        "below",
    ),
    Claim(
        "At initialisation the GRU hears 20 words or fewer",
        "median",
        _of("top_start", "gru"),
        20.5,
        "below",
    ),
    Claim(
        "Training lengthens the GRU's reach",
        "difference",
        minus(_of("top_end", "gru"), _of("top_start", "gru")),
        0.0,
    ),
)
"""At width 32, after two epochs."""


def once(config: Config) -> Mapping[str, str]:
    """Reads, trains (or goes on), times, then draws; the verdicts."""
    text = read(config, config.length, order=True)
    config = dataclasses.replace(config, vocabulary=len(text.vocabulary))
    numbers = grid(seeds=config.seeds, lr=config.lr)
    e = experiment("architectures", specs(config), numbers, text.splits, config.epochs)
    out = launch(e, config, text.splits, text.vocabulary)
    timing = Path(out) / "seconds.json"
    if not timing.exists():
        timing.write_text(json.dumps(seconds(e, text.splits)), encoding="utf-8")
    return claims.report(CLAIMS, [out], lambda found: analysis.show(out, found), judged.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, dict(vocabulary=300, length=12, embedding=4, hidden=4, batch=16, seeds=2))
    specs(config)  # a wrong name is refused before anything is read
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
