"""What do pretrained word vectors change: the accuracy, and the gradient that reaches the embedding?

Hypothesis: a network that begins with GloVe's vectors (Pennington, Socher & Manning 2014) judges reviews better after
little training, frozen or not, since it knows like words from the start; its embedding then receives a smaller gradient
relative to its size than one that begins at random, which has all to learn.
Data: IMDB reviews, 10,000 ids, the last 80 words; vectors from `--vectors`, a file of GloVe's or word2vec's text format
(.txt, .gz, .zip; users pass their glove.6B.50d.txt), matched by word, the rest drawn at their scale.
Setting: gru of 64, embedding as wide as the vectors, Adam 1e-3, batch 128: {random; frozen; thawed after an epoch;
trainable from the start} × 12 seeds.
Cost: 48 runs × 2 epochs, 25 minutes of processor time.
Expect: what `CLAIMS` says, of the 50 dimensions of GloVe 6B; its verdicts are printed.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import claims, judged
from analysis import pretrained as analysis
from analysis.claims import Claim, Statistic, minus, of
from experiments._reviews import Reviews, experiment, read
from seqdyn import backend
from seqdyn.data.tasks import VECTORS
from seqdyn.data.vectors import coverage, match, read_vectors
from seqdyn.learn.config import Spec, grid
from seqdyn.runs.display import plain_console
from seqdyn.runs.script import Claiming, Seeds, launch_all, replicated, script, with_preset


@dataclass(frozen=True, kw_only=True)
class Config(Reviews, Claiming):
    """The grid is embeddings × seeds."""

    vectors: Path
    """File of pretrained vectors."""
    length: int = 80
    hidden: int = 64
    batch: int = 128
    epochs: int = 2
    """Passes over the 20,000 training reviews."""
    looks: int = 2
    """At held-out errors, in each epoch."""
    lr: float = 1e-3
    seeds: Seeds = 12


def _of(column: str, thaw: float) -> Statistic:
    """Of what begins with the vectors and is frozen until update `thaw`."""
    return of(column, label="pretrained", thaw=thaw, steps=80)


def _random(column: str) -> Statistic:
    return of(column, label="random", steps=80)


FROZEN, TRAINED = math.inf, 0.0
CLAIMS = (
    Claim(
        "Vectors that are trained from the start judge better after an epoch than a random start (validation)",
        "difference",
        minus(_of("first", TRAINED), _random("first")),
        0.0,
    ),
    Claim(
        "Frozen vectors end behind a random start (test accuracy)",
        "difference",
        minus(_of("test", FROZEN), _random("test")),
        0.0,
        "below",
    ),
    Claim(
        "Trained vectors end within two points of a random start",
        "difference",
        minus(_of("test", TRAINED), _random("test")),
        2.0,
        "within",
    ),
    Claim(
        "Trained vectors end ahead of frozen ones",
        "difference",
        minus(_of("test", TRAINED), _of("test", FROZEN)),
        0.0,
    ),
    Claim(
        "In the first 20 updates the gradient of vectors that are trained is that of a random start, up to a quarter",
        "difference",
        minus(_of("embedding_start", TRAINED), _random("embedding_start")),
        math.log10(1.25),
        "within",
    ),
    Claim(
        "In the last 20 updates it is less than half of that of a random start",
        "difference",
        minus(_of("embedding_end", TRAINED), _random("embedding_end")),
        -math.log10(2),
        "below",
    ),
)
"""Of 20,000 reviews, after two epochs."""


def once(config: Config) -> Mapping[str, str]:
    """Reads, trains (or goes on), then draws; the verdicts."""
    text = read(config, config.length)
    matched = match(text.vocabulary, read_vectors(config.vectors))
    train = text.splits["train"]
    plain_console(stderr=True).print(
        f"{config.vectors} has vectors for {matched.found.mean():.1%} of the vocabulary, "
        f"{coverage(matched, train):.1%} of the words read",
        soft_wrap=True,
    )
    data: dict[str, Any] = text.splits | {VECTORS: matched.table}
    shape: dict[str, Any] = dict(
        vocabulary=len(text.vocabulary), embedding=matched.table.shape[1], cell="gru", hidden=(config.hidden,)
    )
    size = len(train.ys) // config.batch
    spec = Spec("labelled", config.length, config.batch, name="random", **shape)
    given = dataclasses.replace(spec, name="pretrained", pretrained=True)
    grids = {
        "pretrained": (given, grid(seeds=config.seeds, lr=config.lr, thaw=(math.inf, float(size), 0.0))),
        "random": (spec, grid(seeds=config.seeds, lr=config.lr)),
    }
    parts = {
        name: experiment("pretrained", (one,), numbers, data, config.epochs, config.looks, chunk=13)
        for name, (one, numbers) in grids.items()
    }
    done = launch_all(parts, config, dict.fromkeys(parts, data), text.vocabulary)
    out = done["random"].parent
    return claims.report(CLAIMS, [*done.values()], lambda found: analysis.show(out, found), judged.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, dict(vocabulary=300, length=12, hidden=4, batch=16, looks=1, seeds=2))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
