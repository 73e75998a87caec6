"""How does the gradient travel back through a real review, layer by layer, while the network learns to judge it?

Hypothesis: two stacked simple rnn layers see only the last words of a review, since ∂L/∂h_t falls by orders of
magnitude within tens of words; LSTM and GRU, with a path through c or z, keep it, and lengthen their reach in learning.
Data: IMDB reviews (Maas et al., ACL 2011), 10,000 ids for the most frequent words of the training split, the last 80
words, padding masked.
Setting: embedding 100, two layers of 64, one logit, Adam 1e-3, batch 128 (the lecture notes' network, no dropout), 12
seeds. The test split is read at the look with the best validation accuracy.
Cost: 36 runs × 2 epochs, 24 minutes of processor time, a third of it held-out error.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from analysis import claims, judged
from analysis import imdb_gradients as analysis
from analysis.claims import Claim, Statistic, minus, of
from experiments._reviews import Reviews, experiment, read
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Spec, grid
from seqdyn.runs.script import Claiming, Seeds, launch, replicated, script, with_preset


@dataclass(frozen=True, kw_only=True)
class Config(Reviews, Claiming):
    """The grid is cells × seeds."""

    cells: tuple[CellName, ...] = ("rnn", "lstm", "gru")
    """Recurrent cells, one compiled program each."""
    length: int = 80
    embedding: int = 100
    """Width of the trained embedding."""
    hidden: tuple[int, ...] = (64, 64)
    """Width of each recurrent layer."""
    batch: int = 128
    epochs: int = 2
    """Passes over the 20,000 training reviews (rounded to whole chunks)."""
    looks: int = 1
    """At held-out errors, in each epoch."""
    lr: float = 1e-3
    clip: float = 1.0
    gain: float = 1.0
    """Of the orthogonal recurrent initialisation."""
    seeds: Seeds = 12


def _of(column: str, *cells: str) -> Statistic:
    return of(column, cell=cells, steps=80)


CLAIMS = (
    Claim(
        "The rnn's upper layer, trained, hears 40 of the 80 words or fewer",
        "median",
        _of("top_end", "rnn"),
        40.5,
        "below",
    ),
    Claim(
        "Trained, the rnn's lower layer reaches further back than its upper one",
        "difference",
        minus(_of("horizon_end", "rnn"), _of("top_end", "rnn")),
        0.0,
    ),
    Claim(
        "Trained, the GRU's upper layer reaches further back than the rnn's",
        "difference",
        minus(_of("top_end", "gru"), _of("top_end", "rnn")),
        0.0,
    ),
    Claim(
        "Trained, the LSTM's upper layer reaches further back than the rnn's",
        "difference",
        minus(_of("top_end", "lstm"), _of("top_end", "rnn")),
        0.0,
    ),
    Claim(
        "Training lengthens the reach of the GRU's upper layer",
        "difference",
        minus(_of("top_end", "gru"), _of("top_start", "gru")),
        0.0,
    ),
    Claim(
        "Training lengthens the reach of the LSTM's upper layer",
        "difference",
        minus(_of("top_end", "lstm"), _of("top_start", "lstm")),
        0.0,
    ),
    Claim(
        "LSTM and GRU judge better than the rnn (test accuracy, mean of the two)",
        "difference",
        minus(_of("test", "lstm", "gru"), _of("test", "rnn")),
        0.0,
    ),
)
"""At two layers of 64, after two epochs."""


def once(config: Config) -> Mapping[str, str]:
    """Reads, trains (or goes on), then draws; the verdicts."""
    text = read(config, config.length)
    spec = Spec("labelled", config.length, config.batch, vocabulary=len(text.vocabulary), embedding=config.embedding)
    specs = [dataclasses.replace(spec, cell=cell, hidden=config.hidden) for cell in config.cells]
    numbers = grid(seeds=config.seeds, lr=config.lr, clip=config.clip, gain=config.gain)
    e = experiment("imdb_gradients", specs, numbers, text.splits, config.epochs, config.looks)
    out = launch(e, config, text.splits, text.vocabulary)
    return claims.report(CLAIMS, [out], lambda found: analysis.show(out, found), judged.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    smoke = dict(vocabulary=500, length=20, embedding=8, hidden=(8, 8), batch=16, seeds=2)
    config = with_preset(config, smoke)
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
