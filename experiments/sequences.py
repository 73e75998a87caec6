"""Where does the gradient go in real sequences that are not film reviews: pixels, music, characters?

  pixels       MNIST read pixel by pixel (Le, Jaitly & Hinton 2015), one label after the last: only a gradient that
               survives the whole way teaches the first rows; `--permuted` takes even neighbours apart
  music        the next chord of a piano roll, at every step (Boulanger-Lewandowski, Bengio & Vincent 2012; Pascanu,
               Mikolov & Bengio 2013): the loss is the negative log-likelihood of 88 notes, in nats a step
  characters   the next character of one text, the state carried from chunk to chunk: truncated backpropagation as it is
               really used; nothing travels further back than a chunk
Setting: {rnn, lstm, gru} × 12 seeds, Adam 1e-3, gradient norm clipped at 1, 1,000 updates.
  pixels 196 steps (`--pool 2`; 1 is all 784), width 32, batch 64; music width 64, pieces of 100 steps, batch 16;
  characters width 64, chunks of 64, 32 side by side.
Cost: 36 runs, 8 (pixels) or 4 minutes (music, characters) of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis import claims
from analysis import sequences as analysis
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.data.datasets import characters, mnist, music
from seqdyn.data.splits import beginning
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import Claiming, Seeds, fingerprint, launch, replicated, script, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(Claiming):
    """The grid is cells × seeds."""

    source: Literal["pixels", "music", "characters"] = "pixels"
    """What is read."""
    data_dir: Path | None = None
    """Of pixels: TFDS data directory that holds mnist; by default TFDS's own, downloaded on first use."""
    file: Path | None = None
    """Of music: a JSON file of piano rolls. Of characters: a text."""
    pool: int = 2
    """Of pixels: blocks of so many by so many are averaged (1, 2, 4)."""
    permuted: bool = False
    """Of pixels: in a random order, the same for all images."""
    held_out: int = 2000
    """Of pixels: images that validate, and as many that test."""
    cells: tuple[CellName, ...] = ("rnn", "lstm", "gru")
    """Recurrent cells, one compiled program each."""
    seeds: Seeds = 12
    updates: int = 1000
    """Of each run."""
    looks: int = 5
    """At the held-out splits, while training."""
    lr: float = 1e-3
    clip: float = 1.0


def data_and_shape(c: Config) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...] | None]:
    """(the splits, what a Spec says of them, the symbols of the ids if there are any)"""
    if c.source == "pixels":
        found = mnist(c.data_dir, pool=c.pool, permuted=c.permuted, limit=300 if c.smoke else None, validation=1 / 6)
        found |= {split: found[split].take(beginning(found[split].ys, c.held_out)) for split in ("validation", "test")}
        width = 8 if c.smoke else 32
        steps = found["train"].xs.shape[1]
        return found, dict(task="labelled", steps=steps, batch=64, features=1, classes=10, hidden=(width,)), None
    if c.file is None:
        raise ConfigError(f"file is not given; source '{c.source}' is read from a file, so name one with --file.")
    if c.source == "music":
        found = music(c.file, length=10 if c.smoke else 100)
        shape = dict(task="next_step", steps=found["train"].xs.shape[1], batch=16, features=88, readout="every")
        return found, shape | dict(hidden=(8 if c.smoke else 64,)), None
    stream = characters(c.file)
    shape = dict(task="stream", steps=8 if c.smoke else 64, batch=32, vocabulary=len(stream.symbols), readout="every")
    return stream.splits, shape | dict(hidden=(8 if c.smoke else 64,)), stream.symbols


def _of(column: str, source: str, *cells: str) -> Statistic:
    """A mean over cells."""
    return of(column, experiment=f"sequences_{source}", cell=cells, steps=STEPS[source])


STEPS = {"pixels": 196, "music": 100, "characters": 64}
CELLS = ("rnn", "lstm", "gru")


def carried(source: str, read: str, unit: str, span: str) -> tuple[Claim, ...]:
    """Where an error enters at every step, the gradient from the next step does not vanish."""
    rnn, lstm = (
        minus(_of("carried_end", source, cell), _of("carried_start", source, cell)) for cell in ("rnn", "lstm")
    )
    larger = (
        f"With an error at every {unit} the gradient from the next one is larger half a {span} back than one step back"
    )
    return (
        Claim(f"{larger}, before training (mean of three cells)", "median", _of("carried_start", source, *CELLS), 0.0),
        Claim(
            f"{larger}, after training, too (mean of three cells)", "median", _of("carried_end", source, *CELLS), 0.0
        ),
        Claim(
            f"Training on {read} makes this smaller in rnn and LSTM (mean of the two)",
            "difference",
            lambda runs: (rnn(runs) + lstm(runs)) / 2,
            0.0,
            "below",
        ),
    )


CLAIMS = (
    Claim(
        "Read pixel by pixel the gradient of the GRU reaches 20 of 196 lags or fewer before training",
        "median",
        _of("horizon_start", "pixels", "gru"),
        20.5,
        "below",
    ),
    Claim(
        "After training the gradient of all three cells reaches more than 180 of the 196 lags (mean of the three)",
        "median",
        _of("horizon_end", "pixels", *CELLS),
        180.0,
    ),
    Claim(
        "The rnn reads more digits right than the GRU (test accuracy)",
        "difference",
        minus(_of("right", "pixels", "rnn"), _of("right", "pixels", "gru")),
        0.0,
    ),
    Claim(
        "The LSTM reads more digits right than the GRU (test accuracy)",
        "difference",
        minus(_of("right", "pixels", "lstm"), _of("right", "pixels", "gru")),
        0.0,
    ),
    *carried("music", "chorales", "chord", "piece"),
    Claim(
        "Of chorales the rnn predicts the next chord better than LSTM and GRU do (test loss, mean of the two)",
        "difference",
        minus(_of("nats", "music", "rnn"), _of("nats", "music", "lstm", "gru")),
        0.0,
        "below",
    ),
    *carried("characters", "a text", "character", "chunk"),
    Claim(
        "Of a text the rnn predicts the next character better than the LSTM does (test loss)",
        "difference",
        minus(_of("nats", "characters", "rnn"), _of("nats", "characters", "lstm")),
        0.0,
        "below",
    ),
)
"""At the default sizes, after 1,000 updates, chosen when 12 seeds had been seen; those of a source are tested together.
Ratios of norms are means of logarithms over cells."""


def once(config: Config) -> Mapping[str, str]:
    """Reads, trains (or goes on), draws; the verdicts."""
    data, shape, symbols = data_and_shape(config)
    specs = tuple(Spec(cell=cell, **shape) for cell in config.cells)
    numbers = grid(seeds=config.seeds, lr=config.lr, clip=config.clip)
    every = max(1, config.updates // config.looks)
    chunk = max(n for n in range(1, 26) if every % n == 0)
    permuted = config.permuted and config.source == "pixels"
    settings: dict[str, Any] = {"source": config.source, "permuted": permuted, "data": fingerprint(data)}
    e = Experiment(
        f"sequences_{'permuted' if permuted else config.source}",
        specs,
        numbers,
        updates=every * max(1, config.updates // every),
        chunk=chunk,
        probe_every=every,
        tile=1,
        settings=settings,
    )
    out = launch(e, config, data, symbols)
    return claims.report(CLAIMS, [out], lambda found: analysis.show(out, found), analysis.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, dict(pool=4, seeds=1, updates=20))
    if config.looks < 1 or config.held_out < 2:
        raise ConfigError(f"looks is {config.looks}, held_out is {config.held_out}; they must be at least 1 and 2.")
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
