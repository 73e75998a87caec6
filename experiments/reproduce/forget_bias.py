"""Gers, Schmidhuber & Cummins 2000, §4, and Jozefowicz, Zaremba & Sutskever 2015, §3: the bias of the forget gate.

Claim: an LSTM whose forget gate begins with bias 1 or 2 learns what lies far back; with bias 0 the gate begins near
1/2, the gradient through c halves with every step, and long lags are learned late or not at all.
Setting: adding at T = 200 and temporal order at T = 100, an LSTM of 32 units, Adam. Neither paper used these tasks
(continual Reber grammars; arithmetic, XML and language models): it is the mechanism that is tried.
Cost: 72 runs × 5,000 updates, 17 minutes of processor time.
Expect: the claims; their verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis import published
from analysis.claims import Claim, minus, of
from analysis.reproduced import less, sooner
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.fields import TaskName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import replicated, script, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Claimed):
    """Tasks × biases × seeds."""

    tasks: tuple[TaskName, ...] = ("adding", "temporal_order")
    """What is learned."""
    lengths: tuple[int, ...] = (200, 100)
    """T, time steps of a sequence of each task."""
    biases: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Initial bias of the forget gate."""
    hidden: int = 32
    batch: int = 16
    lr: float = 3e-3
    clip: float = 1.0


def experiment(c: Config, task: TaskName, steps: int, bias: float) -> Experiment:
    """Seeds of one bias on one task."""
    spec = Spec(task=task, steps=steps, batch=c.batch, hidden=(c.hidden,), cell="lstm", name=f"bias {bias:g}")
    return _cases.case(c, f"forget_bias_{task}", spec, grid(seeds=c.seeds, lr=c.lr, clip=c.clip, forget_bias=bias))


GERS, JOZEFOWICZ = "Gers et al. 2000", "Jozefowicz et al. 2015"


def _sooner(task: str, bias: int, source: str) -> Claim:
    told = f"{task.replace('_', ' ')}: with bias {bias} it learns sooner than with 0, of the seeds that differ"
    return Claim(told, "proportion", sooner(f"bias {bias}", "bias 0", task=task), 0.5, source=source, paper="yes")


CLAIMS = (
    _sooner("adding", 1, JOZEFOWICZ),
    _sooner("adding", 2, GERS),
    _sooner("temporal_order", 1, JOZEFOWICZ),
    _sooner("temporal_order", 2, GERS),
    Claim(
        "With bias 0 ∂L/∂c keeps half of itself a step at initialisation, to within 0.1 (the share less a half)",
        "median",
        less(of("kept_c_start", label="bias 0"), 0.5),
        0.1,
        "within",
        JOZEFOWICZ,
        paper="0.5",
    ),
    Claim(
        "With bias 1 it keeps more than with 0",
        "difference",
        minus(of("kept_c_start", label="bias 1"), of("kept_c_start", label="bias 0")),
        0.0,
        source=JOZEFOWICZ,
        paper="more",
    ),
)
"""What the papers say; of several tasks a seed has the mean."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), draws, and holds the papers against it; the verdicts."""
    where = dict(zip(config.tasks, config.lengths, strict=True))
    wanted = {
        f"{task.replace('_', ' ')}, T = {t}": {
            f"bias {bias:g}": experiment(config, task, t, bias) for bias in config.biases
        }
        for task, t in where.items()
    }
    out, panels = _cases.launch_cases(wanted, config)
    figures = {
        "learning": (
            lambda: published.learning(panels, "test_loss", "test loss", {}, log=True),
            "Loss on fresh sequences; medians and quartiles over seeds.",
        ),
        "norms_by_lag": (
            lambda: published.norms_by_lag(panels),
            published.BY_LAG,
        ),
    }
    title = "The forget gate's bias: Gers et al. 2000, Jozefowicz et al. 2015"
    return published.show(out, title, CLAIMS, figures, panels)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(tasks=("adding",), lengths=(12,), biases=(0.0, 1.0), hidden=6, batch=4),
        paper=dict(lengths=(400, 200), hidden=128, updates=50_000),
    )
    if len(config.tasks) != len(config.lengths):
        raise ConfigError(f"lengths is {config.lengths}; give one for each of the tasks, {', '.join(config.tasks)}.")
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
