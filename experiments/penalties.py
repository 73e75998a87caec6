"""What does a penalty on the weights do to the error, to the weights and to the gradient through time?

Hypothesis (the notes): as λ grows the variance of what is learned falls and its bias hardly rises, until it does.
Task: scikit-learn's digits read row by row, 8 steps of 8 pixels, by a tanh rnn of 32 units that sees 100 training
examples, enough to fit and too few to generalise. 24 training sets are drawn, without replacement, from the 1,078 of
the training split; validation and test splits are the same for all.
Methods: l2 and the decoupled decay of AdamW (Loshchilov & Hutter 2019), which are the same under plain descent and not
under Adam; l1 by its subgradient and by a proximal step, which alone gives zeros; the elastic net; l0 by hard-concrete
gates (Louizos, Welling & Kingma 2018); l2 of the recurrence alone, and of the readout alone. λ goes over decades.
Measured at the end of training: error on the three splits, λ chosen by validation alone; on the test split the
expected Brier score of the predicted probabilities, E‖p − y‖² = ‖E p − y‖² + E‖p − E p‖², bias² (in which what no
network could know is contained) and variance over training sets and seeds; weights that are not 0, the spectral radius
of U, ‖∂L/∂h_t‖ against the lag.
Claims on bias² and variance are made of 12 disjoint pairs of training sets (see `analysis.penalty_pairs`), all others
of each training set.
Cost: 1,536 runs × 800 updates, eight and a half minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from analysis import claims, penalty_pairs
from analysis import penalties as analysis
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.data.batches import Batch
from seqdyn.data.packaged import digits
from seqdyn.data.tasks import TASKS
from seqdyn.data.text import Examples
from seqdyn.learn import model
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.numbers import Numbers
from seqdyn.runs import manifest, script
from seqdyn.runs.restore import restore
from seqdyn.runs.run import default_out
from seqdyn.runs.script import Seeds, Waiting, fingerprint, launch_all, replicated, seeds
from seqdyn.types import ConfigError

METHODS: dict[str, dict[str, Any]] = {
    "l2": dict(penalties=("l2",)),
    "decoupled decay": dict(optimizer="adamw"),
    "l1": dict(penalties=("l1",)),
    "l1, proximal": dict(penalties=("l1_proximal",)),
    "elastic net": dict(penalties=("l1_proximal", "l2")),
    "l0": dict(penalties=("l0",)),
    "l2, recurrent": dict(penalties=("l2",), penalised=("recurrent",)),
    "l2, readout": dict(penalties=("l2",), penalised=("readout",)),
}
"""What a spec of each name changes."""
LARGEST = {"l2": 0.3, "weight_decay": 10.0, "l1": 0.03, "l1_proximal": 1.0, "l0": 0.1}
"""λ at the end of its grid."""


@dataclass(frozen=True, kw_only=True)
class Config(script.Presets, script.Claiming):
    """One experiment a training set: methods × λ."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Which of the above; the first is what all are held against at λ = 0."""
    seeds: Seeds = 24
    """Training sets, each drawn with a seed of its own: how many, from 0 on, a range or a list."""
    examples: int = 100
    """Sequences in each."""
    weights: int = 7
    """λ on each grid, half a decade apart, besides 0."""
    hidden: int = 32
    batch: int = 50
    lr: float = 1e-2
    updates: int = 800
    """Updates of each run."""
    chunk: int = 400


def sets(c: Config) -> dict[int, dict[str, Examples]]:
    """Seed -> the data that it draws."""
    chosen = seeds(c.seeds)
    if len(chosen) < 2 or min(chosen) < 0:
        raise ConfigError(f"seeds is {c.seeds}; it must be at least 2, from 0 on: a variance is over training sets.")
    whole = digits()
    size = len(whole["train"].ys)
    if not c.batch <= c.examples <= size:
        raise ConfigError(f"examples is {c.examples}; it must be from batch, {c.batch}, to {size}.")
    found = {}
    for draw in chosen:
        rows = np.random.default_rng(draw).choice(size, c.examples, replace=False)
        found[draw] = whole | {"train": whole["train"].take(rows)}
    return found


def points(c: Config, draw: int) -> Numbers:
    """One run a λ, 0 first: point i of all grids at once, of which each spec heeds its own."""
    scale = [0.0, *(10.0 ** (-0.5 * i) for i in reversed(range(c.weights)))]
    first = grid(seeds=[draw], lr=c.lr, l2=scale)
    return dataclasses.replace(first, **{name: np.asarray(scale) * top for name, top in LARGEST.items()})


def experiment(c: Config, draw: int, data: Mapping[str, Examples]) -> Experiment:
    """All methods on one training set; two looks, before and after training."""
    for name in c.methods:
        if name not in METHODS:
            raise ConfigError(f"methods has {name!r}; it takes {', '.join(METHODS)}.")
    usual: dict[str, Any] = dict(
        task="labelled", steps=8, features=8, classes=10, batch=c.batch, hidden=(c.hidden,), evaluate_train=True
    )
    specs = tuple(Spec(**(usual | METHODS[name]), name=name) for name in c.methods)
    numbers = points(c, draw)
    heeded = {"weight_decay"} if any(s.optimizer == "adamw" for s in specs) else set()
    heeded |= {name for s in specs for name in s.penalties}
    unheeded = {name: np.zeros(len(numbers)) for name in LARGEST if name not in heeded}
    numbers = dataclasses.replace(numbers, **unheeded)
    settings = {"data": fingerprint(data)}
    tile = len(numbers)
    return Experiment("penalties", specs, numbers, c.updates, c.chunk, c.updates, tile, settings=settings)


def learned(out: Path, data: Mapping[str, Examples]) -> None:
    """Notes what each run's network says of the test split, and its weights as they act, in `analysis.LEARNED`."""
    path = out / analysis.LEARNED
    if path.exists():
        return
    experiment, ys = manifest.experiment(out), data["test"].ys
    said, weights = [], []
    for k, spec in enumerate(experiment.specs):
        batch = TASKS["labelled"](spec).batch(data, "test", (np.arange(len(ys)), np.ones(len(ys), np.float32)))
        says = compiled_says(spec, batch)
        for point in range(len(experiment.numbers)):
            one = says(restore(out, k * len(experiment.numbers) + point))
            said.append(np.asarray(one[0]))
            weights.append(np.concatenate([np.ravel(w) for w in one[1]]))
    np.savez(path, probabilities=np.stack(said), weights=np.stack(weights), classes=ys)


def compiled_says(spec: Spec, batch: Batch) -> Any:
    """parameters -> (probabilities [b, k], (W, U, the readout's W)), gates as in evaluation."""

    def says(params: model.Model) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        acting = model.acting_params(spec, params)
        logits = model.predict(spec, params, batch)
        return jax.nn.softmax(logits), (acting.layers[0].w, acting.layers[0].u, acting.readout.w)

    return backend.compiled(says)


SHRINKING = ("l2", "decoupled decay", "l1", "elastic net")
"""Penalties of all weights that keep nearly all of them."""


def plain(column: str) -> Statistic:
    """Without a penalty: of l2 at λ = 0."""
    return of(column, label="l2", l2=0.0)


def chosen(column: str, *methods: str) -> Statistic:
    """At the λ of each method that validation chose, less what it is without a penalty."""
    return minus(of(f"{column}_chosen", label=methods), plain(column))


def large(column: str) -> Statistic:
    """Under l2 at a large λ, half a decade below its largest."""
    return of(column, label="l2", l2=LARGEST["l2"] / 10**0.5)


def beyond_twice(runs: Any) -> Any:
    """bias² under that λ, less twice what it is without a penalty."""
    return large("bias")(runs) - 2 * plain("bias")(runs)


CLAIMS = (
    Claim(
        "At the λ that validation chooses the variance has fallen (mean of l2, decoupled decay, l1 and elastic net)",
        "difference",
        chosen("variance", *SHRINKING),
        0.0,
        "below",
    ),
    Claim(
        "At a large λ of l2 (0.09) bias² has more than doubled (less twice that without)",
        "difference",
        beyond_twice,
        0.0,
    ),
    Claim(
        "The proximal step sets more than a fifth of the weights to 0",
        "median",
        of("nonzero_chosen", label="l1, proximal"),
        0.8,
        "below",
    ),
    Claim("So does l0", "median", of("nonzero_chosen", label="l0"), 0.8, "below"),
    Claim("The subgradient of l1 sets none to 0", "median", of("nonzero_chosen", label="l1"), 0.999),
    Claim(
        "Gates alone, at λ = 0, lower the test error",
        "difference",
        minus(of("error", label="l0", l2=0.0), plain("error")),
        0.0,
        "below",
    ),
    Claim(
        "l2 of the recurrence alone lowers the test error",
        "difference",
        chosen("error", "l2, recurrent"),
        0.0,
        "below",
    ),
    Claim(
        "It shortens the gradient's reach: less of it comes to the first step",
        "difference",
        chosen("reach", "l2, recurrent"),
        0.0,
        "below",
    ),
    Claim(
        "Under l2 of the readout alone the spectral radius of U ends larger",
        "difference",
        chosen("radius", "l2, readout"),
        0.0,
    ),
)
"""Of networks at the end of training; the first two over pairs of training sets."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    drawn = sets(config)
    data = {f"draw_{seed}": found for seed, found in drawn.items()}
    parts = {f"draw_{seed}": experiment(config, seed, found) for seed, found in drawn.items()}
    out = config.out or default_out(*parts.values())
    config = dataclasses.replace(config, out=out)
    first = next(iter(parts))
    with suppress(Waiting):  # all draws have the same shapes: the gradient is checked in the first
        launch_all({first: parts[first]}, config, data)
    done = launch_all(parts, dataclasses.replace(config, verify=False), data)
    for name, part in done.items():
        learned(part, data[name])
    made = list(done.values())
    return claims.report(CLAIMS, made, lambda found: analysis.show(out, made, found), penalty_pairs.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = script.with_preset(
        config,
        smoke=dict(seeds=2, weights=2, hidden=6, batch=10, examples=20, updates=20, chunk=10),
        paper=dict(seeds=50, weights=9, hidden=64, updates=5000),
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script.script(Config, main, __doc__)
