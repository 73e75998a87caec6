"""Ribeiro, Tiels, Aguirre & Schön 2020, 'Beyond exploding and vanishing gradients: analysing RNN training using
attractors and smoothness' (AISTATS, arXiv 1906.08482).

Claim: a network that contracts keeps information for long only in several attractors, so training must create them: it
passes bifurcations, and vanishing gradients come with what it finds. An LSTM may pass through chaos, too.
Setting: orbit diagrams along training, as there, on the same task, temporal order. Not as there: PLACEHOLDER
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import attractors as analysis
from analysis.claims import Claim, of
from analysis.measured import Stated, show
from experiments import _measured
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.measure.jacobians import parts, vector
from seqdyn.nets.bptt import unroll
from seqdyn.nets.cells import Cell, advance
from seqdyn.norms import norm
from seqdyn.runs.records import load
from seqdyn.runs.script import Seeds, launch, script, with_preset
from seqdyn.types import Array, Bool, Float, Int, whole

SOURCE = "Ribeiro et al. 2020"
HERE = "asked here"
CELLS = {"lstm": "lstm", "gru": "gru", "rnn": "rnn tanh"}
"""Words of a spec, and their labels."""
CLASSES = 4
WINDOW = 256
"""The last steps of a wait, in which orbits are judged."""
SEEN = 16
"""The last steps that are kept, for the diagram."""
PERIODS = 8
"""The longest cycle that counts as one."""
STILL = 1e-3
"""A settled orbit comes back this near: the largest difference of a unit."""
APART = 0.05
"""Two orbits end in one set where one comes this near to the other."""
CHAOTIC = 0.02
"""The exponent, in nats a step, above which an orbit that has not settled is chaotic."""
LEARNED = 0.99
"""Of test accuracy."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Seeds of an LSTM, a GRU and a tanh rnn."""

    seeds: Seeds = 16
    updates: int = 1500
    chunk: int = 25
    probe_every: int = 25
    tile: int = 4
    steps: int = 30
    hidden: int = 16
    batch: int = 32
    lr: float = 0.003
    """Of Adam."""
    clip: float = 1.0
    wait: int = 1000
    """Steps under the constant input."""
    orbits: int = 32
    """Sequences whose last states begin one."""
    paper: bool = False
    """Longer, wider, an hour; options that differ from their default win over it."""


# --- where orbits end ---------------------------------------------------------------------------------------


class Ends(NamedTuple):
    """What orbits do in a window."""

    period: Int[Array, " b"]
    """1 of a fixed point, p of a cycle; 0 of what is neither."""
    attractors: Int[Array, ""]
    """How many sets they end in."""


def ends(states: Float[Array, "t b n"]) -> Ends:
    """A period p ≤ `PERIODS` is the smallest whose last p states, repeated, are all of the window's to `STILL`.

    Two orbits end in one set where the last state of one lies within `APART` of a state among the last `PERIODS` of the
    other, or where a chain of such orbits leads from one to the other. What has not settled is one set at most, so that
    chaos and slow transients are never counted as many.
    """
    t, b = states.shape[:2]

    def repeats(p: int) -> Bool[Array, " b"]:
        last = states[t - p + (jnp.arange(t) - t) % p]
        return jnp.max(jnp.abs(states - last), axis=(0, 2)) <= STILL

    found = jnp.stack([jnp.zeros(b, bool), *(repeats(p) for p in range(1, PERIODS + 1))])
    period = jnp.argmax(found, axis=0).astype(jnp.int32)
    away = jnp.max(jnp.abs(states[-PERIODS:, None] - states[-1][None, :, None]), axis=-1)  # [t, one, other]
    loose = period == 0
    near = (jnp.min(away, axis=0) <= APART) | (loose[:, None] & loose[None])
    near = near | near.T
    for _ in range(max(1, (b - 1).bit_length())):  # paths of twice the length
        near = (near.astype(jnp.float32) @ near.astype(jnp.float32)) > 0
    return Ends(period, jnp.sum(jnp.argmax(near, axis=1) == jnp.arange(b)).astype(jnp.int32))


def wait(
    cell: Cell, params: Any, carry: Any, x: Float[Array, " d"], steps: int, tangent: Float[Array, "b n"]
) -> tuple[Float[Array, "w b n"], Float[Array, "w b h"], Float[Array, " b"]]:
    """(the last `WINDOW` states, their outputs, the largest exponent of each orbit) of a wait under a constant input.

    The exponent is the mean growth of a tangent over the second half of the window; the first half turns it.
    """
    zx = cell.input_projection(params, x)[None]
    zx = jnp.broadcast_to(zx, (tangent.shape[0], zx.shape[-1]))
    forward = partial(advance, cell, params, zx)
    window = min(WINDOW, steps)

    def walk(kept: Any, _: None) -> tuple[Any, Any]:
        carry, tangent = kept
        after, moved = jax.jvp(forward, (carry,), (parts(carry, tangent),))
        size = jnp.maximum(norm(vector(moved)), 1e-30)
        return (after, vector(moved) / size[:, None]), (vector(after), after.h, jnp.log(size))

    carry = jax.lax.fori_loop(0, steps - window, lambda _, c: forward(c), carry)
    states, outputs, growth = jax.lax.scan(walk, (carry, tangent), None, length=window)[1]
    return states, outputs, jnp.mean(growth[window // 2 :], axis=0)


@sd.part
class Orbits:
    """Where the network goes from the last states of sequences, under the mean of all distractors."""

    wait: int
    orbits: int

    @property
    def variables(self) -> dict[str, sd.Variable]:
        axes = {"orbit": tuple(range(self.orbits)), "seen": tuple(range(SEEN))}
        own = {"axes": {"orbit": axes["orbit"]}}
        return {
            "orbit_read": sd.Variable(("orbit", "seen"), "mean class that the readout gives", axes=axes),
            "orbit_class": sd.Variable(("orbit",), "class of the sequence before", **own),
            "orbit_period": sd.Variable(("orbit",), "1: a fixed point, p: a cycle, 0: neither", **own),
            "orbit_exponent": sd.Variable(("orbit",), "largest Lyapunov exponent", "nats per step", **own),
            "attractors": sd.Variable((), "sets that the orbits end in"),
            "held": sd.Variable((), "share of sequences whose class is still read out"),
        }

    def measure(self, look: sd.Look) -> dict[str, Any]:
        ran = look.layers[0].ran
        _, carry = unroll(ran.cell, ran.params, ran.carry, ran.xs)
        x = jnp.full(ran.xs.shape[-1], 0.25).at[:2].set(0)  # of {A, B, c, d, e, f}
        tangent = jax.random.normal(look.key, vector(carry).shape)
        states, outputs, exponent = wait(ran.cell, ran.params, carry, x, self.wait, tangent)
        readout = look.params.readout
        logits = outputs[-SEEN:] @ readout.w
        logits = logits + jnp.broadcast_to(readout.b, logits.shape)
        classes = jnp.arange(CLASSES, dtype=logits.dtype)
        right = jnp.argmax(logits, axis=-1) == look.batch.ys[None]
        found = ends(states)
        return {
            "orbit_read": (jax.nn.softmax(logits) @ classes).T,
            "orbit_class": look.batch.ys,
            "orbit_period": found.period,
            "orbit_exponent": exponent,
            "attractors": found.attractors,
            "held": jnp.mean(right.astype(jnp.float32)),
        }


def experiment(c: Config) -> Experiment:
    """Seeds of each cell."""
    specs = [
        Spec(
            task="temporal_order",
            steps=c.steps,
            batch=c.batch,
            cell=cell,
            hidden=(c.hidden,),
            optimizer="adam",
            holdout=512,
        )
        for cell in CELLS
    ]
    probes = (Orbits(wait=c.wait, orbits=c.orbits),)
    numbers = grid(seeds=c.seeds, lr=c.lr, clip=c.clip)
    one = _cases.case(c, "attractors", specs[0], numbers, probes=probes, diagnostic=c.orbits)
    return replace(one, specs=tuple(specs))


# --- what came out ------------------------------------------------------------------------------------------


def first(updates: np.ndarray, there: np.ndarray) -> float:
    """The first update where it is so; infinity where it never is."""
    return float(updates[there.argmax()]) if there.any() else float("inf")


def row(cell: str, seed: int, path: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is claimed of one run, from its looks: NaN where a claim is not about it."""
    updates, number = path["update"], path["attractors"]
    learned = bool(path["accuracy"][-1] > LEARNED)
    several = number > 1
    at = int(several.argmax())
    before = path["loss"][at - 1] if several.any() and at else np.nan
    lead = first(updates, path["accuracy"] > LEARNED) - first(updates, several) if several.any() else -np.inf

    def end(value: Any) -> float:
        return float(value) if learned else float("nan")

    return {
        "cell": cell,
        "seed": seed,
        "learned": float(learned),
        "one_at_start": float(number[0] == 1),
        "enough": end(number[-1] >= CLASSES),
        "attractors": end(number[-1]),
        "held": end(path["held"][-1]),
        "exponent": end(path["exponent"][-1]),
        "lead": end(lead),
        "loss_before": float(before),
        "chaos": float(np.any(path["chaotic"] >= 0.25)),
    }


def found_in(ds: Any) -> dict[str, Any]:
    """A row a cell and seed, all their looks, and the orbits of the seed of each cell that is drawn."""
    rows, paths, orbits = [], [], []
    for run, (cell, seed) in enumerate(zip(ds["label"].values, ds["seed"].values, strict=True)):
        of_run = {name: ds[name].values[run].astype(float) for name in ("attractors", "held", "orbit_exponent")}
        period = ds["orbit_period"].values[run]
        path = {
            "update": ds["probe_step"].values,
            "loss": ds["test_loss"].values[run].astype(float) / np.log(CLASSES),
            "accuracy": ds["test_accuracy"].values[run].astype(float),
            "attractors": of_run["attractors"],
            "held": of_run["held"],
            "exponent": np.median(of_run["orbit_exponent"], axis=-1),
            "settled": np.mean(period > 0, axis=-1),
            "cycles": np.mean(period > 1, axis=-1),
            "chaotic": np.mean((period == 0) & (of_run["orbit_exponent"] > CHAOTIC), axis=-1),
        }
        rows.append(row(str(cell), int(seed), path))
        paths.append(
            {"cell": str(cell), "seed": int(seed)} | {name: np.round(v, 4).tolist() for name, v in path.items()}
        )
    for cell in CELLS.values():
        seed = analysis.typical([path for path in paths if path["cell"] == cell], LEARNED)
        run = next(i for i, one in enumerate(rows) if one["cell"] == cell and one["seed"] == seed)
        read, classes = ds["orbit_read"].values[run], ds["orbit_class"].values[run]
        points = [
            sorted({(int(c), round(float(y), 3)) for c, ys in zip(classes[look], read[look], strict=True) for y in ys})
            for look in range(len(read))
        ]
        orbits.append({"cell": cell, "seed": seed, "update": ds["probe_step"].values.tolist(), "points": points})
    return {"rows": rows, "paths": paths, "orbits": orbits}


def stated(c: Config) -> list[Stated]:
    """The paper's statements, and what else is asked, of each cell."""
    found = []
    for cell in CELLS.values():
        start = Claim(
            f"{cell}: before training all orbits end in one attractor",
            "proportion",
            of("one_at_start", cell=cell),
            0.5,
            source=HERE,
        )
        loss = Claim(
            f"{cell}: test loss over chance, last look with one attractor",
            "median",
            of("loss_before", cell=cell),
            0.9,
            source=HERE,
        )
        lead = Claim(
            f"{cell}, learned: updates from several attractors to {LEARNED:.0%} right",
            "median",
            of("lead", cell=cell),
            0,
            source=SOURCE,
        )
        enough = Claim(
            f"{cell}, learned: at least {CLASSES} attractors", "proportion", of("enough", cell=cell), 0.5, source=SOURCE
        )
        held = Claim(
            f"{cell}, learned: share still right after {c.wait:,} steps",
            "median",
            of("held", cell=cell),
            0.9,
            source=HERE,
        )
        fades = Claim(
            f"{cell}, learned: exponent while it waits", "median", of("exponent", cell=cell), -0.01, "below", SOURCE
        )
        chaos = Claim(f"{cell}: chaos at some look", "proportion", of("chaos", cell=cell), 0.5, "below", HERE)
        may = "may be" if cell == "lstm" else "–"
        said = zip(
            ("–", "–", "> 0", "must", "–", "< 0", may), (start, loss, lead, enough, held, fades, chaos), strict=True
        )
        found += [Stated(paper, claim) for paper, claim in said]
    return found


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the paper against it."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(steps=12, hidden=4, batch=4, wait=40, orbits=8),
        paper=dict(seeds=50, steps=100, hidden=50, updates=20_000, probe_every=100, chunk=100),
    )
    whole("wait", config.wait, 2 * SEEN)
    whole("orbits", config.orbits, 1)
    backend.start()
    out = launch(experiment(config), config)
    kept = out / "attractors.json"
    _measured.keep(kept, found_in(load(out)))
    show(kept, stated(config), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
