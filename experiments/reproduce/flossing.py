"""Engelken 2023, 'Gradient flossing': pull the Lyapunov exponents of an untrained rnn to 0, then train it.

Claim: flossed networks learn delayed XOR sooner, and at delays at which the same networks without flossing fail.
Setting, as in the paper and its author's code: 80 tanh units, U ~ N(0, 1/80); the 75 largest exponents pulled to 0 in
500 steps of Adam, rate 0.001, along one sequence a step, a QR at every step; trained by Adam, rate 0.001, clip 0.03.
Not as there: bits are ±1, not 0 and 1, so input weights have half the deviation, N(0, 1/4); readout N(0, 1/80); biases
0; and the XOR of the bits at a third and two thirds of T steps is asked for once a sequence, in batches of 64, where
the author asks at each of 280 steps of 16 sequences.
Cost: 30 runs × 3,000 updates, six and a half minutes of processor time.
Expect: λ_1 … λ_75 at the start within 0.09 of 0, where they reach down to −2.1 without flossing; the gradient arrives
at the first step as large as it left, not 1% to 0.07% of it. 99% after 200 updates (5 of 5 seeds) against 400 (5) at
T = 18 and against 700 (4) at T = 21; at T = 30 after 600 (3 of 5), where no plain network leaves chance in 3,000.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from analysis import flossing, lags, published
from analysis.cures import STAGES
from analysis.published import Claim
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.runs.script import script, with_preset

Case = Literal["plain", "flossed"]
ACCURACY = 0.99
"""What the updates are counted to."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
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


def claims(c: Config, steps: int, cases: published.Cases) -> list[Claim]:
    """What the paper says of one length, and what came out."""
    plain, flossed = cases["plain"], cases["flossed"]
    sooner = published.median_updates(flossed, ACCURACY) < published.median_updates(plain, ACCURACY)
    found = {case: flossing.exponents(cases, case, 0)[:, : c.exponents] for case in cases}
    furthest = {case: np.median(np.abs(values).max(axis=-1)) for case, values in found.items()}
    decades = {case: np.median(v[:, 0] - v[:, -1]) * steps / np.log(10) for case, v in found.items()}
    kept = {
        case: lags.median(lags.relative(lags.stage(load(out), "adjoint_norm", STAGES["start"])[:, 0]))[-1]
        for case, out in cases.items()
    }
    at = f"T = {steps}"
    return [
        Claim(
            f"{at}: updates to 99%, flossed | plain",
            "sooner",
            f"{published.outcome(flossed, ACCURACY)} | {published.outcome(plain, ACCURACY)}",
            sooner,
        ),
        Claim(
            f"{at}: largest |λ_i| of the first {c.exponents}, nats a step",
            "near 0 | spread",
            f"{furthest['flossed']:.2g} | {furthest['plain']:.2g}",
            bool(furthest["flossed"] < 0.1 * furthest["plain"]),
        ),
        Claim(
            f"{at}: condition of the Jacobian over T steps, (λ_1 − λ_{c.exponents}) T",
            "orders of magnitude smaller",
            f"10^{decades['flossed']:.1f} | 10^{decades['plain']:.0f}",
            bool(decades["flossed"] < decades["plain"] - 2),
        ),
        Claim(
            f"{at}: ‖∂L/∂h‖ at the first step over that at the last, untrained",
            "keeps its size | vanishes",
            f"{kept['flossed']:.2g} | {kept['plain']:.1g}",
            bool(0.1 < kept["flossed"] < 10 and kept["plain"] < 0.1),
        ),
    ]


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the paper against it."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(lengths=(6,), hidden=8, exponents=6, floss_steps=20, batch=4, holdout=8),
        paper=dict(seeds=20, lengths=(18, 21, 24, 30, 45, 60, 90, 120), updates=10_000),
    )
    backend.start()
    wanted = {f"T = {t}": {case: experiment(config, case, t) for case in get_args(Case)} for t in config.lengths}
    out, panels = _cases.launch_cases(wanted, config)
    learned = {
        case: {t: published.successes(panels[f"T = {t}"][case], ACCURACY) for t in config.lengths}
        for case in get_args(Case)
    }
    found = [claim for t in config.lengths for claim in claims(config, t, panels[f"T = {t}"])]
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
    published.show(out, "Delayed XOR, flossed: Engelken 2023", found, figures, panels)


if __name__ == "__main__":
    script(Config, main, __doc__)
