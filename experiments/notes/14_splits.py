"""Notes: splits, and early stopping. See 80/20, 60/20/20 and folds, each class in proportion, and the epoch at which
the validation loss was lowest (dotted), after which the network learns its training examples by heart.

    python experiments/notes/14_splits.py
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import seqdyn as sd
from analysis import style
from seqdyn.data.packaged import digits
from seqdyn.data.splits import folds, stratified_split, three_way
from seqdyn.runs.script import script


@dataclass(frozen=True)
class Config:
    """How long."""

    epochs: int = 60
    out: Path = Path("runs/notes/splits")
    """Other settings need another directory."""


def main(c: Config) -> None:
    """Prints sizes, trains one network, draws its losses."""
    labels = np.repeat([0, 1], [700, 300])
    for name, parts in (
        ("80/20", stratified_split(labels, 0.2, seed=0)),
        ("60/20/20", three_way(labels, (0.6, 0.2, 0.2))),
        ("one of 5 folds", folds(labels, 5)[0]),
    ):
        print(f"{name:15}", ", ".join(f"{len(part)} ({labels[part].mean():.0%} of class 1)" for part in parts))

    data = digits()  # 1,797 digits, 60/20/20
    data["train"] = data["train"].take(slice(0, 160))
    print("digits, read row by row:", {name: list(part.xs.shape) for name, part in data.items()})
    epoch = len(data["train"].ys) // 16
    shape = dict(steps=8, batch=16, features=8, classes=10, cell="rnn", hidden=(64,))
    spec = sd.Spec("labelled", stop="loss", evaluate_train=True, **shape)  # type: ignore[arg-type]
    # patience=10 would end the run ten looks after the best; inf goes on, and keeps the best.
    runs = sd.grid(spec, seeds=1, lr=5e-3)
    experiment = sd.Experiment("splits", runs, updates=c.epochs * epoch, chunk=epoch, probe_every=epoch, probes=())
    ds = sd.load(sd.run(experiment, c.out, data)).isel(run=0)
    best = int(np.argmin(ds["validation_loss"].values))
    for name, at in (("where validation was lowest", best), ("last", c.epochs)):
        loss, right = float(ds["test_loss"][at]), float(ds["test_accuracy"][at])
        print(f"epoch {at}, {name}: test loss {loss:.2f}, accuracy {right:.1%}")
    kept = sd.restore(c.out, 0, best=True)
    print("parameters of that epoch are kept: U", list(kept.layers[0].u.shape))

    with style.look():
        fig, axes = style.panels(1, 2, 1.9)
        for ax, what in zip(axes[0], ("loss", "accuracy"), strict=True):
            for split, color, dashes in (
                ("train", style.BLUE, style.DASHES[0]),
                ("validation", style.VERMILION, style.DASHES[1]),
            ):
                ax.plot(ds[f"{split}_{what}"].values, color=color, linestyle=dashes, label=split)
            ax.axvline(best, color="black", linestyle=":", label="early stopping")
            ax.set(xlabel="epoch", ylabel=what, ylim=(0, None))
        style.legend(fig, style.drawn(axes))
        print(style.save(fig, c.out / "figures" / "early_stopping"))


if __name__ == "__main__":
    script(Config, main, __doc__)
