"""Where the runs of an experiment lie in its directory: a function of the manifest's JSON alone.

Neither the experiment's code nor its validity is needed to find and read what was recorded: a directory stays readable
when a class of its parts is gone, or when a later version refuses such an experiment.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Tile(NamedTuple):
    """Runs of one spec that share a program, a device, a checkpoint and a chunk of the record store."""

    index: int
    """Position in the experiment; rows index · size … of the record store are this tile's."""
    spec: int
    """Index into `Experiment.specs`."""
    runs: tuple[int, ...]
    """Indices into the points of `Experiment.runs`; at most `Experiment.tile`, the rest of the tile is padding."""


class Layout(NamedTuple):
    """The sizes of an experiment's records and checkpoints."""

    counts: tuple[int, ...]
    """Runs of each spec; run numbers count through them."""
    tile: int
    """Runs in a tile."""
    updates: int
    chunk: int
    """Updates in a chunk of the records on disk."""
    probe_every: int
    """Updates from one probe to the next; the first is before the first update."""
    steps: int
    """T of the longest sequences."""
    lags: tuple[int, ...] | None = None
    """T − t of the steps that are recorded, 0 first; None: of all."""

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The runs cut into tiles, each of one spec: never a function of the devices present."""
        cuts = [
            (spec, tuple(range(first, min(first + self.tile, count))))
            for spec, count in enumerate(self.counts)
            for first in range(0, count, self.tile)
        ]
        return tuple(Tile(index, spec, runs) for index, (spec, runs) in enumerate(cuts))

    def place(self, run: int) -> tuple[int, int]:
        """(the spec of run number `run`, which of its runs it is)"""
        spec = next(i for i in range(len(self.counts)) if run < sum(self.counts[: i + 1]))
        return spec, run - sum(self.counts[:spec])

    def holding(self, spec: int, point: int) -> tuple[Tile, int]:
        """(the tile that holds run `point` of a spec, which of its rows it is)"""
        tile = next(tile for tile in self.tiles if tile.spec == spec and point in tile.runs)
        return tile, tile.runs.index(point)

    def numbers(self, tile: Tile) -> slice:
        """The numbers of a tile's runs."""
        first = sum(len(other.runs) for other in self.tiles[: tile.index])
        return slice(first, first + len(tile.runs))

    @property
    def rows(self) -> int:
        """Of the record store: those of padding included."""
        return len(self.tiles) * self.tile

    @property
    def times(self) -> list[int]:
        """Of T steps those that are recorded, the last of them T − 1."""
        return [self.steps - 1 - lag for lag in self.lags or range(self.steps)][::-1]

    def thinned(self, values: Any, dims: Sequence[str]) -> Any:
        """Of an array with these dims the steps that are recorded, where `time` is one of them."""
        if self.lags is None or "time" not in dims or not values.ndim:
            return values
        return values.take(self.times, axis=list(dims).index("time"))

    @property
    def probes(self) -> int:
        """How many probes there are in all."""
        return self.updates // self.probe_every + 1


def numbers_of(described: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The columns of `Numbers` of each spec: a manifest has them once if all specs share them."""
    numbers = described["hypers"]  # as they were once called
    return [numbers] * len(described["specs"]) if isinstance(numbers, dict) else numbers


def layout(described: Mapping[str, Any]) -> Layout:
    """Of what `Experiment.describe` gives and a manifest holds."""
    return Layout(
        counts=tuple(len(numbers["seed"]) for numbers in numbers_of(described)),
        tile=described["tile"],
        updates=described["updates"],
        chunk=described["chunk"],
        probe_every=described["probe_every"],
        steps=(steps := max(spec["steps"] for spec in described["specs"])),
        lags=_lags(described.get("lags"), steps),
    )


def _lags(given: Any, steps: int) -> tuple[int, ...] | None:
    """Those of `Experiment.lags` that sequences of so many steps have, 0 among them."""
    if given == "log":
        given = {round(10 ** (n / 20)) for n in range(20 * len(str(steps)))} | {steps - 1}
    return None if given is None else tuple(sorted({0} | {lag for lag in given if lag < steps}))
