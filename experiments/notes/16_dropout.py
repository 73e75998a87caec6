"""Notes: dropout. See that a mask and a factor 1 / (1 − rate) leave the mean as it is, that evaluation drops nothing,
and what three rates do to the gap between training and test on 160 digits.

    python experiments/notes/16_dropout.py

Eight ways to drop in a recurrent network, and what each does to the gradient: `experiments/dropout.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import seqdyn as sd
from analysis import style
from seqdyn.data.packaged import digits
from seqdyn.runs.script import script

RATES = [0.0, 0.25, 0.5]


@dataclass(frozen=True)
class Config:
    """How long."""

    epochs: int = 60
    out: Path = Path("runs/notes/dropout")
    """Other settings need another directory."""


def main(c: Config) -> None:
    """Prints a mask, trains a network with each rate, prints a table, draws the losses."""
    h, rng = np.ones(8), np.random.default_rng(0)
    kept = rng.random((10_000, 8)) >= 0.5
    print("h          ", h)
    print("h, rate 0.5", h * kept[0] / 0.5)
    print(f"its mean over 10,000 masks {np.mean(h * kept / 0.5):.2f}; in evaluation h is left as it is")

    data = digits()
    data["train"] = data["train"].take(slice(0, 160))
    epoch = len(data["train"].ys) // 16
    shape = dict(steps=8, batch=16, features=8, classes=10, cell="rnn", hidden=(64,))
    spec = sd.Spec("labelled", dropout="inputs", evaluate_train=True, **shape)  # type: ignore[arg-type]
    runs = sd.grid(spec, seeds=3, lr=5e-3, dropout=RATES)
    experiment = sd.Experiment("dropout", runs, updates=c.epochs * epoch, chunk=epoch, probe_every=epoch, probes=())
    ds = sd.load(sd.run(experiment, c.out, data, verify=False))
    of = {rate: ds.isel(run=np.flatnonzero(ds["dropout"].values == rate)) for rate in RATES}
    for rate, each in of.items():
        train, test = (each[f"{split}_accuracy"].values[:, -1].mean() for split in ("train", "test"))
        gap = f"training {train:.1%}, test {test:.1%}, the gap {100 * (train - test):.1f} points"
        loss = each["test_loss"].values[:, -1].mean()
        print(f"rate {rate:.2f}, means over 3 seeds at the end: {gap}; test loss {loss:.2f}")

    with style.look():
        fig, axes = style.panels(1, len(RATES), 1.7, sharey=True)
        for ax, (rate, each) in zip(axes[0], of.items(), strict=True):
            for i, (split, color) in enumerate((("train", style.BLUE), ("test", style.VERMILION))):
                line = dict(color=color, linestyle=style.DASHES[i], label=split)
                style.median_band(ax, np.arange(c.epochs + 1), each[f"{split}_loss"].values, **line)
            ax.set(title=f"rate {rate:g}", xlabel="epoch", ylim=(0, None))
        axes[0, 0].set_ylabel("loss")
        style.legend(fig, style.drawn(axes))
        print(style.save(fig, c.out / "figures" / "dropout"))


if __name__ == "__main__":
    script(Config, main, __doc__)
