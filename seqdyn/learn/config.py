"""What an experiment is: `Spec`s decide code, `Hypers` decide numbers, an `Experiment` crosses them."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.types import ConfigError

TaskName = Literal["adding", "delayed_xor", "text"]
CellName = Literal["rnn", "lstm", "gru", "gru_reset_before"]
Activation = Literal[
    "tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "softplus", "softsign", "hard_tanh", "identity"
]
InitName = Literal["glorot_uniform", "glorot_normal", "orthogonal", "gaussian", "uniform", "identity", "sparse"]
Optimizer = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "exponential"]
Clip = Literal["norm", "value", "adjoint"]
Readout = Literal["last", "mean", "sum"]
ProbeName = Literal["weights", "units", "jacobians", "lyapunov", "curvature", "updates"]
Split = Literal["holdout", "train"]


@dataclass(frozen=True)
class Spec:
    """What code runs: shapes and operations. Two specs are two compiled programs."""

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
    vocabulary: int = 0
    """Ids to embed; 0 for inputs that are numbers."""
    embedding: int = 0
    """Width of the trained embedding of ids."""
    cell: CellName = "rnn"
    activation: Activation = "tanh"
    """φ of an rnn; LSTM and GRU have theirs."""
    hidden: tuple[int, ...] = (32,)
    """Width of each layer, bottom first."""
    w_init: InitName = "glorot_uniform"
    """Input weights, at `Hypers.input_gain`."""
    u_init: InitName = "orthogonal"
    """Recurrent weights, at `Hypers.gain`."""
    chrono: bool = False
    """Gate biases from `Hypers.longest` (LSTM, GRU) instead of `Hypers.forget_bias`."""
    readout: Readout = "last"
    """Which of the top layer's outputs the prediction reads: the last, or the mean or sum over live steps."""
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    clip: Clip = "norm"
    """What `Hypers.clip` bounds: the gradient's global norm, its entries, or each example's adjoint at each step."""
    truncate: bool = False
    """Backpropagate through windows of `Hypers.window` steps only."""

    @property
    def label(self) -> str:
        """'rnn tanh', 'lstm', 'gru'."""
        return f"rnn {self.activation}" if self.cell == "rnn" else self.cell.replace("_", " ")


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
    clip: Any = math.inf
    """Threshold of `Spec.clip`; inf clips nothing. An adjoint's bound is per example, whatever the batch size."""
    forget_bias: Any = 1.0
    """Initial bias of an LSTM's forget gate."""
    longest: Any = 100.0
    """T_max of a chrono initialisation, in steps."""
    momentum: Any = 0.9
    """Of 'momentum'; the decay of the second moment of 'rmsprop'."""
    weight_decay: Any = 0.0
    """Decoupled decay of 'adamw'."""
    warmup: Any = 0.0
    """Updates over which the learning rate rises linearly from lr / warmup to lr."""
    decay_steps: Any = 1000.0
    """Updates after warm-up in which 'cosine' falls to 0 and 'exponential' falls by `decay_rate`."""
    decay_rate: Any = 0.1
    window: Any = 10
    """Steps of truncated backpropagation."""

    def __len__(self) -> int:
        return len(np.atleast_1d(np.asarray(self.seed)))

    def at(self, index: Any) -> "Hypers":
        """One run (or a slice of runs) of a grid."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def arrays(self) -> "Hypers":
        """With JAX leaves: seed and window int32, the rest float32."""
        whole = ("seed", "window")
        cast = {
            f.name: jnp.asarray(getattr(self, f.name), jnp.int32 if f.name in whole else jnp.float32)
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
    values = {name: _listed(v) for name, v in axes.items()}
    values["seed"] = _listed(seeds)
    if not isinstance(seeds, Iterable):
        _check_hyper("seed", seeds)
        values["seed"] = list(range(int(values["seed"][0])))
    for name, v in values.items():
        if not v:
            raise ConfigError(f"{name} has no values; give at least one.")
        for one in v:
            _check_hyper(name, one)
    points = list(itertools.product(*values.values()))
    columns = dict(zip(values, zip(*points, strict=True), strict=True))
    defaults = {f.name: f.default for f in dataclasses.fields(Hypers)}
    return Hypers(**{name: np.asarray(columns.get(name, [d] * len(points))) for name, d in defaults.items()})


def _listed(values: Any) -> list[Any]:
    """One value or many, NumPy's or Python's, as a list of Python's."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    many = isinstance(plain, Iterable) and not isinstance(plain, str | bytes)
    return [v.item() if isinstance(v, np.generic) else v for v in plain] if many else [plain]


_POSITIVE = ("lr", "clip", "decay_steps", "window")
_FRACTION = ("momentum", "decay_rate")


def _check_hyper(name: str, value: Any) -> None:
    def must(right: str) -> ConfigError:
        return ConfigError(f"{name} is {value!r}; it must be {right}.")

    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise must("a number")
    if isinstance(value, int) and abs(value) >= 2**127:
        raise must("below 2¹²⁷ in size")
    if math.isnan(value) or (math.isinf(value) and name != "clip"):
        raise must("finite")
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    if math.isfinite(value) and value and not least <= abs(value) <= most:
        raise must(f"0 or between {least:.2g} and {most:.2g} in size, as 32-bit floats are")
    if name in ("seed", "window") and (value != int(value) or not 0 <= value < 2**31):
        raise must(f"a whole number of at least {0 if name == 'seed' else 1}, below 2³¹")
    if name in _POSITIVE and value <= 0:
        raise must("greater than 0")
    if name in _FRACTION and not 0 <= value <= 1:
        raise must("between 0 and 1")
    if name == "longest" and value <= 2:
        raise must("more than 2 steps")
    if name in ("gain", "input_gain", "weight_decay", "warmup") and value < 0:
        raise must("at least 0")


class Looking(NamedTuple):
    """What an experiment's probes are and look at: `Experiment.probes` and the fields after it, hashable."""

    probes: tuple[ProbeName, ...]
    diagnostic: int
    diagnostic_from: Split
    modes: int


@dataclass(frozen=True)
class Experiment:
    """Specs × hypers, and how long: what a run directory holds the result of. Run r = spec index · len(hypers) + i."""

    name: str
    specs: tuple[Spec, ...]
    hypers: Hypers
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
        validate(self)

    @property
    def looking(self) -> Looking:
        """What decides the probes' code."""
        return Looking(self.probes, self.diagnostic, self.diagnostic_from, self.modes)

    def describe(self) -> dict[str, Any]:
        """As JSON: two experiments are the same if and only if this is. Infinity is written as a string."""
        hypers = {
            f.name: [_plain(v) for v in np.asarray(getattr(self.hypers, f.name)).tolist()]
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
    """The inverse of `Experiment.describe`."""
    specs = tuple(Spec(**{**s, "hidden": tuple(s["hidden"])}) for s in described["specs"])
    hypers = Hypers(
        **{k: np.asarray([float(x) if isinstance(x, str) else x for x in v]) for k, v in described["hypers"].items()}
    )
    tuples = {"specs": specs, "probes": tuple(described["probes"])}
    return Experiment(**{**described, **tuples, "hypers": hypers})


def _plain(value: float) -> float | str:
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def validate(experiment: Experiment) -> None:
    """Raises ConfigError, in one sentence, for the first field that cannot be right."""
    if not experiment.specs:
        raise ConfigError("specs is empty; an experiment needs at least one Spec.")
    for spec in experiment.specs:
        _check_spec(spec)
    first = experiment.specs[0]
    for spec in experiment.specs[1:]:
        for name in ("task", "steps", "training_set"):
            if getattr(spec, name) != getattr(first, name):
                raise ConfigError(
                    f"{name} is {getattr(spec, name)!r} in one spec and {getattr(first, name)!r} in another; "
                    "the specs of one experiment share it."
                )
        if len(spec.hidden) != len(first.hidden):
            raise ConfigError(f"hidden is {spec.hidden} in one spec and {first.hidden} in another; depths must agree.")
    if len({s.label for s in experiment.specs}) < len(experiment.specs):
        raise ConfigError(
            f"specs have the labels {[s.label for s in experiment.specs]}; they must differ in cell or activation."
        )
    for f in dataclasses.fields(Hypers):
        column = np.asarray(getattr(experiment.hypers, f.name))
        if column.shape != (len(experiment.hypers),) or np.ndim(experiment.hypers.seed) != 1:
            raise ConfigError(f"hypers.{f.name} has the shape {column.shape}; give one value a run, as grid() does.")
        for value in column:
            _check_hyper(f.name, value)
    try:
        json.dumps(experiment.settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings is {experiment.settings!r}; it must be JSON ({error}).") from None
    for name in ("updates", "chunk", "probe_every", "tile", "diagnostic", "modes"):
        _whole(name, getattr(experiment, name))
    _check_probes(experiment)
    for name, unit in (("updates", "chunk"), ("probe_every", "chunk")):
        value, divisor = getattr(experiment, name), getattr(experiment, unit)
        if value % divisor:
            raise ConfigError(f"{name} is {value}; it must be a multiple of {unit}, {divisor}.")
    if experiment.updates % experiment.probe_every:
        raise ConfigError(
            f"updates is {experiment.updates}; it must be a multiple of probe_every, {experiment.probe_every}."
        )


def _check_probes(experiment: Experiment) -> None:
    names, split = get_args(ProbeName), experiment.diagnostic_from
    if not isinstance(experiment.probes, tuple) or any(name not in names for name in experiment.probes):
        raise ConfigError(f"probes is {experiment.probes!r}; it must be a tuple of names among {', '.join(names)}.")
    if len(set(experiment.probes)) < len(experiment.probes):
        raise ConfigError(f"probes is {experiment.probes!r}; each may be named once.")
    if split not in get_args(Split):
        raise ConfigError(f"diagnostic_from is {split!r}; it must be one of {', '.join(get_args(Split))}.")
    first = experiment.specs[0]
    if split == "train" and first.task != "text" and not first.training_set:
        raise ConfigError("diagnostic_from is 'train' and training_set is 0; fresh sequences are no set to look at.")
    if split == "train" and first.training_set and experiment.diagnostic > first.training_set:
        raise ConfigError(
            f"diagnostic is {experiment.diagnostic}; it must be at most training_set, {first.training_set}."
        )


def _check_spec(spec: Spec) -> None:
    for name, literal in (
        ("task", TaskName),
        ("cell", CellName),
        ("activation", Activation),
        ("w_init", InitName),
        ("u_init", InitName),
        ("optimizer", Optimizer),
        ("schedule", Schedule),
        ("clip", Clip),
        ("readout", Readout),
    ):
        if getattr(spec, name) not in get_args(literal):
            raise ConfigError(f"{name} is {getattr(spec, name)!r}; it must be one of {', '.join(get_args(literal))}.")
    for name in ("steps", "batch", "holdout"):
        _whole(name, getattr(spec, name))
    if spec.training_set != 0 or isinstance(spec.training_set, bool):
        _whole("training_set", spec.training_set)
        if spec.training_set % spec.batch:
            raise ConfigError(f"training_set is {spec.training_set}; it must be a multiple of batch, {spec.batch}.")
        if spec.task == "text":
            raise ConfigError(f"training_set is {spec.training_set} for the task 'text'; a data set brings its own.")
    if spec.steps < 2:
        raise ConfigError(f"steps is {spec.steps}; a sequence needs at least 2.")
    for name in ("chrono", "truncate"):
        if not isinstance(getattr(spec, name), bool):
            raise ConfigError(f"{name} is {getattr(spec, name)!r}; it must be True or False.")
    if not isinstance(spec.hidden, tuple):
        raise ConfigError(f"hidden is {spec.hidden!r}; it must be a tuple of widths, one per layer.")
    if not spec.hidden:
        raise ConfigError("hidden is empty; give one width per layer.")
    for width in spec.hidden:
        _whole("hidden", width)
    if spec.chrono and spec.cell == "rnn":
        raise ConfigError("chrono is True for an rnn; it sets the biases of gates, so choose lstm or gru.")
    for name in ("vocabulary", "embedding"):
        if getattr(spec, name) != 0 or isinstance(getattr(spec, name), bool):
            _whole(name, getattr(spec, name))
    if (spec.vocabulary > 0) != (spec.task == "text") or (spec.embedding > 0) != (spec.task == "text"):
        raise ConfigError(
            f"vocabulary is {spec.vocabulary} and embedding is {spec.embedding} for the task '{spec.task}'; "
            "a text needs both above 0, other tasks neither."
        )


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1.")
