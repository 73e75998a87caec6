"""Notes: both recurrent models on film reviews, cells that are stepped by hand and layers. See that they are the same
model, how far they come, and that an accuracy chosen on the validation split is not that of the last epoch.

    python experiments/notes/10_imdb_rnn.py --data-dir DIR --epochs 20

Two levels of 64 on the last 80 words, embedding 100, dropout 0.5, Adam 0.001, batches of 128; the notes report 80.1%
after 20 epochs. An epoch of both takes 12 s on two cores. `experiments/imdb_accuracy.py` has eight seeds, LSTM and GRU.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import style
from seqdyn.data.datasets import imdb
from seqdyn.nets.inits import GlorotUniform, Orthogonal
from seqdyn.runs.script import fingerprint, script


@sd.part
class SimpleRNNCell:
    """h_t = tanh(W x_t + U h_{t−1} + b), as one writes it by hand."""

    hidden: int

    def build(self, inputs: int) -> sd.Cell:
        def init(key):
            w, u = jax.random.split(key)
            return {
                "w": GlorotUniform()(w, (inputs, self.hidden), jnp.float32),
                "u": Orthogonal()(u, (self.hidden, self.hidden), jnp.float32),
                "b": jnp.zeros(self.hidden),
            }

        def step(params, h, x):
            return jnp.tanh(x @ params["w"] + h @ params["u"] + params["b"])

        return sd.cell(init, step, lambda batch: jnp.zeros((*batch, self.hidden)))


@dataclass(frozen=True)
class Config:
    """How long, and on which reviews."""

    data_dir: Path | None = None
    """TFDS data directory that holds imdb_reviews; by default TFDS's own."""
    epochs: int = 2
    all_for_training: bool = False
    """Train on all 25,000 reviews, as the notes do. The test half is then looked at in training: nothing is chosen."""
    limit: int | None = None
    """Reviews of each half; None: all 25,000."""
    out: Path | None = None
    """By default runs/notes/imdb_rnn-<epochs>, so that the same command goes on there."""


def main(c: Config) -> None:
    """Trains both, prints a table, draws."""
    text = imdb(c.data_dir, length=80, validation=0 if c.all_for_training else 0.2, limit=c.limit)
    data = dict(text.splits)
    if c.all_for_training:
        data["validation"] = data.pop("test")
    shape = dict(steps=80, batch=128, vocabulary=len(text.vocabulary), embedding=100, dropout="inputs")
    layers = sd.Spec("labelled", cell="rnn", hidden=(64, 64), name="layers", **shape)  # type: ignore[arg-type]
    by_hand = sd.Spec("labelled", layers=(SimpleRNNCell(64),) * 2, name="cells by hand", **shape)  # type: ignore[arg-type]
    epoch = len(data["train"].ys) // 128
    experiment = sd.Experiment(
        "imdb_rnn",
        (by_hand, layers),
        sd.grid(seeds=1, lr=1e-3, dropout=0.5),
        updates=c.epochs * epoch,
        chunk=epoch,
        probe_every=epoch,
        probes=(),
        settings={"data": fingerprint(data)},
    )
    out = c.out or Path("runs/notes") / f"imdb_rnn-{len(data['train'].ys)}-{c.epochs}"
    ds = sd.load(sd.run(experiment, out, data, vocabulary=text.vocabulary))
    seen = "validation_accuracy" if c.all_for_training else "test_accuracy"
    for name, of in ds.groupby("label"):
        test, validation = of[seen].values[0], of["validation_accuracy"].values[0]
        best = int(np.argmax(validation))
        chosen = "" if c.all_for_training else f"; at epoch {best}, chosen on validation, {test[best]:.1%}"
        print(f"{name}: test accuracy at the last epoch {test[-1]:.1%}{chosen}")

    with style.look():
        fig, axes = style.panels(1, 2, 1.9, sharey=True)
        for ax, name in zip(axes[0], ("cells by hand", "layers"), strict=True):
            of = ds.isel(run=int(np.flatnonzero(ds["label"].values == name)[0]))
            x = of["probe_step"].values / epoch
            each = of["accuracy"].values.reshape(c.epochs, epoch).mean(axis=1)
            ax.plot(np.arange(c.epochs) + 0.5, each, color=style.BLACK, label="training, dropout on")
            ax.plot(x, of[seen].values, color=style.VERMILION, linestyle=style.DASHES[1], label="test")
            ax.axhline(0.801, color="0.5", linewidth=0.8, label="notes, last epoch")
            ax.set_title(name)
            ax.set_xlabel("epoch")
        axes[0, 0].set_ylabel("accuracy")
        style.legend(fig, style.drawn(axes))
        print(style.save(fig, out / "figures" / "imdb_rnn"))


if __name__ == "__main__":
    script(Config, main, __doc__)
