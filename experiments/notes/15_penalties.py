"""Notes: L0, L1, L2. See each as a number of the same weights, where ½ stands (in L2 alone: its gradient is λ w; where
L2 is Σ w², half the λ does the same), and what training with each does: L2 makes weights small, L1 by a proximal step
and L0 make them exactly 0, L1 by its subgradient only nearly.

    python experiments/notes/15_penalties.py

What λ does to error, bias and variance: `experiments/penalties.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import seqdyn as sd
from analysis import style
from seqdyn.data.packaged import digits
from seqdyn.nets.hard_concrete import gate
from seqdyn.runs.script import script

LAMBDA = {"none": 0.0, "l2": 3e-3, "l1": 1e-3, "l1_proximal": 3e-2, "l0": 5e-3}


@dataclass(frozen=True)
class Config:
    """How long."""

    updates: int = 2000
    out: Path = Path("runs/notes/penalties")
    """Other settings need another directory."""


def weights(out: Path, run: int) -> np.ndarray:
    """|w| of all matrices of a run as they act: behind L0's gates."""
    params = sd.restore(out, run)
    found = {"layer0/w": params.layers[0].w, "layer0/u": params.layers[0].u, "readout/w": params.readout.w}
    if params.log_alpha is not None:
        found = {name: w * gate(params.log_alpha[name]) for name, w in found.items()}
    return np.abs(np.concatenate([np.ravel(w) for w in found.values()]))


def main(c: Config) -> None:
    """Trains a network with each, prints a table, draws the sizes of weights."""
    w = np.array([0.0, 0.5, -1.0, 2.0])
    print(f"of the weights {w}: L0 {np.count_nonzero(w)}, L1 {np.abs(w).sum()}, L2 ½ Σ w² = {0.5 * (w**2).sum()}")
    data = digits()
    data["train"] = data["train"].take(slice(0, 160))
    grids = []
    for name, weight in LAMBDA.items():
        given = {} if name == "none" else {name: weight}
        spec = sd.Spec("labelled", 8, 16, features=8, classes=10, hidden=(32,), name=name, penalties=tuple(given))
        grids.append(sd.grid(spec, seeds=1, lr=3e-3, **given))
    experiment = sd.Experiment("penalties", grids, updates=c.updates, chunk=c.updates // 10, tile=1, probes=())
    ds = sd.load(sd.run(experiment, c.out, data, verify=False))

    sizes = {name: weights(c.out, i) for i, name in enumerate(LAMBDA)}
    for of, (name, each) in zip(ds.transpose("run", ...).test_accuracy.values, sizes.items(), strict=True):
        zero = f"{np.mean(each == 0):.0%} are 0, {np.mean(each < 0.01):.0%} below 0.01"
        print(f"{name:12} λ {LAMBDA[name]:<6g} test accuracy {of[-1]:.1%}; ½ Σ w² {0.5 * np.sum(each**2):6.1f}; {zero}")
    recorded = float(ds.penalty_l2.isel(run=list(LAMBDA).index("l2"), step=-1))
    print(f"recorded as penalty_l2, before the last update: {recorded:.2f}")

    with style.look():
        fig, axes = style.panels(1, 1, 2.2)
        for (name, each), color in zip(sizes.items(), style.shades(len(sizes)), strict=True):
            share = np.linspace(0, 1, len(each))
            axes[0, 0].plot(np.sort(np.maximum(each, 1e-5)), share, color=color, label=f"{name}, λ = {LAMBDA[name]:g}")
        axes[0, 0].set(xlabel="|w|, at least 10⁻⁵", ylabel="share of smaller weights", xscale="log")
        axes[0, 0].legend()
        print(style.save(fig, c.out / "figures" / "penalties"))


if __name__ == "__main__":
    script(Config, main, __doc__)
