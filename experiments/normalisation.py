"""Does normalising the pre-activations keep the gradient alive?

Hypothesis: where mean and variance are taken, and how large the initial γ is, decides. Layer normalisation makes a
step forget the size of U (Ba, Kiros & Hinton 2016); batch normalisation of the input's part alone changes nothing
of the recurrence (Laurent et al. 2016); of the recurrence it needs γ = 0.1, since at γ = 1 tanh saturates and the
gradient vanishes (Cooijmans et al. 2017, §4). The swept number multiplies each paper's own γ: 1, 1 and 0.1.
Task: temporal order, T = 50, evaluated with the running statistics.
Cost: 192 runs × 1,500 updates, three and a half minutes of processor time; `--cells rnn lstm gru` for more.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from analysis import cures as analysis
from analysis.claims import Claim, minus, prevails
from experiments import _cures as cures
from experiments._cures import of
from seqdyn import backend
from seqdyn.fields import CellName, Normalise
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch, replicated, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is cells and normalisations × γ × seeds."""

    seeds: Seeds = 16
    tile: int = 16
    cells: tuple[CellName, ...] = ("rnn",)
    """rnn, lstm or gru."""
    normalise: tuple[Normalise, ...] = get_args(Normalise)
    """What mean and variance are taken of; batch_drive is the batch's, of W x alone."""
    norm_gains: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Factors of the papers' γ."""
    clip: float = 1.0


NAMES = {"batch_drive": "batch of W x"}


def experiment(c: Config) -> Experiment:
    """A spec a cell and normalisation."""
    specs = tuple(
        cures.spec(c, f"{cell}, {NAMES.get(kind, kind)}", c.steps[0], cell=cell, normalise=kind)
        for cell in c.cells
        for kind in c.normalise
    )
    return cures.experiment(c, "normalisation", specs, clip=c.clip, norm_gain=c.norm_gains)


COOIJMANS = "Cooijmans et al. 2017, §4"
NONE, LAYER, DRIVE, BATCH = "rnn, none", "rnn, layer", "rnn, batch of W x", "rnn, batch"
CLAIMS = (
    Claim(
        "With batch normalisation of W x at a tenth of its γ most rnns learn",
        "proportion",
        of("learned", label=DRIVE, norm_gain=0.1),
        0.5,
    ),
    Claim("At its own γ few do", "proportion", of("learned", label=DRIVE, norm_gain=1.0), 0.5, "below"),
    Claim(
        "Of the seeds with which either the rnn that normalises W x at a tenth of γ or the plain one learns, most are "
        "the first's",
        "proportion",
        prevails(of("learned", label=DRIVE, norm_gain=0.1), of("learned", label=NONE, norm_gain=1.0)),
        0.5,
    ),
    Claim(
        "With batch normalisation of the recurrence at γ = 1 few rnns learn",
        "proportion",
        of("learned", label=BATCH, norm_gain=10.0),
        0.5,
        "below",
        COOIJMANS,
    ),
    Claim(
        "Of the seeds that differ, most learn with it at γ = 0.1 and not at 1",
        "proportion",
        prevails(of("learned", label=BATCH, norm_gain=1.0), of("learned", label=BATCH, norm_gain=10.0)),
        0.5,
        "above",
        COOIJMANS,
    ),
    Claim(
        "With it the gradient begins further back at γ = 0.1 than at 1, where tanh saturates",
        "difference",
        minus(of("horizon_start", label=BATCH, norm_gain=1.0), of("horizon_start", label=BATCH, norm_gain=10.0)),
        0.0,
        "above",
        COOIJMANS,
    ),
    Claim(
        "With layer normalisation hardly any rnn learns (share of a seed's γ)",
        "median",
        of("learned", label=LAYER),
        0.2,
        "below",
    ),
    Claim(
        "With it at γ = 1 the gradient begins with nearly all lags",
        "median",
        of("horizon_start", label=LAYER, norm_gain=1.0),
        45.0,
    ),
    Claim("At 0.1 with less than 10", "median", of("horizon_start", label=LAYER, norm_gain=0.1), 10.0, "below"),
    Claim("At 10 it explodes, lag by lag", "slope", of("slope_start", label=LAYER, norm_gain=10.0), 0.0),
)
"""At the default length and width; the γ of a claim is that of the network, of batch normalisation of the recurrence a
tenth of the swept number."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    measures = {"test loss": analysis.probed("test_loss")}
    parts = {"": launch(experiment(config), config)}
    return cures.report(
        CLAIMS, parts, lambda _, out, found: analysis.show(out, "Normalisation", "norm_gain", measures, found)
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    smoke = dict(norm_gains=config.norm_gains[:2], cells=config.cells[:1], normalise=config.normalise[::2])
    config = cures.with_preset(config, smoke=smoke)
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
