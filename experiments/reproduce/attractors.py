"""Ribeiro, Tiels, Aguirre & Schön 2020, 'Beyond exploding and vanishing gradients: analysing RNN training using
attractors and smoothness' (AISTATS, arXiv 1906.08482).

Claim: a network that contracts can store information for long only in several attractors. Training creates them, and
passes bifurcations on the way; vanishing gradients come with them. An LSTM may pass through chaos, too.
Setting: orbit diagrams along training, of temporal order, one of their tasks. At each look a network goes on from the
last states of 32 sequences for 1,000 steps under a constant input, and what it visits then is drawn. Not as there: the
input is the mean of the distractors, in their code it is one symbol; orbits begin where sequences end, theirs at
random; 16 units, Adam of rate 0.003, clip 1. A tanh rnn, a GRU and an LSTM read sequences of 10 to 30 steps; a second
tanh rnn reads 30 steps always. A run is judged at its last look with over 99% right.
Cost: 96 runs × 1,200 updates, 41 looks at each; three minutes of processor time; `--paper` takes hours.
Expect: one attractor before training, in most of them. Of the tanh rnns of one length fewer than half get four. In 17
of 20 some orbits never settle, and 27% of the sequences (median) are still right after the wait. GRU and LSTM, too, end
with fewer than four, two in the median, and 62% are still right: to last for 30 steps, nothing must be stored for ever.
Of the tanh rnns of many lengths one third to two thirds have four; whether most do is undecided. Reading many lengths,
three of four networks with four attractors are right in 97% or more; with fewer, hardly any. Orbits contract, −0.5 nats
a step (tanh) and −0.15 (GRU). GRU and LSTM have several attractors about 100 updates before they are right, and a GRU
with one is at chance (both undecided with fresh seeds). No LSTM was chaotic at any look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis import attractors as analysis
from analysis.claims import Claim, minus, of
from analysis.measured import show
from experiments import _measured
from experiments.reproduce import _cases
from experiments.reproduce._orbits import CLASSES, Orbits, check
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.runs.script import Seeds, launch_all, script, with_preset

SOURCE = "Ribeiro et al. 2020"
HERE = "asked here"
ONE, MANY, GRU, LSTM = "tanh, one length", "tanh", "gru", "lstm"
"""The cases; the last three read many lengths."""
CHAOTIC = 0.02
"""The exponent, in nats a step, above which an orbit that has not settled is chaotic."""
LEARNED = 0.99
"""Above this test accuracy a look counts as learned; a run that has such looks is judged at the last of them."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Seeds of three cells that read sequences of many lengths, and of one that reads sequences of one length."""

    seeds: Seeds = 24
    updates: int = 1200
    chunk: int = 30
    probe_every: int = 30
    tile: int = 4
    steps: int = 30
    shortest: int = 10
    """Of the sequences of many lengths."""
    hidden: int = 16
    batch: int = 32
    lr: float = 0.003
    """Of Adam."""
    clip: float = 1.0
    wait: int = 1000
    """Steps under the constant input."""
    orbits: int = 32
    """Sequences whose last states begin one."""


def experiments(c: Config) -> dict[str, Experiment]:
    """A tanh rnn that always reads as many steps; it, a GRU and an LSTM that read sequences of many lengths."""
    numbers, probes = grid(seeds=c.seeds, lr=c.lr, clip=c.clip), (Orbits(wait=c.wait, orbits=c.orbits),)

    def specs(shortest: int, **cells: Any) -> Experiment:
        common = Spec(
            task="temporal_order",
            steps=c.steps,
            shortest=shortest,
            batch=c.batch,
            hidden=(c.hidden,),
            optimizer="adam",
            holdout=512,
        )
        all_of = tuple(replace(common, cell=cell, name=name) for name, cell in cells.items())
        one = _cases.case(c, "attractors", common, numbers, probes=probes, diagnostic=c.orbits)
        return replace(one, specs=all_of)

    return {
        "one_length": specs(0, **{ONE: "rnn"}),
        "many_lengths": specs(c.shortest, **{MANY: "rnn", GRU: "gru", LSTM: "lstm"}),
    }


# --- what came out ------------------------------------------------------------------------------------------


def first(updates: np.ndarray, there: np.ndarray) -> float:
    """The first update where it is so; infinity where it never is."""
    return float(updates[there.argmax()]) if there.any() else float("inf")


def path_of(ds: Any, run: int) -> dict[str, np.ndarray]:
    """What the looks at one run say, a value a look."""
    period, exponent = ds["orbit_period"].values[run], ds["orbit_exponent"].values[run].astype(float)
    return {
        "update": ds["probe_step"].values,
        "loss": ds["test_loss"].values[run].astype(float) / np.log(CLASSES),
        "accuracy": ds["test_accuracy"].values[run].astype(float),
        "attractors": ds["attractors"].values[run].astype(float),
        "held": ds["held"].values[run].astype(float),
        "exponent": np.median(exponent, axis=-1),
        "settled": np.mean(period > 0, axis=-1),
        "chaotic": np.mean((period == 0) & (exponent > CHAOTIC), axis=-1),
    }


def row(path: dict[str, Any]) -> dict[str, Any]:
    """What is claimed of one run, from its looks: NaN where a claim is not about it."""
    updates, number, right = path["update"], path["attractors"], path["accuracy"] > LEARNED
    several, last = number > 1, np.flatnonzero(right)[-1:]
    before = path["loss"][: int(several.argmax())][-1:]
    lead = first(updates, right) - first(updates, several) if several.any() else -np.inf

    def end(name: str) -> float:
        return float(path[name][last[0]]) if len(last) else float("nan")

    return {
        "case": path["case"],
        "seed": path["seed"],
        "learned": float(right.any()),
        "one_at_start": float(number[0] == 1),
        "loss_before": float(before[0]) if len(before) else float("nan"),
        "lead": lead if right.any() else float("nan"),
        "attractors": end("attractors"),
        "enough": float(end("attractors") >= CLASSES) if right.any() else float("nan"),
        "held": end("held"),
        "exponent": end("exponent"),
        "settled": end("settled"),
        "chaos": float(np.any(path["chaotic"] >= 0.25)),
    }


def orbits_of(ds: Any, run: int) -> list[list[tuple[int, float]]]:
    """(class of the sequence before, class that is read out), each once, of every look."""

    def at(classes: np.ndarray, read: np.ndarray) -> list[tuple[int, float]]:
        there = np.isfinite(read)
        of = np.broadcast_to(classes[:, None], read.shape)[there]
        return sorted({(int(c), round(float(y), 3)) for c, y in zip(of, read[there], strict=True)})

    return list(map(at, ds["orbit_class"].values[run], ds["orbit_read"].values[run]))


def found_in(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A row a case and seed, all their looks, and the orbits of the seed of each case that is drawn; `parts` are runs
    by the lengths that they read."""
    rows, paths, orbits = [], [], []
    for reads, ds in parts.items():
        for case in dict.fromkeys(map(str, ds["label"].values)):
            runs = np.flatnonzero(ds["label"].values == case)
            of_case = [{"case": case, "seed": int(ds["seed"].values[run])} | path_of(ds, run) for run in runs]
            seed = analysis.typical(of_case, LEARNED)
            drawn = next(run for run, path in zip(runs, of_case, strict=True) if path["seed"] == seed)
            rows += [row(path) for path in of_case]
            paths += [{k: np.round(v, 4).tolist() if np.ndim(v) else v for k, v in path.items()} for path in of_case]
            updates, points = paths[-1]["update"], orbits_of(ds, drawn)
            orbits.append({"case": case, "reads": reads, "seed": seed, "update": updates, "points": points})
    return {"rows": rows, "paths": paths, "orbits": orbits}


def stated(c: Config) -> list[Claim]:
    """The paper's statements, and what else is asked. The thresholds were chosen when four seeds had been seen."""

    def all_of(cases: Sequence[str], what: str, name: str, kind: Any, *than: Any, **who: str) -> list[Claim]:
        who = {"source": HERE} | who
        return [Claim(f"{case}: {what}", kind, of(name, case=case), *than, **who) for case in cases]

    many, every = (MANY, GRU, LSTM), (ONE, MANY, GRU, LSTM)
    start, chance = "before training orbits end in one attractor", "loss over chance, last look with one attractor"
    lead = f"learned, updates from several attractors to {LEARNED:.0%} right"
    enough, still = f"learned, at least {CLASSES} attractors", f"learned, share still right after {c.wait:,} steps"
    more = minus(of("attractors", case=MANY), of("attractors", case=ONE))
    return [
        *all_of(many, start, "one_at_start", "proportion", 0.5),
        *all_of(many, chance, "loss_before", "median", 0.9),
        *all_of(many, lead, "lead", "median", 0.0),
        *all_of(every, enough, "enough", "proportion", 0.5, source=SOURCE, paper="several"),
        Claim("tanh: attractors, many lengths less one length", "difference", more, 0, source=HERE),
        *all_of(every, still, "held", "median", 0.9),
        *all_of(many, "learned, exponent of a wait", "exponent", "median", -0.01, "below", source=SOURCE, paper="< 0"),
        *all_of((ONE,), "learned, share of orbits that settle", "settled", "median", 0.5, "below"),
        *all_of((LSTM,), "chaos at some look", "chaos", "proportion", 0.5, "below", paper="may be"),
    ]


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the paper against it."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(steps=12, hidden=4, batch=4, wait=40, orbits=8),
        paper=dict(steps=60, hidden=32, updates=10_000, chunk=100, probe_every=100),
    )
    check(config.wait, config.orbits, config.hidden)
    backend.start()
    done = launch_all(experiments(config), config)
    kept = next(iter(done.values())).parent / "attractors.json"
    reads = (f"{config.steps} steps", f"{config.shortest} to {config.steps} steps")
    _measured.keep(kept, found_in(dict(zip(reads, map(load, done.values()), strict=True))))
    show(kept, stated(config), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
