"""The records of a directory and of those that extend it as one data set, as lazy as each of them.

What extends a directory has some of its specs, all of its settings and other numbers: its axes are part of those of the
directory, whose labels hold. Where it has none there is nothing, as for a spec that an experiment has beside others.
"""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from seqdyn.layout import Layout

_COUNTED = {"step": "updates", "probe": "probes"}


class Part(NamedTuple):
    """One directory's."""

    layout: Layout
    records: xr.Dataset | None
    """Without padding; None where it has only begun."""
    labels: dict[str, list[Any]]
    """Of its axes but for run, step, probe and time."""


def stacked(parts: list[Part]) -> tuple[xr.Dataset, dict[str, list[Any]]]:
    """(the records of all, the runs of one after those of the other; the values of the axes)."""
    labels, first = {dim: of for part in reversed(parts) for dim, of in part.labels.items()}, parts[0].layout
    wanted = {dim: [str(label) for label in values] for dim, values in labels.items()}
    wanted["time"] = [str(first.steps - t) for t in first.times]
    wanted |= {dim: [*range(max(getattr(part.layout, of) for part in parts))] for dim, of in _COUNTED.items()}
    wanted["run"] = [*range(sum(sum(part.layout.counts) for part in parts))]
    found: dict[str, list[_Source]] = {}
    before, like = 0, {}
    for part in parts:
        runs = sum(part.layout.counts)
        there = {dim: [str(label) for label in values] for dim, values in part.labels.items()}
        there["time"] = [str(part.layout.steps - t) for t in part.layout.times]
        there |= {dim: [*range(getattr(part.layout, of))] for dim, of in _COUNTED.items()}
        there["run"] = [*range(before, before + runs)]
        before += runs
        for name, variable in (part.records.variables if part.records is not None else {}).items():
            places = [_places(wanted[str(dim)], there[str(dim)]) for dim in variable.dims]
            found.setdefault(str(name), []).append(_Source(variable, places))
            like.setdefault(str(name), variable)
    arrays = {
        name: (of.dims, indexing.LazilyIndexedArray(_Stacked(found[name], tuple(len(wanted[str(d)]) for d in of.dims))))
        for name, of in like.items()
    }
    variables = {name: xr.Variable(*array, attrs=like[name].attrs) for name, array in arrays.items()}
    return xr.Dataset(variables), labels


class _Source(NamedTuple):
    variable: xr.Variable
    places: list[np.ndarray]
    """Of each axis: where in the variable each label is, −1 where it is not."""


def _places(wanted: list[Any], there: list[Any]) -> np.ndarray:
    at = {label: i for i, label in enumerate(there)}
    return np.asarray([at.get(label, -1) for label in wanted], int)


class _Stacked(BackendArray):
    """An array of what its sources have, and of nothing elsewhere."""

    def __init__(self, sources: list[_Source], shape: tuple[int, ...]) -> None:
        self.sources, self.shape, self.dtype = sources, shape, sources[0].variable.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        wanted = [np.arange(size)[of] for size, of in zip(self.shape, key, strict=True)]
        empty = False if self.dtype.kind == "b" else np.nan
        found = np.full([of.size for of in wanted], empty, self.dtype)
        for variable, places in self.sources:
            here = [np.atleast_1d(at[of]) for at, of in zip(places, wanted, strict=True)]
            there = [np.flatnonzero(of >= 0) for of in here]
            if all(map(len, there)):
                inside = tuple(_cut(of[some]) for of, some in zip(here, there, strict=True))
                found[np.ix_(*there)] = variable[inside].values
        return found.reshape([n for of in wanted for n in of.shape])


def _cut(at: np.ndarray) -> Any:
    """A slice where these are one after the other, which is read faster."""
    return slice(at[0], at[-1] + 1) if np.array_equal(at, np.arange(at[0], at[0] + len(at))) else at
