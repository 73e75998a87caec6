"""Depth, learning rate, representation: three more causes of a gradient that vanishes.

Hypothesis: a layer adds a factor to every path from the loss to a lower layer, so the gradient shrinks on its way down
as it does on its way back (a recurrent network is deep in both: Pascanu et al. 2014, §2), unless a cell has a path on
which it is multiplied by numbers near 1. A rate that is too large saturates the units: what had not vanished before
training has done so after it. A drive W x_t that is too large saturates them, too. Glorot's W has the variance 2 over
its width and height, so it gives a narrow embedding a larger drive than one-hot vectors of many words.
Task: temporal order, T = 50, 16 units a layer, an rnn and an LSTM of 1 to 8 layers; an rnn of one layer with six rates
of Adam; and one that reads temporal order among 100 words, as one-hot vectors and by embeddings, with three gains of W.
Norms are drawn for each layer and lag.
Cost: 552 runs × 1,500 updates, fourteen minutes of processor time.
Expect, by the claims that are printed at the end: of depth the first half is wrong before training. Lower layers have
more paths from the loss, and in the first of 8 rnn layers the gradient is larger than in the last and reaches further
back; in that of 8 LSTM layers it even grows with the lag. After training it is smaller there. Few rnns of 8 layers
learn, most LSTMs do. At a rate of 0.03 the gradient ends within 10 lags. Before training one-hot vectors and a wide
embedding let it reach further back than an embedding of 4 does; at the same drive they reach equally far. With a drive
of 2.4 times the usual hardly any learns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

import seqdyn as sd
from analysis import cures as analysis
from analysis.claims import Claim, Statistic, minus, prevails
from experiments import _cures as cures
from experiments._cures import of
from seqdyn import backend
from seqdyn.data.synthetic import TemporalOrder
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, replicated, script
from seqdyn.types import whole


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """Depths × seeds for each cell; rates × seeds; representations × gains × seeds."""

    seeds: Seeds = 24
    hidden: int = 16
    tile: int = 12
    layers: tuple[int, ...] = (1, 2, 4, 8)
    """Depths, in layers."""
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    """Of Adam, where one layer is trained."""
    words: int = 100
    """Kinds of symbols, where their representation is asked for."""
    embeddings: tuple[int, ...] = (0, 4, 64)
    """Widths; 0 for one-hot vectors."""
    input_gains: tuple[float, ...] = (0.42, 1.0, 2.4)
    """Of W. W x_t has entries of the variance 2 gain² / (d + H), with H units, of one-hot vectors of d words as of an
    embedding d wide: one-hot vectors of 100 words have the drive of an embedding of 4 at 2.4 times its gain."""
    clip: float = 1.0


CELLS = ("rnn", "lstm")
RATE = "learning rate"


OTHERS = 2**30
"""Folded into a batch's key, it gives that of the distractors."""


@sd.part
class Words:
    """Temporal order among so many kinds of symbols, as ids: the distractors are drawn from all kinds but the first
    two."""

    steps: int
    """T, time steps of a sequence."""
    kinds: int
    """Of symbols, at least 3."""

    def build(self) -> sd.Task:
        """Its draw; all else is that of `TemporalOrder`."""
        order = TemporalOrder(steps=self.steps).build()

        def draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
            xs, ys = order.draw(key, batch)
            ids = jnp.argmax(xs, axis=-1)
            others = jax.random.randint(jax.random.fold_in(key, OTHERS), ids.shape, 2, self.kinds)
            return jnp.where(ids < 2, ids, others), ys

        return order._replace(draw=draw, inputs=0, of_lengths=None)


def experiments(c: Config) -> dict[str, Experiment]:
    """A part for each cell, in which depths differ, one in which rates do, and one of representations."""

    for depth in c.layers:
        whole("layers", depth)

    def deep(cell: str) -> Experiment:
        specs = tuple(cures.spec(c, named(cell, k), c.steps[0], cell=cell, hidden=(c.hidden,) * k) for k in c.layers)
        return cures.experiment(c, f"causes_{cell}", specs, clip=c.clip)

    rate = cures.experiment(c, "causes_rate", (cures.spec(c, RATE, c.steps[0]),), lr=c.rates, clip=c.clip)
    task = Words(c.steps[0], c.words)
    read = tuple(
        cures.spec(c, represented(width), c.steps[0], task=task, vocabulary=c.words, embedding=width)
        for width in c.embeddings
    )
    words = cures.experiment(c, "causes_words", read, input_gain=c.input_gains, clip=c.clip)
    return {cell: deep(cell) for cell in CELLS} | {"rate": rate, "words": words}


def named(cell: str, layers: int) -> str:
    """'lstm, 8 layers'."""
    return f"{cell}, {layers} layer{'s' * (layers > 1)}"


def represented(width: int) -> str:
    """'embedding of 4'; 'one-hot'."""
    return f"embedding of {width}" if width else "one-hot"


def _deep(column: str, cell: str, layers: int) -> Statistic:
    """Of a depth."""
    return of(column, label=named(cell, layers))


def _rate(column: str, *lr: float) -> Statistic:
    """Of one layer at a rate, or of several."""
    return of(column, label=RATE, lr=lr)


def _words(column: str, gain: float, *widths: int) -> Statistic:
    """Of a representation, or of several, at a gain of W."""
    return of(column, label=tuple(map(represented, widths)), input_gain=gain)


CLAIMS = (
    Claim(
        "At initialisation the first of 8 rnn layers has more gradient than the last",
        "median",
        _deep("below_start", "rnn", 8),
        1.0,
    ),
    Claim(
        "And it reaches further back there than in one layer",
        "difference",
        minus(_deep("horizon_start", "rnn", 8), _deep("horizon_start", "rnn", 1)),
        0.0,
    ),
    Claim(
        "Training undoes it: the first of 8 rnn layers ends with less than half of the last's gradient",
        "median",
        _deep("below_end", "rnn", 8),
        0.5,
        "below",
    ),
    Claim("Few rnns of 8 layers learn", "proportion", _deep("learned", "rnn", 8), 0.5, "below"),
    Claim("Most LSTMs of 8 layers learn", "proportion", _deep("learned", "lstm", 8), 0.5),
    Claim(
        "At initialisation the gradient of the first of 8 LSTM layers grows with the lag",
        "median",
        _deep("slope_start", "lstm", 8),
        0.0,
    ),
    Claim(
        "Trained, the first of 8 LSTM layers has less than a third of the last's gradient",
        "median",
        _deep("below_end", "lstm", 8),
        1 / 3,
        "below",
    ),
    Claim(
        "At a rate of 0.03 the gradient of an rnn of one layer ends within 10 lags",
        "median",
        _rate("horizon_end", 0.03),
        10.0,
        "below",
    ),
    Claim(
        "At 0.03 and 0.1 hardly any learns (share of a seed's two)",
        "median",
        _rate("learned", 0.03, 0.1),
        0.3,
        "below",
    ),
    Claim(
        "At 0.003 the gradient ends further back than at 0.03",
        "difference",
        minus(_rate("horizon_end", 0.003), _rate("horizon_end", 0.03)),
        0.0,
    ),
    Claim(
        "At initialisation one-hot vectors of 100 words let the gradient reach further back than an embedding of 4",
        "difference",
        minus(_words("horizon_start", 1.0, 0), _words("horizon_start", 1.0, 4)),
        5.0,
    ),
    Claim(
        "Where both have the same drive, they reach equally far (within 5 lags)",
        "difference",
        minus(_words("horizon_start", 2.4, 0), _words("horizon_start", 1.0, 4)),
        5.0,
        "within",
    ),
    Claim(
        "An embedding of 64 reaches further back than one of 4",
        "difference",
        minus(_words("horizon_start", 1.0, 64), _words("horizon_start", 1.0, 4)),
        5.0,
    ),
    Claim(
        "From a gain of W of 2.4 hardly any learns, whatever reads the words (share of a seed's three)",
        "median",
        _words("learned", 2.4, 0, 4, 64),
        0.4,
        "below",
    ),
    Claim(
        "Of the seeds of which more learn from one of the gains 0.42 and 1 of W, most do so from 0.42",
        "proportion",
        prevails(_words("learned", 0.42, 0, 4, 64), _words("learned", 1.0, 0, 4, 64)),
        0.5,
    ),
)
"""At the default length, width, depths and rates."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws, part by part; the verdicts."""
    titles = {
        "rnn": "Depth of an rnn",
        "lstm": "Depth of an LSTM",
        "rate": "The learning rate",
        "words": "One-hot or embedding",
    }
    swept = {"rate": "lr", "words": "input_gain"}
    measures = {"spectral radius": analysis.probed("spectral_radius")}
    return cures.report(
        CLAIMS,
        launch_all(experiments(config), config),
        lambda part, out, found: analysis.show(out, titles[part], swept.get(part), measures, found),
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(
        config, smoke=dict(layers=(1, 2), rates=(0.001, 0.1), embeddings=(0, 4), input_gains=(1.0,))
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
