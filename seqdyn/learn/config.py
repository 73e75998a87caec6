"""What an experiment is: `Spec`s decide code, `Hypers` decide numbers, an `Experiment` crosses them."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.data.arrays import array, plain, plain_json
from seqdyn.layout import Layout, layout
from seqdyn.learn.choices import (
    Activation,
    AugmentName,
    CellName,
    Clip,
    Dropout,
    InitName,
    Kind,
    Normalise,
    Optimizer,
    Pad,
    PenalisedGroup,
    PenaltyName,
    ProbeName,
    Readout,
    Schedule,
    Split,
    Stop,
    TaskName,
)
from seqdyn.learn.validate import check_hyper, validate
from seqdyn.parts import is_many, listed
from seqdyn.types import ConfigError

_WHOLE = ("seed", "window")
"""The numbers of `Hypers` that are whole."""


@dataclass(frozen=True)
class Spec:
    """What code runs: shapes and operations. Two specs are two compiled programs.

    NumPy's whole numbers, truth values and strings become Python's, and lists become tuples, so that what is equal is
    the same program.
    """

    task: TaskName = "adding"
    steps: int = 100
    """T, time steps of a sequence."""
    batch: int = 32
    """Sequences per update."""
    holdout: int = 1000
    """Fresh test sequences of a synthetic task (rounded up to whole batches)."""
    training_set: int = 0
    """Sequences of a synthetic task's training set, a multiple of `batch`, taken in order again and again (n = batch:
    every update sees all of it); 0 draws fresh sequences at every update."""
    shortest: int = 0
    """Each sequence of a synthetic task has a length of its own, uniform from this to `steps`; 0: all have `steps`."""
    features: int = 0
    """Numbers a step of a data set's sequences; 0 where they are ids."""
    classes: int = 2
    """Of a 'labelled' sequence; 0: its label is a number."""
    pad: Pad = "before"
    """On which side of a data set's sequences the padding lies."""
    mask: bool = True
    """Is padding left out, as if the sequence were shorter? False: it is read like anything else."""
    vocabulary: int = 0
    """Ids of a data set's sequences; 0 where they are numbers."""
    embedding: int = 0
    """Width of the trained embedding of ids; 0 gives a cell their one-hot vectors, `vocabulary` wide."""
    pretrained: bool = False
    """Does the embedding begin with word vectors, `data["vectors"]` [vocabulary, embedding]? See `Hypers.thaw`."""
    cell: CellName = "rnn"
    activation: Activation = "tanh"
    """φ of an rnn and of dense layers; LSTM and GRU have theirs."""
    hidden: tuple[int, ...] = (32,)
    """Width of each level, bottom first."""
    bidirectional: bool = False
    """Two layers a level, the second reading backwards: layers 2i and 2i + 1 of the records are level i."""
    w_init: InitName = "glorot_uniform"
    """Input weights, at `Hypers.input_gain`."""
    u_init: InitName = "orthogonal"
    """Recurrent weights, at `Hypers.gain`."""
    chrono: bool = False
    """Gate biases from `Hypers.longest` (LSTM, GRU) instead of `Hypers.forget_bias`."""
    normalise: Normalise = "none"
    """Of the pre-activations: see `nets.normalised`. The batch's kinds take whole sequences only."""
    readout_init: InitName = "glorot_uniform"
    """Readout weights, at `Hypers.readout_gain`."""
    readout: Readout = "last"
    """Which of the top level's outputs the prediction reads: the last, or the mean or sum over live steps; 'every' step
    has a prediction of its own in the tasks of `validate.EVERY_STEP`."""
    dropout: Dropout = "none"
    """What `Hypers.dropout` drops: words, inputs, outputs, or something inside the recurrence; see `learn.dropout`."""
    penalties: tuple[PenaltyName, ...] = ()
    """What is added to the loss, weighted by the hyperparameters of these names; see `penalties`."""
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    clip: Clip = "norm"
    """What `Hypers.clip` bounds: the gradient's global norm, its entries, or each example's adjoint at each step."""
    truncate: bool = False
    """Backpropagate through windows of `Hypers.window` steps only."""
    name: str = ""
    """What tables and figures call it; '' is the cell's name, which must tell the specs of an experiment apart."""
    floss: int = 0
    """Lyapunov exponents, the largest, that are pulled towards 0 before the first update: see `measure.flossing`."""
    floss_steps: int = 500
    """Steps of that."""
    evaluate_train: bool = False
    """Is a data set's training split judged at every look, too, as the held-out ones are: `train_loss`?"""
    stop: Stop = "none"
    """Early stopping on this metric of the validation split, at every look: see `stopping`."""
    penalised: tuple[PenalisedGroup, ...] = ("input", "recurrent", "readout")
    """The weight matrices that l1, l1_proximal, l2, l0 and the decay of 'adamw' act on; biases never are."""
    monte_carlo: int = 0
    """Networks with dropout whose mean prediction is evaluated on held-out splits, by keys of (seed, update), for −log
    mean p and the accuracy of the mean (Gal & Ghahramani 2016); 0 evaluates one without dropout."""
    augment: tuple[AugmentName, ...] = ()
    """How the sequences of every training batch are changed, one after the other, by `Hypers.strength`: see
    `data.augment`."""
    kind: Kind = "series"
    """What a data set's numbers are, which decides what augmentations fit; ids are text."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, plain(getattr(self, f.name)))

    @property
    def label(self) -> str:
        """`name`, or 'rnn tanh', 'lstm', 'gru'."""
        return self.name or (f"rnn {self.activation}" if self.cell == "rnn" else self.cell.replace("_", " "))

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each recurrent layer, in the order of the records."""
        return tuple(h for h in self.hidden for _ in range(2 if self.bidirectional else 1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hypers:
    """What numbers it runs with: leaves of a pytree, scalars for one run or [r] for a grid. They never recompile."""

    seed: Any = 0
    """Of parameters and data."""
    lr: Any = 1e-3
    """Peak learning rate."""
    gain: Any = 1.0
    """Factor of the recurrent initialisation."""
    input_gain: Any = 1.0
    """Factor of the initialisation of the input weights."""
    readout_gain: Any = 1.0
    """Factor of the initialisation of the readout."""
    norm_gain: Any = 1.0
    """Factor of a normalisation's initial γ (`normalised.GAMMA`)."""
    clip: Any = math.inf
    """Threshold of `Spec.clip`; inf clips nothing. An adjoint's bound is per example, whatever the batch size."""
    forget_bias: Any = 1.0
    """Initial bias of an LSTM's forget gate."""
    longest: Any = 100.0
    """T_max of a chrono initialisation, in steps."""
    momentum: Any = 0.9
    """Of 'momentum'; the decay of the second moment of 'rmsprop'."""
    weight_decay: Any = 0.0
    """Decoupled decay of 'adamw': Δw also has −lr · this · w, for the matrices of `Spec.penalised` alone."""
    warmup: Any = 0.0
    """Updates over which the learning rate rises linearly from lr / warmup to lr."""
    decay_steps: Any = 1000.0
    """Updates after warm-up in which 'cosine' falls to 0, 'exponential' by `decay_rate` and 'inverse' to half."""
    decay_rate: Any = 0.1
    window: Any = 10
    """Steps of truncated backpropagation."""
    dropout: Any = 0.0
    """Rate of `Spec.dropout`: this share is 0 and the rest divided by 1 − rate; under 'zoneout' this share of the units
    keeps its old value. Off in evaluation, where zoneout takes the expectation."""
    l1: Any = 0.0
    """Weight λ of the penalty of this name, as are the next four."""
    l2: Any = 0.0
    activity: Any = 0.0
    orthogonality: Any = 0.0
    omega: Any = 0.0
    thaw: Any = 0.0
    """Updates before which a pretrained embedding is frozen: 0 trains it from the start, inf never."""
    patience: Any = math.inf
    """Looks in a row without improvement after which `Spec.stop` ends a run; inf ends none, and keeps the best."""
    min_improvement: Any = 0.0
    """By how much more than this a look must better the best one before it to count."""
    l1_proximal: Any = 0.0
    """Weight λ of the penalty of this name, as is the next."""
    l0: Any = 0.0
    strength: Any = 0.0
    """Of `Spec.augment`: 0 changes nothing, 1 as much as is usual, each says how much; the chance of a bank's
    variant."""

    def __len__(self) -> int:
        return len(np.atleast_1d(np.asarray(self.seed)))

    def at(self, index: Any) -> "Hypers":
        """One run (or a slice of runs) of a grid."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def arrays(self) -> "Hypers":
        """With JAX leaves: seed and window int32, the rest float32."""
        cast = {
            f.name: jnp.asarray(getattr(self, f.name), jnp.int32 if f.name in _WHOLE else jnp.float32)
            for f in dataclasses.fields(self)
        }
        return Hypers(**cast)


def grid(seeds: int | Sequence[int] = 1, **axes: Any) -> Hypers:
    """The Cartesian product of the named values as one `Hypers` with a run axis; seeds vary fastest.

    >>> len(grid(seeds=3, gain=[0.5, 1.0], clip=[1.0, math.inf], lr=1e-3))
    12

    Raises ConfigError for a name that is not a field of `Hypers`, an axis without values, and values out of range.
    """
    names = {f.name for f in dataclasses.fields(Hypers)} - {"seed"}
    for name in axes:
        if name not in names:
            raise ConfigError(f"grid has no axis '{name}'; it takes seeds and {', '.join(sorted(names))}.")
    values = {name: listed(v) for name, v in axes.items()}
    values["seed"] = listed(seeds)
    if not is_many(seeds):
        check_hyper("seed", values["seed"][0])
        values["seed"] = list(range(int(values["seed"][0])))
    for name, v in values.items():
        if not v:
            raise ConfigError(f"{name} has no values; give at least one.")
        for one in v:
            check_hyper(name, one)
        if name in _WHOLE:
            values[name] = [int(one) for one in v]
    points = list(itertools.product(*values.values()))
    columns = dict(zip(values, zip(*points, strict=True), strict=True))
    defaults = {f.name: f.default for f in dataclasses.fields(Hypers)}
    return Hypers(**{name: np.asarray(columns.get(name, [d] * len(points))) for name, d in defaults.items()})


def joined(*grids: Hypers) -> Hypers:
    """The points of several grids, one after the other: what is no product of axes."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *grids)


class Looking(NamedTuple):
    """What an experiment's probes are and look at: `Experiment.probes` and the fields after it, hashable."""

    probes: tuple[ProbeName, ...]
    diagnostic: int
    diagnostic_from: Split
    modes: int


@dataclass(frozen=True)
class Experiment:
    """Specs × hypers, and how long: what a run directory holds the result of. Run r = spec index · len(hypers) + i.

    The data that a data set's tasks need are no part of it: `seqdyn.run.run(experiment, out, data)`, whose `data` are a
    dict of splits as `data.check.check` describes them. Raises ConfigError for the first field that cannot be right.
    """

    name: str
    specs: tuple[Spec, ...]
    """One `Spec`, or several in a tuple or list."""
    hypers: Hypers
    """What `grid` makes; None is `grid()`."""
    updates: int
    chunk: int
    """Updates in one compiled call: a signal is obeyed at its end."""
    probe_every: int
    """Updates between looks that cost more than a step: held-out error, spectral radius. A multiple of `chunk`."""
    tile: int = 4
    """Runs in one program on one device: enough tiles for every core of a CPU, large ones for an accelerator."""
    probes: tuple[ProbeName, ...] = ("weights",)
    """Instruments of `seqdyn.measure` that look at every run at every probe; none changes a bit of the training."""
    diagnostic: int = 8
    """Sequences of the fixed batch that they look at."""
    diagnostic_from: Split = "holdout"
    """Where that batch comes from: sequences that are never trained on, or (the first of) the training set."""
    modes: int = 8
    """Singular values and exponents that 'jacobians' and 'lyapunov' record, largest first."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else defines the data (say, a vocabulary's settings): kept in the manifest and compared on resume."""

    def __post_init__(self) -> None:
        taken = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "hypers"}
        taken["specs"] = (self.specs,) if isinstance(self.specs, Spec) else taken["specs"]
        taken["hypers"] = grid() if self.hypers is None else self.hypers
        if isinstance(self.hypers, Hypers):
            columns = {f.name: getattr(self.hypers, f.name) for f in dataclasses.fields(Hypers)}
            taken["hypers"] = Hypers(**{name: array(f"hypers.{name}", c, "numbers") for name, c in columns.items()})
        taken["settings"] = plain_json(self.settings)
        for name, value in taken.items():
            object.__setattr__(self, name, value)
        self._check_types()
        validate(self)

    def _check_types(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"name is {self.name!r}; it must be a string.")
        odd = [s for s in self.specs if not isinstance(s, Spec)] if isinstance(self.specs, tuple) else [self.specs]
        if odd:
            raise ConfigError(f"specs has {odd[0]!r:.80}; it must be a Spec, or a tuple of them.")
        if not self.specs:
            raise ConfigError("specs is empty; an experiment needs at least one Spec.")
        if not isinstance(self.hypers, Hypers):
            raise ConfigError(f"hypers is {self.hypers!r:.80}; it must be what grid() returns.")
        if not isinstance(self.settings, dict):
            raise ConfigError(f"settings is {self.settings!r:.80}; it must be a dict of what JSON can hold.")

    @property
    def layout(self) -> Layout:
        """Which runs share a tile, and how long the records are."""
        return layout(self.describe())

    @property
    def looking(self) -> Looking:
        """What decides the probes' code."""
        return Looking(self.probes, self.diagnostic, self.diagnostic_from, self.modes)

    def describe(self) -> dict[str, Any]:
        """As JSON: two experiments are the same if and only if this is. Infinity is written as a string."""
        hypers = {
            f.name: [_finite(v) for v in np.asarray(getattr(self.hypers, f.name)).tolist()]
            for f in dataclasses.fields(Hypers)
        }
        return {
            "name": self.name,
            "specs": [
                {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(s).items()}
                for s in self.specs
            ],
            "hypers": hypers,
            "updates": self.updates,
            "chunk": self.chunk,
            "probe_every": self.probe_every,
            "tile": self.tile,
            "probes": list(self.probes),
            "diagnostic": self.diagnostic,
            "diagnostic_from": self.diagnostic_from,
            "modes": self.modes,
            "settings": json.loads(json.dumps(self.settings)),
        }


def experiment_from(described: dict[str, Any]) -> Experiment:
    """The inverse of `Experiment.describe`, for reading: nothing is refused, and what is not said had its default."""
    given = {k: np.asarray([float(x) if isinstance(x, str) else x for x in v]) for k, v in described["hypers"].items()}
    runs = len(given["seed"])
    hypers = Hypers(**{f.name: given.get(f.name, np.full(runs, f.default)) for f in dataclasses.fields(Hypers)})
    found = _known(Experiment, described) | {"hypers": hypers, "probes": tuple(described["probes"])}
    found["specs"] = tuple(Spec(**_known(Spec, spec)) for spec in described["specs"])
    read = object.__new__(Experiment)  # not by __init__, which refuses
    for f in dataclasses.fields(Experiment):
        default = f.default_factory() if callable(f.default_factory) else f.default
        object.__setattr__(read, f.name, found.get(f.name, default))
    return read


def _known(cls: Any, described: dict[str, Any]) -> dict[str, Any]:
    """What the fields of a class are said to be."""
    return {f.name: described[f.name] for f in dataclasses.fields(cls) if f.name in described}


def _finite(value: float) -> float | str:
    return str(value) if isinstance(value, float) and math.isinf(value) else value
