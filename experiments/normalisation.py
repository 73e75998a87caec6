"""Does normalising the pre-activations keep the gradient alive?

Hypothesis: where mean and variance are taken, and how large the initial γ is, decides. Layer normalisation makes a
step forget the size of U (Ba, Kiros & Hinton 2016); batch normalisation of the input's part alone changes nothing
of the recurrence (Laurent et al. 2016); of the recurrence it needs γ = 0.1, since at γ = 1 tanh saturates and the
gradient vanishes (Cooijmans et al. 2017, §4). The swept number multiplies each paper's own γ: 1, 1 and 0.1.
Task: temporal order, T = 50, evaluated with the running statistics.
Cost: 72 runs × 3,000 updates, about seven minutes on two cores.
Expect: γ decides for the rnn, as it did for Cooijmans et al. Batch normalisation of W x at a tenth of its γ lets every
seed learn (the plain rnn: one of three) and none at its own γ, where the drive saturates tanh; that of the recurrence
lets two of three learn at γ = 0.01 and 0.1, none at 1. Layer normalisation makes the gradient flat at γ = 1, a factor
of 2.6 over 50 lags, explode by 10¹⁴ at 10 and vanish within 5 lags at 0.1, and no rnn learns with it. The LSTM learns
with each but where γ = 10 makes its gradient explode (layer) or vanish (batch of W x).
"""

from dataclasses import dataclass

from analysis import cures as analysis
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is cells and normalisations × γ × seeds."""

    seeds: Seeds = 3
    cells: tuple[CellName, ...] = ("rnn", "lstm")
    """rnn, lstm or gru."""
    norm_gains: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Factors of the papers' γ."""
    clip: float = 1.0


def experiment(c: Config) -> Experiment:
    """A spec a cell and normalisation."""
    kinds = {"none": "none", "layer": "layer", "batch of W x": "batch_drive", "batch": "batch"}
    specs = tuple(
        cures.spec(c, f"{cell}, {name}", c.steps[0], cell=cell, normalise=kind)
        for cell in c.cells
        for name, kind in kinds.items()
    )
    return cures.experiment(c, "normalisation", specs, clip=c.clip, norm_gain=c.norm_gains)


def main(config: Config) -> None:
    """Trains (or goes on), then draws."""
    config = cures.sized(config, smoke=dict(norm_gains=config.norm_gains[:2], cells=config.cells[:1]))
    backend.start()
    measures = {"test loss": analysis.probed("test_loss")}
    analysis.show(launch(experiment(config), config), "Normalisation", "norm_gain", measures)


if __name__ == "__main__":
    script(Config, main, __doc__)
