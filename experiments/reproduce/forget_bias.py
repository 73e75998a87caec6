"""Gers, Schmidhuber & Cummins 2000, §4, and Jozefowicz, Zaremba & Sutskever 2015, §3: the bias of the forget gate.

Claim: an LSTM whose forget gate begins with bias 1 or 2 learns what lies far back; with bias 0 the gate begins near
1/2, the gradient through c halves with every step, and long lags are learned late or not at all.
Setting: adding at T = 200 and temporal order at T = 100, an LSTM of 32 units, Adam. Neither paper used these tasks
(continual Reber grammars; arithmetic, XML and language models): it is the mechanism that is tried.
Cost: 30 runs × 5,000 updates, 11 minutes of processor time.
Expect: the claim, on both tasks. Adding: 2 of 5 seeds learn with bias 0, all with 1 (3,750 updates) and 2 (2,500).
Temporal order: none with 0, 4 of 5 with 1 (750 updates) and with 2 (2,250). At initialisation ∂L/∂c keeps 0.73, 0.94
and 1.00 of itself each step, 0 more than its gate's half since h carries some of it.
"""

from dataclasses import dataclass

import numpy as np

from analysis import published
from analysis.lags import relative, stage
from analysis.published import Claim
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.fields import TaskName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.runs.script import script, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Tasks × biases × seeds."""

    tasks: tuple[TaskName, ...] = ("adding", "temporal_order")
    """What is learned."""
    lengths: tuple[int, ...] = (200, 100)
    """T, time steps of a sequence of each task."""
    biases: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Initial bias of the forget gate; the first is held against the others."""
    hidden: int = 32
    batch: int = 16
    lr: float = 3e-3
    clip: float = 1.0


def experiment(c: Config, task: TaskName, steps: int, bias: float) -> Experiment:
    """Seeds of one bias on one task."""
    spec = Spec(task=task, steps=steps, batch=c.batch, hidden=(c.hidden,), cell="lstm", name=f"bias {bias:g}")
    return _cases.case(c, f"forget_bias_{task}", spec, grid(seeds=c.seeds, lr=c.lr, clip=c.clip, forget_bias=bias))


def decay(panel: published.Cases, name: str) -> float:
    """Factor by which ‖∂L/∂c_t‖ falls a step at initialisation: the geometric mean over lags 1 … T − 1."""
    norms = stage(load(panel[name]), "adjoint_norm_c", 0)[:, 0, 1:]  # c_T acts through h_T alone, held fixed
    ends = np.median(relative(norms)[:, -1])
    return float(ends ** (1 / (norms.shape[-1] - 1)))


def claims(panels: _cases.Panels) -> list[Claim]:
    """Of each task: bias 0 against the larger ones, in updates and in what the gradient keeps a step."""
    found = []
    for panel, cases in panels.items():
        first, *others = cases
        middle = {name: published.median_updates(out) for name, out in cases.items()}
        for name in others:
            ours = "; ".join(f"{n}: {published.outcome(cases[n])}" for n in (first, name))
            found.append(
                Claim(f"{panel}: {name} learns sooner than {first}", "yes", ours, middle[name] < middle[first])
            )
        kept = {name: decay(cases, name) for name in cases}
        ours = ", ".join(f"{name}: {factor:.2f}" for name, factor in kept.items())
        rises = all(kept[name] > kept[first] for name in others) if others else None
        found.append(Claim(f"{panel}: share that ∂L/∂c keeps each step", "least at bias 0, about 1/2", ours, rises))
    return found


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the papers against it."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(tasks=("adding",), lengths=(12,), biases=(0.0, 1.0), hidden=6, batch=4),
        paper=dict(lengths=(400, 200), hidden=128, updates=50_000),
    )
    if len(config.tasks) != len(config.lengths):
        raise ConfigError(f"lengths is {config.lengths}; give one for each of the tasks, {', '.join(config.tasks)}.")
    backend.start()
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
    published.show(
        out, "The forget gate's bias: Gers et al. 2000, Jozefowicz et al. 2015", claims(panels), figures, panels
    )


if __name__ == "__main__":
    script(Config, main, __doc__)
