"""Engelken 2023, 'Gradient flossing': pull the Lyapunov exponents of an untrained rnn to 0, then train it.

Claim: flossed networks learn delayed XOR sooner, and at delays at which the same networks without flossing fail.
Setting, as in the paper and its author's code: 80 tanh units, U ~ N(0, 1/80); the 75 largest exponents pulled to 0 in
500 steps of Adam, rate 0.001, along one sequence a step, a QR at every step; trained by Adam, rate 0.001, clip 0.03.
Not as there: bits are ±1, not 0 and 1, so input weights have half the deviation, N(0, 1/4); readout N(0, 1/80); biases
0; and the XOR of the bits at a third and two thirds of T steps is asked for once a sequence, in batches of 64, where
the author asks at each of 280 steps of 16 sequences.
Cost: 72 runs × 3,000 updates, ten minutes of processor time.
Expect: the claims; their verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from analysis import flossing, published
from analysis.claims import Claim, minus, of
from analysis.flossing import ACCURACY
from analysis.reproduced import sooner
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import replicated, script, with_preset

SOURCE = "Engelken 2023"
Case = Literal["plain", "flossed"]


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Claimed):
    """Lengths × with and without flossing × seeds."""

    lengths: tuple[int, ...] = (18, 21, 30)
    """T, time steps of a sequence; the bits that count are T/3 and 2T/3 steps before its end."""
    updates: int = 3000
    hidden: int = 80
    exponents: int = 75
    """k, exponents that are flossed."""
    floss_steps: int = 500
    """Steps of flossing; they are one compiled call, which a signal waits for."""
    batch: int = 64
    holdout: int = 1000
    """Fresh sequences of a look."""
    chunk: int = 100
    probe_every: int = 100
    """Updates between looks at the accuracy and the exponents."""


def experiment(c: Config, case: Case, steps: int) -> Experiment:
    """Seeds of one setting. A Gaussian W of gain g has entries of variance g²/fan_in, and one input."""
    spec = Spec(
        task="delayed_xor",
        steps=steps,
        batch=c.batch,
        holdout=c.holdout,
        hidden=(c.hidden,),
        w_init="gaussian",
        u_init="gaussian",
        readout_init="gaussian",
        floss=c.exponents if case == "flossed" else 0,
        floss_steps=c.floss_steps,
        name=case,
    )
    numbers = grid(seeds=c.seeds, lr=1e-3, input_gain=0.5, clip=0.03)
    return _cases.case(c, "flossing", spec, numbers, probes=("lyapunov",), diagnostic=4, modes=c.hidden)


CLAIMS = (
    *(
        Claim(
            f"T = {steps}: flossed networks reach 99% sooner than plain ones, of the seeds that differ",
            "proportion",
            sooner("flossed", "plain", "speed_reached", steps=steps),
            0.5,
            source=SOURCE,
            paper="sooner",
        )
        for steps in (18, 21, 30)
    ),
    Claim(
        "T = 30: most flossed networks reach 99%",
        "proportion",
        of("reached", label="flossed", steps=30),
        0.5,
        source=SOURCE,
        paper="yes",
    ),
    Claim(
        "Flossing makes (λ_1 − λ_k) T of the untrained network, its condition over T steps, smaller by two decades",
        "difference",
        minus(of("condition_start", label="flossed"), of("condition_start", label="plain")),
        -2.0,
        "below",
        SOURCE,
        paper="orders of magnitude smaller",
    ),
    Claim(
        "Flossed, ∂L/∂h arrives at the first step of an untrained network as large as it left, to a decade",
        "median",
        of("change_start", label="flossed"),
        1.0,
        "within",
        SOURCE,
        paper="keeps its size",
    ),
)
"""What the paper says; where no T is named a seed has the mean over lengths."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), draws, and holds the paper against it; the verdicts."""
    wanted = {f"T = {t}": {case: experiment(config, case, t) for case in get_args(Case)} for t in config.lengths}
    out, panels = _cases.launch_cases(wanted, config)
    learned = {
        case: {t: published.successes(panels[f"T = {t}"][case], ACCURACY) for t in config.lengths}
        for case in get_args(Case)
    }
    seeds = "medians and quartiles over seeds"
    figures = {
        "learning": (
            lambda: published.learning(panels, "test_accuracy", "test accuracy", {"99%": ACCURACY, "a coin": 0.5}),
            f"Accuracy on {config.holdout:,} fresh sequences; {seeds}.",
        ),
        "norms_by_lag": (
            lambda: published.norms_by_lag(panels),
            published.BY_LAG,
        ),
        "spectra": (
            lambda: flossing.spectra(panels, config.exponents),
            f"Lyapunov exponents of the driven network, before the first update and after the last; {seeds}.",
        ),
        "success": (
            lambda: published.rates({"delayed XOR": learned}, "T (steps)"),
            "Share of the seeds that reached 99% at some look, with Wilson's 95% interval.",
        ),
    }
    title = "Delayed XOR, flossed: Engelken 2023"
    return published.show(out, title, CLAIMS, figures, panels, flossing.columns, ACCURACY)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(lengths=(6,), hidden=8, exponents=6, floss_steps=20, batch=4, holdout=8),
        paper=dict(seeds=20, lengths=(18, 21, 24, 30, 45, 60, 90, 120), updates=10_000),
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
