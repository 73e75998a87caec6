"""One table of all cures: what each does for the same network, with the same data, budget and seeds.

A tanh rnn with a Gaussian recurrence at gain 1 on temporal order, T = 50, and the same with one thing changed: its
initialisation, clipping, activation, penalty, normalisation, schedule or gates. Each row says how far back the
gradient reaches before and after training, how many seeds diverged and learned (Wilson's 95% interval), and what an
update costs beside the plain network's. The experiments named in the rows sweep the numbers that are fixed here.
Cost: 432 runs × 1,500 updates in 18 programs, eleven minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from analysis import claims
from analysis import compared as analysis
from analysis.claims import Claim, minus, prevails
from experiments import _cures as cures
from experiments import _timing
from experiments._cures import of
from experiments._timing import Timed
from seqdyn import backend
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, replicated, script
from seqdyn.types import ConfigError

GAUSSIAN: dict[str, Any] = {"u_init": "gaussian"}
CURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "initialisation: orthogonal": ({"u_init": "orthogonal"}, {}),
    "initialisation: identity, relu": ({"u_init": "identity", "activation": "relu"}, {}),
    "initialisation: smart tanh": ({"u_init": "sparse"}, {"gain": 0.95}),
    "clipping: norm 1": ({}, {"clip": 1.0}),
    "clipping: norm 0.01": ({}, {"clip": 0.01}),
    "activation: relu, gain √2": ({"activation": "relu"}, {"gain": math.sqrt(2)}),
    "activation: sigmoid, gain 4": ({"activation": "sigmoid"}, {"gain": 4.0}),
    "penalty: L2, 0.001": ({"penalties": ("l2",)}, {"l2": 1e-3}),
    "penalty: orthogonality, 0.1": ({"penalties": ("orthogonality",)}, {"orthogonality": 0.1}),
    "penalty: Ω, 1, clipped": ({"penalties": ("omega",)}, {"omega": 1.0, "clip": 1.0}),
    "normalisation: layer": ({"normalise": "layer"}, {}),
    "normalisation: batch, of W x": ({"normalise": "batch_drive"}, {}),
    "normalisation: batch": ({"normalise": "batch"}, {}),
    "schedule: warm-up, cosine": ({"schedule": "cosine"}, {"warmup": 300.0}),
    "gating: lstm": ({"cell": "lstm"}, {}),
    "gating: lstm, chrono": ({"cell": "lstm", "chrono": True}, {"longest": 50.0}),
    "gating: gru": ({"cell": "gru"}, {}),
}
"""Name -> what it changes in the `Spec` and in its `Numbers`."""


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """A row a cure."""

    seeds: Seeds = 24
    tile: int = 14
    cures: tuple[str, ...] = tuple(CURES)
    """Names of rows."""


class Row(NamedTuple):
    """A cure and its experiment."""

    name: str
    experiment: Experiment


def rows(c: Config) -> list[Row]:
    """An experiment each, as their numbers differ. Raises ConfigError for a name that is none of `CURES`."""
    found = []
    for name in c.cures:
        if name not in CURES:
            raise ConfigError(f"cures has '{name}'; it takes {'; '.join(CURES)}.")
        code, numbers = CURES[name]
        one = cures.spec(c, name, c.steps[0], **(GAUSSIAN | code))
        axes: dict[str, Any] = {"decay_steps": float(c.updates), **numbers}
        found.append(Row(name, cures.experiment(c, f"cure_{list(CURES).index(name):02d}", (one,), **axes)))
    return found


def milliseconds(of: list[Row], rounds: int) -> dict[str, float]:
    """An update of each cure."""
    cases = {row.name: Timed(row.experiment.runs[0].at(0)) for row in of}
    return _timing.milliseconds(cases, of[0].experiment.chunk, rounds)


LEARN = {
    "initialisation: identity, relu": "ReLU networks from the identity",
    "penalty: orthogonality, 0.1": "networks with an orthogonality penalty of 0.1",
    "gating: lstm": "LSTMs",
    "gating: lstm, chrono": "LSTMs with chrono's biases",
    "gating: gru": "GRUs",
}
USELESS = (
    "activation: sigmoid, gain 4",
    "normalisation: layer",
    "normalisation: batch, of W x",
    "schedule: warm-up, cosine",
)
CLAIMS = (
    Claim(
        "An orthogonality penalty of 0.1 helps the plain network: of the seeds that learn with one of the two, most",
        "proportion",
        prevails(of("learned", label="penalty: orthogonality, 0.1"), of("learned", label="none")),
        0.5,
    ),
    *(Claim(f"Most {who} learn", "proportion", of("learned", label=row), 0.5) for row, who in LEARN.items()),
    Claim(
        "A sigmoid of gain 4, normalising layers or W x at the usual γ, and a falling rate are no cures (share of a "
        "seed's four that learn)",
        "median",
        of("learned", label=USELESS),
        0.3,
        "below",
    ),
    Claim(
        "Networks that learned end with a gradient that reaches nearly all lags (mean over a seed's)",
        "median",
        of("horizon_end", learned=1.0),
        45.0,
    ),
    Claim(
        "The GRU begins with a shorter reach than the plain network",
        "difference",
        minus(of("horizon_start", label="gating: gru"), of("horizon_start", label="none")),
        0.0,
        "below",
    ),
    Claim(
        "Hardly any run diverges (share of a seed's runs)",
        "median",
        of("diverged"),
        0.05,
        "below",
    ),
)
"""At the default length and width."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), times each cure once, then makes the table; the verdicts."""
    of_all = rows(config)
    parts = list(launch_all({row.experiment.name: row.experiment for row in of_all}, config).values())
    out = parts[0].parent
    timing = out / "milliseconds.json"
    if not timing.exists():
        timing.write_text(json.dumps(milliseconds(of_all, 3 if config.smoke else 9)) + "\n", encoding="utf-8")
    took = json.loads(timing.read_text(encoding="utf-8"))
    return claims.report(CLAIMS, parts, lambda found: analysis.show(out, parts, took, found))


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(config, smoke=dict(cures=config.cures[::9]))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
