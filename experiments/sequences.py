"""Where does the gradient go in real sequences that are not film reviews: pixels, music, characters?

  pixels       MNIST read pixel by pixel (Le, Jaitly & Hinton 2015), one label after the last: only a gradient that
               survives the whole way teaches the first rows; `--permuted` takes even neighbours apart
  music        the next chord of a piano roll, at every step (Boulanger-Lewandowski, Bengio & Vincent 2012; Pascanu,
               Mikolov & Bengio 2013): the loss is the negative log-likelihood of 88 notes, in nats a step
  characters   the next character of one text, the state carried from chunk to chunk: truncated backpropagation as it is
               really used; nothing travels further back than a chunk
Setting: {rnn, lstm, gru} × 2 seeds, Adam 1e-3, gradient norm clipped at 1.
  pixels 196 steps (`--pool 2`; 1 is all 784), width 64, batch 64; music width 100, pieces of 100 steps, batch 16;
  characters width 128, chunks of 64, 32 side by side.
Cost: two (music, characters) to eight minutes (pixels) on two cores.
Expect (two seeds, 1,000 updates; no claim is tested): pixels 73% (rnn), 67% (lstm), 60% (gru) on the test split, where
the rnn starts with the longest reach, the gru with 14 lags, and all end with all 195; chorales 8.8 to 9.2 nats a step;
Shakespeare about 2 nats a character. Where the loss is at every step the gradient never dies: each step receives errors
of its own, so a horizon says nothing there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis import sequences as analysis
from seqdyn import backend
from seqdyn.data.datasets import characters, mnist, music
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import Options, Seeds, fingerprint, launch, script, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(Options):
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
    cells: tuple[CellName, ...] = ("rnn", "lstm", "gru")
    """Recurrent cells, one compiled program each."""
    seeds: Seeds = 2
    updates: int = 1000
    """Of each run."""
    lr: float = 1e-3
    clip: float = 1.0


def data_and_shape(c: Config) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...] | None]:
    """(the splits, what a Spec says of them, the symbols of the ids if there are any)"""
    if c.source == "pixels":
        found = mnist(c.data_dir, pool=c.pool, permuted=c.permuted, limit=300 if c.smoke else None, validation=1 / 6)
        width = 8 if c.smoke else 64
        steps = found["train"].xs.shape[1]
        return found, dict(task="labelled", steps=steps, batch=64, features=1, classes=10, hidden=(width,)), None
    if c.file is None:
        raise ConfigError(f"file is not given; source '{c.source}' is read from a file, so name one with --file.")
    if c.source == "music":
        found = music(c.file, length=10 if c.smoke else 100)
        shape = dict(task="next_step", steps=found["train"].xs.shape[1], batch=16, features=88, readout="every")
        return found, shape | dict(hidden=(8 if c.smoke else 100,)), None
    stream = characters(c.file)
    shape = dict(task="stream", steps=8 if c.smoke else 64, batch=32, vocabulary=len(stream.symbols), readout="every")
    return stream.splits, shape | dict(hidden=(8 if c.smoke else 128,)), stream.symbols


def main(config: Config) -> None:
    """Reads, trains (or goes on), draws."""
    config = with_preset(config, dict(pool=4, seeds=1, updates=20))
    backend.start()
    data, shape, symbols = data_and_shape(config)
    specs = tuple(Spec(cell=cell, **shape) for cell in config.cells)
    numbers = grid(seeds=config.seeds, lr=config.lr, clip=config.clip)
    every = max(1, config.updates // 10)
    chunk = max(n for n in range(1, 26) if every % n == 0)
    settings: dict[str, Any] = {"source": config.source, "permuted": config.permuted, "data": fingerprint(data)}
    e = Experiment(
        f"sequences_{config.source}",
        specs,
        numbers,
        updates=every * max(1, config.updates // every),
        chunk=chunk,
        probe_every=every,
        tile=1,
        settings=settings,
    )
    analysis.show(launch(e, config, data, symbols))


if __name__ == "__main__":
    script(Config, main, __doc__)
