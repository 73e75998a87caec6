"""What an experiment is: `Spec`s, `grid` crosses their numbers, and how long all of it trains."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from seqdyn import grids, parts
from seqdyn.building import called, check_alone
from seqdyn.data.arrays import array, plain_json
from seqdyn.described import rebuilt
from seqdyn.layout import Layout, layout, numbers_of
from seqdyn.learn import probe_config
from seqdyn.learn.fitted import unheard, unheeded
from seqdyn.learn.own_cells import own
from seqdyn.learn.probe_config import ProbeConfig, ProbeName, Split
from seqdyn.learn.spec import Spec, is_grid, share_numbers, unnumbered
from seqdyn.learn.validate import validate
from seqdyn.nets.levels import Dense
from seqdyn.numbers import FIELDS, Numbers
from seqdyn.parts import Part
from seqdyn.types import ConfigError, whole


def grid(*given: Any, **axes: Any) -> Any:
    """All combinations of the named values, as one axis of runs; seeds vary fastest.

    >>> len(grid(Spec(), seeds=3, gain=[0.5, 1.0], clip=[1.0, math.inf], lr=1e-3))
    12

    With a spec it returns that spec, its numbers [r]. An axis is one of its `numbers` or a number of its parts, by its
    name or the end of its path, as 'layers[0].tau'. Without a spec it returns `Numbers`, which fit any spec of words.
    `seeds` is how many, from 0 on, or which.

    What decides code (`Spec.steps`, say) is no axis: an experiment takes a grid for each of its values. Raises
    ConfigError for a name that is no number here, or several; for an axis without values; for values out of range.
    """
    of = given[0] if given and isinstance(given[0], Spec) else None
    seeds = given[0 if of is None else 1 :] or (axes.pop("seeds", 1),)
    axes = {name: [*values] if isinstance(values, Iterator) else values for name, values in axes.items()}  # read twice
    if len(seeds) > 1 or "seeds" in axes:
        raise TypeError("grid takes a spec and seeds, each once; axes by their names")
    swept = {path.rpartition(".")[2] for path in grids.numbers(Spec() if of is None else of)}
    for name, part in grids.absent(of).items():
        if name in axes and name not in swept:
            raise ConfigError(
                f"{name} is None in {part}, and a number is another program; give it one in the spec, "
                f"{part}(…, {name}=…), and cross it from there."
            )
    for name in (f.name for f in dataclasses.fields(Spec) if f.name in axes and f.name not in swept):
        raise ConfigError(
            f"{name} decides code, which no grid crosses; give the experiment a grid for each of {axes[name]!r:.60}, "
            f"tuple(grid(Spec(…, {name}=one), …) for one in …)."
        )
    if of is None:
        return grids.grid(Numbers(), *seeds, **axes)
    nobody = unheeded(of)  # an axis does not mean what nobody heeds
    heeded = of.having(**dict.fromkeys(nobody))
    for name, values in axes.items():
        if len({*map(str, values := parts.listed(values))}) > 1 and (missing := unheard(heeded, name)):
            raise ConfigError(
                f"{name} is {values!r:.60}, and no run of {of.label} would differ by it; it must have {missing}."
            )
    swept: Spec = grids.grid(heeded, *seeds, **axes)
    return swept.having(**{name: np.full(len(swept), getattr(of.numbers, name)) for name in nobody})


def _told_apart(specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
    """Specs that would have the same label named by the fields in which they differ: 'lstm, steps 50'."""
    found = list(specs)
    if not all(isinstance(spec.cell, str) for spec in specs):
        return specs  # to be refused
    fields = [f.name for f in dataclasses.fields(Spec) if f.name not in ("decided", "numbers")]
    for label in {spec.label for spec in specs}:
        alike = [i for i, spec in enumerate(specs) if spec.label == label and not spec.name]
        said = {name: [_said(getattr(specs[i], name)) for i in alike] for name in fields}
        apart = [name for name, values in said.items() if len({*values}) > 1]
        for n, i in enumerate(alike if apart else ()):
            name = ", ".join([label, *(f"{field} {said[field][n]}" for field in apart)])
            found[i] = dataclasses.replace(specs[i], name=name)
    return tuple(found)


def _said(value: Any) -> str:
    """A spec's field in a label: parts by their classes, as their numbers are many."""
    if isinstance(value, tuple):
        return " + ".join(map(_said, value)) or "none"
    return called(value) if parts.is_part(value) else str(value)


def _columns(numbers: Numbers) -> Numbers:
    """As arrays, one value a run."""
    columns = {f.name: array(f"numbers.{f.name}", getattr(numbers, f.name), "numbers") for f in FIELDS}
    for name, column in columns.items():
        if column.shape != (len(numbers),):
            raise ConfigError(f"numbers.{name} has the shape {column.shape}; give one value a run, as grid() does.")
    return Numbers(**columns)


def _crossed(spec: Spec, numbers: Numbers) -> Spec:
    """A spec at all points of a grid; its own numbers are those that the grid leaves at their defaults."""
    columns = {}
    for f in FIELDS:
        own, column = getattr(spec.numbers, f.name), getattr(numbers, f.name)
        there = {*column.tolist()}
        if np.ndim(own) or (own != f.default and there not in ({own}, {f.default})):
            raise ConfigError(
                f"numbers.{f.name} is {own!r:.80} in a spec, and the experiment has other values of it; "
                f"give it once, as grid(spec, {f.name}=…) makes of it."
            )
        columns[f"numbers.{f.name}"] = column if own == f.default else np.full(len(column), own)
    return grids.spread(spec, len(numbers), columns)


def joined(*grids: Any) -> Any:
    """The points of several grids, one after the other: what is no product of axes."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *grids)


def _dense(spec: Any) -> bool:
    """Has it a level without a recurrence? Asked before it is known whether its levels can be built."""
    return spec.cell in ("dense", "dense_per_position") or any(isinstance(level, Dense) for level in spec.layers)


@dataclass(frozen=True)
class Experiment:
    """What a run directory holds the result of: specs × numbers, or the runs of grids, and how long they train.

    The runs of a spec follow each other, those of the first spec first. Data are no part of it, but are given to
    `seqdyn.run(experiment, out, data)`: a dict of splits, as `data.check.check` describes them. Raises ConfigError for
    the first field that cannot be right.
    """

    name: str
    specs: Any
    """One `Spec`, or several in a tuple or list; each runs at all points of `numbers`. Or one or several results of
    `grid(spec, …)`, each with its own axes. Read afterwards, it is a tuple of the specs of the first runs; those that
    share `numbers` have none of their own there. `runs[i].at(j)` is run j of spec i with all its numbers."""
    numbers: Numbers = None  # type: ignore[assignment]
    """What `grid(…)` makes without a spec, for every spec; a spec's own numbers stand in the places of those that are
    everywhere at their defaults there. None: those that each spec has. Read afterwards, it is None where specs differ
    in them, and beside what `grid(spec, …)` makes."""
    updates: int = 0
    chunk: int = None  # type: ignore[assignment]
    """Updates in one compiled call: a signal is obeyed at its end. None: as many as divide `updates` (and
    `probe_every`, where it is given), at most 100; where only few do 100, or a divisor of `probe_every`, or
    `probe_every` itself up to 1,000. The last call makes what is left."""
    probe_every: int = None  # type: ignore[assignment]
    """Updates between looks that cost more than a step: held-out error, spectral radius. A multiple of `chunk`; None:
    at most about 20 looks. The first is before training, the last at the end if `updates` is a multiple of this."""
    tile: int = 4
    """Runs in one program on one device: enough tiles for every core of a CPU, large ones for an accelerator."""
    probes: tuple[ProbeName | Part, ...] = None  # type: ignore[assignment]
    """Instruments of `seqdyn.measure`, and parts (see `probe_config`). Each looks at every run every `probe_every`
    updates; none changes a bit of the training. None: 'weights', or nothing if there are cells of one's own, which may
    have no U."""
    diagnostic: int = 8
    """Sequences of the fixed batch that they look at."""
    diagnostic_from: Split = "holdout"
    """Where that batch comes from: sequences that are never trained on, or (the first of) the training set."""
    modes: int = 8
    """Singular values and exponents that 'jacobians' and 'lyapunov' record, largest first. With all that a state has,
    H, or 2H of an LSTM, 'jacobians' is exact and knows the condition number, and costs far more."""
    lags: Any = None
    """Lags T − t that are recorded. None: all; 'log', for long sequences: about 20 a decade, and the largest; a list:
    these. Lag 0 is always among them."""
    keep: Any = None
    """Updates after which every run's state is kept for good, beside the newest two checkpoints. 'log': 0, 1, 2, 4, 8,
    …; n: 0, n, 2n, …; a list: these. None: no state."""
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    """What else defines the data (say, a vocabulary's settings): kept in the manifest and compared on resume."""
    runs: tuple[Spec, ...] = ()
    """The specs with their numbers [r], made here."""
    ruled: tuple[str, ...] = field(init=False, default=())
    """Which of chunk and probe_every were left to the rule."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.init and f.name not in ("numbers", "runs"):
                self._put(f.name, parts.plain(getattr(self, f.name)))
        self._put("specs", self.specs if isinstance(self.specs, tuple) else (self.specs,))
        self._put("probes", (self.probes,) if parts.is_part(self.probes) else self.probes)
        self._put("settings", plain_json(self.settings))
        for name in ("lags", "keep"):
            value = getattr(self, name)
            self._put(name, tuple(parts.listed(value)) if parts.is_many(value) else value)
        if self.numbers is None and self.runs and not any(isinstance(one, Spec) and is_grid(one) for one in self.specs):
            # From dataclasses.replace.
            if self.specs != tuple(one.at(0) for one in self.runs):
                raise ConfigError("specs is another beside the runs of a grid; give what grid(spec, …) makes of it.")
            self._put("specs", self.runs)
        self._check_types()
        self._put("specs", _told_apart(self.specs))
        if is_grid(self.specs[0]):
            runs = tuple(one.having(**vars(_columns(one.numbers))) for one in self.specs)
            self._put("specs", tuple(one.at(0) for one in runs))
        else:
            numbers = _columns(grid() if self.numbers is None else self.numbers)
            runs = tuple(_crossed(spec, numbers) for spec in self.specs)
            alike = share_numbers(runs)
            self._put("numbers", runs[0].numbers if alike else None)
            pairs = zip(self.specs, runs, strict=True)
            self._put("specs", tuple(unnumbered(spec) if alike else one.at(0) for spec, one in pairs))
        self._put("runs", runs)
        check_alone((self.specs, self.probes))
        self._put("ruled", tuple(name for name in ("chunk", "probe_every") if getattr(self, name) is None))
        self._rule()
        self._check()

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _rule(self) -> None:
        """What was left out."""
        updates = whole("updates", self.updates)
        if self.chunk is None and self.probe_every is None:
            even = _divisor(updates)
            self._put("chunk", even if 10 * even >= min(updates, 100) else 100)
        elif self.chunk is None:
            apart = whole("probe_every", self.probe_every)
            even, rough = _divisor(math.gcd(updates, apart)), _divisor(apart)
            rough = rough if 10 * rough >= min(apart, 100) or apart > 1000 else apart
            self._put("chunk", even if 10 * even >= min(rough, 100) else rough)
        if self.probe_every is None:
            calls = updates // whole("chunk", self.chunk) or 1
            apart = min(n for n in range(1, calls + 1) if calls % n == 0 and calls <= 20 * n)
            self._put("probe_every", self.chunk * (apart if calls < 10 or calls >= 10 * apart else -(-calls // 20)))
        if self.probes is None:
            known = not any(spec.network or own(spec) or _dense(spec) for spec in self.specs)
            self._put("probes", ("weights",) if known else ())

    def _check(self) -> None:
        grids = [(self.specs, self.numbers)]
        if self.numbers is None:
            grids = [((spec,), runs.numbers) for spec, runs in zip(self.specs, self.runs, strict=True)]
        validate(self.specs, grids)
        try:
            json.dumps(self.settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"settings is {self.settings!r}; it must be JSON ({error}).") from None
        for name in ("updates", "chunk", "probe_every", "tile", "diagnostic", "modes"):
            whole(name, getattr(self, name))
        self._check_keep()
        if not isinstance(self.lags, tuple) and self.lags not in (None, "log"):
            raise ConfigError(f"lags is {self.lags!r:.80}; it must be None, 'log' or a list of lags.")
        for i, lag in enumerate(self.lags if isinstance(self.lags, tuple) else ()):
            whole(f"lags[{i}]", lag, 0)
        probe_config.check(self.probe_config, self.specs)
        if self.chunk > self.updates:
            raise ConfigError(f"chunk is {self.chunk}; it must be at most updates, {self.updates}.")
        if self.probe_every % self.chunk:
            raise ConfigError(f"probe_every is {self.probe_every}; it must be a multiple of chunk, {self.chunk}.")
        if self.probe_every > self.updates:
            raise ConfigError(f"probe_every is {self.probe_every}; it must be at most updates, {self.updates}.")

    def _check_keep(self) -> None:
        keep = self.keep
        if isinstance(keep, tuple) and keep:
            keep = tuple(sorted({whole(f"keep[{i}]", one, 0) for i, one in enumerate(keep)}))
            if keep[-1] > self.updates:
                raise ConfigError(f"keep has {keep[-1]}; it must be updates of the experiment, 0 to {self.updates}.")
        elif isinstance(keep, int) and not isinstance(keep, bool):
            whole("keep", keep)
        elif keep is not None and not (isinstance(keep, str) and keep == "log"):
            said = " ".join(repr(keep).split())
            raise ConfigError(f"keep is {said:.80}; it must be None, 'log', a list of updates, or a whole number.")
        self._put("keep", keep)

    def _check_types(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"name is {self.name!r}; it must be a string.")
        if not self.specs:
            raise ConfigError("specs is empty; an experiment needs at least one Spec.")
        odd = [one for one in self.specs if not isinstance(one, Spec)]
        if odd:
            raise ConfigError(f"specs has {odd[0]!r:.80}; it must be a Spec, or a tuple of them.")
        grids = [one for one in self.specs if is_grid(one)]
        if grids and len(grids) < len(self.specs):
            raise ConfigError("specs has what grid(spec, …) makes beside a Spec; make a grid of each.")
        if grids and self.numbers is not None:
            raise ConfigError(
                f"numbers is {self.numbers!r:.40} beside what grid(spec, …) makes, which has its own; leave it out, "
                "and give what follows it by name."
            )
        if not isinstance(self.numbers, Numbers | None):
            raise ConfigError(f"numbers is {self.numbers!r:.80}; it must be what grid() returns.")
        if not isinstance(self.settings, dict):
            raise ConfigError(f"settings is {self.settings!r:.80}; it must be a dict of what JSON can hold.")

    def going_on(self, described: dict[str, Any]) -> "Experiment":
        """The same with the chunk and probe_every of a directory that holds it, where they were left to the rule."""
        kept = {name: described[name] for name in self.ruled}
        return dataclasses.replace(self, **kept) if max(kept.values(), default=0) <= self.updates else self

    @property
    def layout(self) -> Layout:
        """Which runs share a tile, and how long the records are."""
        return layout(self.describe())

    @property
    def probe_config(self) -> ProbeConfig:
        """What decides the probes' code."""
        return ProbeConfig(self.probes, self.diagnostic, self.diagnostic_from, self.modes)

    def describe(self) -> dict[str, Any]:
        """As JSON: two experiments are the same if and only if this is. Infinity is written as a string."""
        numbers = [
            {f.name: [_finite(v) for v in np.asarray(getattr(one.numbers, f.name)).tolist()] for f in FIELDS}
            for one in self.runs
        ]
        return {
            "name": self.name,
            "specs": [_described(one) for one in self.runs],
            "hypers": numbers if self.numbers is None else numbers[0],
            "updates": self.updates,
            "chunk": self.chunk,
            "probe_every": self.probe_every,
            "tile": self.tile,
            "probes": parts.describe(self.probes),
            "diagnostic": self.diagnostic,
            "diagnostic_from": self.diagnostic_from,
            "modes": self.modes,
            **{name: parts.describe(value) for name in ("keep", "lags") if (value := getattr(self, name)) is not None},
            "settings": json.loads(json.dumps(self.settings)),
        }


def _divisor(number: int) -> int:
    """The largest up to 100."""
    return max(n for n in range(1, 101) if number % n == 0)


LATER = ("layers", "network", "records", "loss", "targets", "dtype", "segment")
"""What a spec does not say: fields that came later, at their defaults."""


def _described(spec: Spec) -> dict[str, Any]:
    """Without what a spec of words does not have: its JSON is that of before there were parts. What parts decide comes
    last, so that a difference is told of the part."""
    fields = sorted(dataclasses.fields(spec), key=lambda f: f.name in dict(spec.decided))
    found = {f.name: parts.describe(getattr(spec, f.name)) for f in fields}
    default = {f.name: parts.describe(f.default) for f in fields}
    return {
        name: value
        for name, value in found.items()
        if name not in ("decided", "numbers") and (name not in LATER or value != default[name])
    }


def experiment_from(described: dict[str, Any]) -> Experiment:
    """The inverse of `Experiment.describe`, for reading: nothing is refused, and what is not said had its default.

    Raises ConfigError for parts that this process does not hold.
    """
    specs = [Spec(**{k: rebuilt(v) for k, v in _known(Spec, spec).items()}) for spec in described["specs"]]
    numbers = [_numbers(one) for one in numbers_of(described)]
    found = _known(Experiment, described) | {"numbers": numbers[0] if isinstance(described["hypers"], dict) else None}
    found |= {name: rebuilt(described.get(name)) for name in ("probes", "keep", "lags")} | {"ruled": ()}
    found["runs"] = tuple(
        _repeated(spec, len(one)).having(**vars(one)) for spec, one in zip(specs, numbers, strict=True)
    )
    found["specs"] = tuple(unnumbered(one.at(0)) if found["numbers"] else one.at(0) for one in found["runs"])
    read = object.__new__(Experiment)  # not by __init__, which refuses
    for f in dataclasses.fields(Experiment):
        default = f.default_factory() if callable(f.default_factory) else f.default
        object.__setattr__(read, f.name, found.get(f.name, default))
    return read


def _repeated(spec: Spec, count: int) -> Spec:
    return grids.mapped(spec, lambda _, allowed, value: value if np.ndim(value) else np.full(count, value))


def _numbers(described: Mapping[str, Any]) -> Numbers:
    given = {k: np.asarray([float(x) if isinstance(x, str) else x for x in v]) for k, v in described.items()}
    runs = len(given["seed"])
    return Numbers(**{f.name: given.get(f.name, np.full(runs, f.default)) for f in FIELDS})


def _known(cls: Any, described: dict[str, Any]) -> dict[str, Any]:
    """What the fields of a class are said to be."""
    return {f.name: described[f.name] for f in dataclasses.fields(cls) if f.name in described}


def _finite(value: float) -> float | str:
    return str(value) if isinstance(value, float) and math.isinf(value) else value
