"""Zhang, He, Sra & Jadbabaie 2020, 'Why gradient clipping accelerates training' (ICLR, arXiv 1905.11881).

Claim: the smoothness of the loss, how fast its gradient changes, is no constant: it varies a lot along training, and is
large where the gradient is large; so a step should be short there, and clipping makes it so.
Setting: an LSTM that learns by clipped steps. Not as there: 16 units on temporal order, T = 25, where theirs is a model
of language; SGD of rate 1, clip 0.25. Smoothness at θ is taken along the next step −η g, g the clipped gradient: the
largest of ‖∇L(θ − γ η g) − ∇L(θ)‖ / ‖γ η g‖ over γ = 1/6, 2/6, …, 1; L is the mean over 64 sequences that are never
trained on. Where a classifier is sure, both vanish together; so the claim is also held against the looks before that,
at a test loss above 0.1.
Cost: 12 runs × 1,000 updates, 100 looks at each; 80 seconds of processor time; `--paper` takes an hour.
Expect: the claim. Smoothness falls by four decades along training; its rank correlation with ‖∇L‖ is 0.92, and 0.88 at
losses above 0.1, where it grows as ‖∇L‖ to the power 1.3.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

import seqdyn as sd
from analysis import smoothness as analysis
from analysis.claims import Claim, of
from analysis.measured import show
from experiments import _measured
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.norms import tree_norm
from seqdyn.runs.records import load
from seqdyn.runs.script import Seeds, launch, script, with_preset

SOURCE = "Zhang et al. 2020"
UNSURE = 0.1
"""Test loss above which there is something left to learn."""
POINTS = 6
"""γ of a look."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Seeds of one LSTM."""

    seeds: Seeds = 12
    updates: int = 1000
    chunk: int = 10
    probe_every: int = 10
    tile: int = 6
    steps: int = 25
    hidden: int = 16
    batch: int = 32
    lr: float = 1.0
    """Of plain SGD."""
    clip: float = 0.25


@sd.part
class Smoothness:
    """‖g‖, and how fast the gradient changes along the next step."""

    lr: float
    clip: float
    variables = {
        "gradient_size": sd.Variable((), "‖∇L‖ of the diagnostic batch"),
        "local_smoothness": sd.Variable((), "largest ‖∇L(θ + δ) − ∇L(θ)‖ / ‖δ‖ along the next step of descent"),
    }

    def measure(self, look: sd.Look) -> dict[str, Any]:
        gradient = jax.grad(look.loss_of)
        g = gradient(look.params)
        size = tree_norm(g)
        reach = self.lr * jnp.minimum(1.0, self.clip / size)

        def ratio(share: Any) -> Any:
            moved = jax.tree.map(lambda p, d: p - share * reach * d, look.params, g)
            change = jax.tree.map(lambda a, b: a - b, gradient(moved), g)
            return tree_norm(change) / (share * reach * size)

        return {
            "gradient_size": size,
            "local_smoothness": jnp.max(jax.lax.map(ratio, jnp.arange(1, POINTS + 1) / POINTS)),
        }


def experiment(c: Config) -> Experiment:
    """Seeds of one LSTM."""
    spec = Spec(
        task="temporal_order",
        steps=c.steps,
        batch=c.batch,
        cell="lstm",
        hidden=(c.hidden,),
        optimizer="sgd",
        holdout=512,
    )
    probes = (Smoothness(lr=c.lr, clip=c.clip),)
    return _cases.case(c, "smoothness", spec, grid(seeds=c.seeds, lr=c.lr, clip=c.clip), probes=probes, diagnostic=64)


def ranked(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation; NaN of fewer than three pairs."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1]) if len(one) > 2 else float("nan")


def found_in(ds: Any) -> dict[str, Any]:
    """A row a seed, and all looks of every run."""
    rows, paths = [], []
    for run, seed in enumerate(ds["seed"].values):
        names = ("gradient_size", "local_smoothness", "test_loss")
        g, s, loss = (ds[name].values[run].astype(float) for name in names)
        there = np.isfinite(g) & np.isfinite(s) & (g > 0) & (s > 0)
        g, s, early = g[there], s[there], loss[there] > UNSURE
        row: dict[str, Any] = {"seed": int(seed), "rank": ranked(g, s), "early": ranked(g[early], s[early])}
        row["decades"] = float(np.log10(s.max() / s.min()))
        row["power"] = float(np.polyfit(np.log(g[early]), np.log(s[early]), 1)[0]) if early.sum() > 2 else float("nan")
        rows.append(row)
        updates = ds["probe_step"].values[there]
        paths.append({"update": updates.tolist(), "gradient": g.tolist(), "smoothness": s.tolist()})
    return {"rows": rows, "paths": paths}


def stated() -> list[Claim]:
    """The paper's statements."""
    along = "rank correlation of ‖∇L‖ and smoothness along training"
    varied = "largest over smallest smoothness along training, decades"
    power = "exponent of smoothness in ‖∇L‖ before that"
    return [
        Claim(varied, "median", of("decades"), 1, source=SOURCE, paper="a lot"),
        Claim(along, "median", of("rank"), 0.3, source=SOURCE, paper="> 0"),
        Claim(f"{along}, loss > {UNSURE}", "median", of("early"), 0.3, source=SOURCE, paper="> 0"),
        Claim(power, "slope", of("power"), 0, source=SOURCE, paper="> 0"),
    ]


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the paper against it."""
    config = with_preset(
        config, smoke=_cases.TINY | dict(steps=12, hidden=4, batch=4), paper=dict(steps=100, hidden=64, updates=20_000)
    )
    backend.start()
    out = launch(experiment(config), config)
    kept = out / "smoothness.json"
    _measured.keep(kept, found_in(load(out)))
    show(kept, stated(), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
