"""What probes see between two updates, and which an experiment may have: words, and users' parts.

A part has `variables`, as a record has, and `measure(look) -> {name: array}`, of a `Look` at the diagnostic batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from seqdyn.building import check_alone, check_part
from seqdyn.data.batches import Batch
from seqdyn.data.tasks import DATA_SETS
from seqdyn.fields import Fields
from seqdyn.grids import numbers
from seqdyn.learn import own_cells
from seqdyn.learn.context import Variable, check_variables, checked, with_axes
from seqdyn.learn.terms import LayerPass
from seqdyn.nets.levels import Dense
from seqdyn.nets.wrappers import Zoneout
from seqdyn.parts import Part
from seqdyn.types import Array, ConfigError, Float, Int, Key, Tree, one_of

ProbeName = Literal["weights", "units", "jacobians", "lyapunov", "curvature", "updates"]
Split = Literal["holdout", "train"]


class Look(NamedTuple):
    """What a probe of one's own sees."""

    batch: Batch
    """The fixed diagnostic batch."""
    params: Tree
    """The parameters as they are."""
    step: Int[Array, ""]
    """Updates done."""
    key: Key[Array, ""]
    """Its own, for what a probe draws; the same for every probe."""
    loss_of: Callable[[Tree], Float[Array, ""]]
    """params -> the loss on the batch, penalties and dropout left out: differentiate it, go along a line in it."""
    layers: tuple[LayerPass, ...]
    """Every layer's states and adjoints; () of a network that is no stack. Steps are in the order in which a layer
    reads them: of a direction that reads backwards the sequence's last comes first."""

    @property
    def loss(self) -> Float[Array, ""]:
        """On the batch."""
        return self.loss_of(self.params)

    @property
    def grads(self) -> Tree:
        """∂loss/∂params on the batch."""
        return jax.grad(self.loss_of)(self.params)


class ProbeConfig(NamedTuple):
    """What an experiment's probes are and look at: `Experiment.probes` and the fields after it, hashable."""

    probes: tuple[ProbeName | Part, ...]
    diagnostic: int
    diagnostic_from: Split
    modes: int


def own_probes(probes: tuple[Any, ...]) -> dict[str, Any]:
    """Those that are no words, by where they stand: 'probes[1]'."""
    return {f"probes[{i}]": one for i, one in enumerate(probes) if not isinstance(one, str)}


def variables(probes: tuple[Any, ...]) -> dict[str, Variable]:
    """What users' probes record, with its axes after `run`."""
    return {
        name: with_axes(variable, "probe")
        for probe in own_probes(probes).values()
        for name, variable in probe.variables.items()
    }


def measured(probe: Any, look: Look, sizes: dict[str, int]) -> dict[str, Array]:
    """What a probe says of a look, `sizes` those of dims. Raises ConfigError where that is not its `variables`."""
    return checked(f"the probe {type(probe).__name__}", probe.measure, look, probe.variables, sizes)


def check(looking: ProbeConfig, specs: Sequence[Fields]) -> None:
    """Raises ConfigError for the first of the probes that cannot be right."""
    names, split, probes = get_args(ProbeName), looking.diagnostic_from, looking.probes
    parts = own_probes(probes) if isinstance(probes, tuple) else {}
    odd = [one for one in parts.values() if not (callable(one) or hasattr(one, "measure") or hasattr(one, "variables"))]
    words = [one for one in probes if isinstance(one, str)] if isinstance(probes, tuple) else ()
    if not isinstance(probes, tuple) or odd or not {*words} <= {*names}:
        raise ConfigError(f"probes is {probes!r}; it must be a tuple of names among {', '.join(names)}, or of parts.")
    known: set[str] = set()
    for where, probe in parts.items():
        check_probe(where, probe)
        for name in (name for name in probe.variables if name in known):
            raise ConfigError(f"{where} is {type(probe).__name__}, which records {name!r} as another does.")
        known |= probe.variables.keys()
    if len({*words}) < len(words):
        raise ConfigError(f"probes is {probes!r}; each may be named once.")
    one_of("diagnostic_from", split, get_args(Split))
    if "jacobians" in words and specs[0].steps == 1:
        raise ConfigError("probes has 'jacobians' and steps is 1; of one step there is no product to look at.")
    for spec in specs:
        if spec.network is not None and words:
            raise ConfigError(
                f"probes is {(*words,)!r}; {spec.label} is no stack of cells, so it must be () or parts of one's own."
            )
    blind = {"weights", "units", "jacobians", "lyapunov"} & {*words}
    for spec in specs:
        missing = {"weights", "units"} & blind if own_cells.own(spec) else set()
        if missing:
            raise ConfigError(f"probes is {probes!r}; the cells of {spec.label} have no {min(missing)} to look at.")
        if blind and own_cells.said(spec, Dense):
            raise ConfigError(f"probes is {probes!r}; a {spec.label} has no recurrence for {min(blind)}.")
        zoned = "dropout is 'zoneout'" if spec.dropout == "zoneout" else own_cells.said(spec, Zoneout)
        if "units" in words and zoned:
            raise ConfigError(f"probes has 'units' and {zoned}; its time constants and paths are of gates alone.")
    first = specs[0]
    if split == "train" and first.task not in DATA_SETS and not first.training_set:
        raise ConfigError("diagnostic_from is 'train' and training_set is 0; fresh sequences are no set to look at.")
    if split == "train" and first.training_set and looking.diagnostic > first.training_set:
        raise ConfigError(f"diagnostic is {looking.diagnostic}; it must be at most training_set, {first.training_set}.")


def check_probe(where: str, probe: Any) -> None:
    """Raises ConfigError for what is no probe of one's own."""
    check_part(where, probe, "measure")
    check_alone(probe)
    check_variables(where, probe)
    for path, (_, value) in numbers(probe).items():
        if np.ndim(value):
            raise ConfigError(f"{where} is {type(probe).__name__}, whose {path} has {np.size(value)} values; take one.")
