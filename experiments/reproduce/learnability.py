"""Livi 2025, 'Learnability window in gated recurrent neural networks' (arXiv 2512.05790).

Claim: a dependence over ℓ steps is learned only if the gradient that carries it can be told from noise. The examples
that this takes grow as N(ℓ) ∝ f(ℓ)^−κ, where f is how much of a gradient arrives at lag ℓ and κ = α / (α − 1): 2 where
the noise of gradients is Gaussian, more where it is heavy-tailed, with index α < 2.
Setting: the adding problem, T = 50; a tanh rnn, an LSTM and a GRU of 16 units learn it by Adam at norm 1. At each look
`LagSignal` sees what every step gives the parameters, of 256 sequences that are never trained on. N(ℓ) is
(scatter / signal)²: beside the scatter of the layer's whole gradient, which is what an optimiser sees, and beside the
scatter at that lag alone. Not as there: f(ℓ) is ‖∂L/∂h_t‖ as recorded, where theirs is an expansion of the gates'
Jacobians. Exponents are slopes over the lags at which there is a signal, where f falls by a decade or more; 'along
training' is until the test loss is below 0.1 (the mean predicted: 0.167).
N is made of second moments, so −2 says that the signal falls as f does; what heavy tails add to κ it does not see.
Cost: 3 × 20 runs × 1,000 updates, 11 looks at each; two minutes of processor time.
Expect: beside the whole gradient's scatter the exponent of N in f is −1.7 to −2.2 for all three networks, before
training and along it. Beside the scatter at the same lag it is 0: a far lag is as clear as a near one, what hides it is
the noise of the near ones. The first 100 updates take 25 lags from the rnn's window. Along training gradients at one
lag are heavy-tailed (of the rnn α 1.4).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import seqdyn as sd
from analysis import learnability as analysis
from analysis.claims import Claim, minus, of
from analysis.measured import show
from experiments import _measured
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.runs.script import Seeds, launch, script, with_preset

SOURCE = "Livi 2025"
CELLS = ("rnn", "lstm", "gru")
UNLEARNED = 0.1
"""Test loss above which the far values are not used yet."""
WINDOW = 1e4
"""Examples: a lag is within the window if the gradient through it, and through all nearer ones, shows among so many."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Seeds of three networks."""

    seeds: Seeds = 20
    updates: int = 1000
    chunk: int = 100
    probe_every: int = 100
    tile: int = 10
    steps: int = 50
    hidden: int = 16
    batch: int = 32
    lr: float = 3e-3
    clip: float = 1.0
    diagnostic: int = 256
    """Sequences of a look."""


def experiment(c: Config) -> Experiment:
    """Seeds of three networks."""
    specs = tuple(Spec("adding", steps=c.steps, batch=c.batch, cell=cell, hidden=(c.hidden,)) for cell in CELLS)
    numbers = grid(seeds=c.seeds, lr=c.lr, clip=c.clip)
    return Experiment(
        "learnability",
        specs,
        numbers,
        c.updates,
        c.chunk,
        c.probe_every,
        c.tile,
        probes=(sd.LagSignal(),),
        diagnostic=c.diagnostic,
    )


def exponent(examples: np.ndarray, arrives: np.ndarray) -> float:
    """The slope of log N in log f; NaN where f has fewer than 10 lags with a signal or falls by less than a decade."""
    some = np.isfinite(examples) & (examples > 0) & (arrives > 0)
    x, y = np.log(arrives[some]), np.log(examples[some])
    if len(x) < 10 or np.ptp(x) < np.log(10):
        return float("nan")
    return float(np.polyfit(x, y, 1)[0])


def window(examples: np.ndarray) -> int:
    """Lags from 0 on, one after the other, whose N is at most `WINDOW`; `examples` by time, the last lag 0."""
    seen = examples[::-1] <= WINDOW
    return len(seen) if seen.all() else int(np.argmin(seen))


def found_in(ds: Any) -> dict[str, Any]:
    """A row a network and seed, and what is drawn of each run."""
    rows, paths = [], []
    looks = ds["probe_step"].values
    looks = looks[looks < ds.sizes["step"]]  # each beside the update that begins where it looks
    for run in range(ds.sizes["run"]):
        one = ds.isel(run=run, layer=0, probe=slice(len(looks)))
        names = ("lag_signal", "lag_scatter", "lag_tail_index", "layer_scatter", "layer_tail_index", "test_loss")
        signal, scatter, tail, whole, tail_whole, loss = (one[name].values.astype(float) for name in names)
        arrives = one["adjoint_norm"].values[looks].astype(float)
        beside_all, beside_own = (whole[:, None] / signal) ** 2, (scatter / signal) ** 2
        alls, owns = ([exponent(n, f) for n, f in zip(of, arrives, strict=True)] for of in (beside_all, beside_own))
        windows = [window(np.where(np.isnan(n), np.inf, n)) for n in beside_all]
        along = (loss > UNLEARNED) & (looks > 0)
        row: dict[str, Any] = {"seed": int(one["seed"]), "label": str(one["label"].values)}
        row |= {"start": alls[0], "along": _median(np.asarray(alls)[along]), "own": _median(np.asarray(owns)[along])}
        row |= {"tail": _median(tail[along]), "tail_whole": _median(tail_whole[along])}
        row |= {"window_start": windows[0], "window_next": windows[1] if len(windows) > 1 else float("nan")}
        rows.append(row)
        path = {"label": row["label"], "update": looks, "arrives": arrives, "all": beside_all, "own": beside_own}
        path |= {"tail": [_median(of) for of in tail], "tail_whole": tail_whole, "loss": loss}
        paths.append({name: np.asarray(of).tolist() for name, of in path.items()})
    return {"rows": rows, "paths": paths}


def _median(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if there.size else float("nan")


def stated() -> list[Claim]:
    """The paper's statements, of each network, and what we hold beside them."""
    all_, own = "exponent of N in f beside the whole scatter", "exponent of N in f beside the scatter at that lag"
    law, heavy = "−κ; −2 if Gaussian", "tail index at one lag"
    found = []
    for label in analysis.LABELS:
        before, along = f"{label}, before training", f"{label}, along training"
        found += [
            Claim(f"{before}: {all_}", "slope", of("start", label=label), -1.5, "below", SOURCE, law),
            Claim(f"{along}: {all_}", "slope", of("along", label=label), -1.5, "below", SOURCE, law),
            Claim(f"{along}: {own}", "slope", of("own", label=label), -0.5),
            Claim(f"{along}: {heavy}", "median", of("tail", label=label), 1.9, "below", SOURCE, "below 2"),
        ]
    rnn = analysis.LABELS[0]
    opens = minus(of("window_next", label=rnn), of("window_start", label=rnn))
    thinner = minus(of("tail_whole", label=rnn), of("tail", label=rnn))
    return [
        *found,
        Claim(f"{rnn}: lags by which the first updates widen the window", "difference", opens, 0.0, "below"),
        Claim(f"{rnn}: tail index of the whole gradient less that at one lag", "difference", thinner, 0.0),
    ]


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the paper against it."""
    smoke = _cases.TINY | dict(steps=16, hidden=4, batch=4, diagnostic=16)
    config = with_preset(config, smoke=smoke, paper=dict(steps=200, hidden=64, updates=20_000, diagnostic=1024))
    backend.start()
    out = launch(experiment(config), config)
    kept = out / "learnability.json"
    _measured.keep(kept, found_in(load(out)))
    show(kept, stated(), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
