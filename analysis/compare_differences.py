"""What differs between run directories: a setting, a bit, and by how much, paired by seed. For `analysis.compare`."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import claims
from analysis.compare_sides import QUANTITIES, Read, Side, column
from seqdyn.described import difference
from seqdyn.learn.config import experiment_from
from seqdyn.runs import manifest
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

DECIDED = ("higher", "lower")
"""What a test says where its interval leaves out 0."""
_BESIDES = ("format", "experiment", "config", "verified", "resumed_on", "git", "records", "vocabulary", "learned")
"""What a manifest says that is no setting."""


def first_setting(one: str | Path, other: str | Path) -> tuple[str, Any, Any] | None:
    """The first setting in which two directories differ, (path, of one, of the other): of the experiment, but for its
    name, then of what the runs started from and were made on, last the updates; None if there is none."""
    here, there = manifest.read(one), manifest.read(other)
    described = [here["experiment"], there["experiment"]]
    with contextlib.suppress(ConfigError):  # with defaults filled in, where the code of both is at hand
        described = [experiment_from(of).describe() for of in described]
    besides = [{k: v for k, v in of.items() if k not in _BESIDES} for of in (here, there)]
    lengths = [{"updates": of["updates"]} for of in described]
    plain = [{k: v for k, v in of.items() if k not in ("name", "updates")} for of in described]
    found = (difference(a, b) for a, b in (plain, besides, lengths))
    return next((one for one in found if one), None)


def first_bits(one: Side, other: Side) -> tuple[int, str, int, int] | None:
    """(update, variable, run of one, run of the other) where two directories first differ in a bit; None if nowhere.

    Runs of one setting and seed are held against each other, in what both have recorded: a run that diverged in one
    alone differs in `finite`. An update n follows the look after n updates.
    """
    both_have = pairs(one, other)
    a, b = ([pair[i] for pair in both_have] for i in (0, 1))
    sides = [_labelled(side.ds.isel(run=runs)) for side, runs in ((one, a), (other, b))]
    names = [name for name in sides[0].data_vars if name in sides[1] and name != "recorded"]
    names = [name for name in names if sides[0][name].dims == sides[1][name].dims]
    names.sort(key=lambda name: (name != "loss", name != "grad_norm"))
    import xarray as xr  # takes two seconds

    made = np.minimum(*(side["recorded"].sum("step").values for side in sides))
    steps = min(side.sizes["step"] for side in sides)
    both = {name: xr.align(*(side[name] for side in sides), join="inner", exclude=["run"]) for name in names}
    chunk = min(one.ds.attrs["chunk"], other.ds.attrs["chunk"])
    for start in range(0, steps if both_have else 0, chunk):
        found: list[tuple[int, int, int, str]] = []
        for rank, name in enumerate(names):
            dim = both[name][0].dims[1]
            at = both[name][0][dim].values
            end = start + chunk + (dim == "probe" and start + chunk >= steps)  # the last look follows the last update
            where = np.flatnonzero((at >= start) & (at < end))
            if not len(where) or not both[name][0].size:  # no gate, say, in both
                continue
            x, y = (of.isel({dim: slice(where[0], where[-1] + 1)}).values for of in both[name])
            unlike = x.view(f"u{x.itemsize}") != y.view(f"u{y.itemsize}") if x.dtype == y.dtype else x != y
            unlike = (unlike & ~(np.isnan(x) | np.isnan(y))).reshape(*x.shape[:2], -1).any(axis=-1)
            unlike &= at[where] < made[:, None] + (dim == "probe")
            if unlike.any():
                place = int(np.flatnonzero(unlike.any(axis=0))[0])
                found.append((int(at[where][place]), dim != "probe", rank, f"{name} {int(unlike[:, place].argmax())}"))
        if found:
            update, _, _, said = min(found)
            name, pair = said.rsplit(" ", 1)
            return update, name, a[int(pair)], b[int(pair)]
    return None


def _labelled(ds: "xr.Dataset") -> "xr.Dataset":
    return ds.assign_coords(time=-ds["lag"].values, probe=ds["probe_step"].values).drop_vars(["lag", "probe_step"])


def pairs(one: Side, other: Side) -> list[tuple[int, int]]:
    """Runs of the same setting and seed, each of one once."""
    keys = [list(zip(side.settings, column(side.ds, "seed"), strict=True)) for side in (one, other)]
    first = {key: run for run, key in reversed(list(enumerate(keys[1])))}
    return [(run, first[key]) for run, key in enumerate(keys[0]) if key in first and keys[0].index(key) == run]


def tests(found: Read) -> list[dict[str, Any]]:
    """Each quantity of each directory against the first's, a row a shared setting: median of the differences paired by
    seed with its interval, and what it says. All intervals are right together with 95% (Bonferroni)."""
    first, rows = found.sides[0], []
    for other in found.sides[1:]:
        paired = pairs(first, other)
        for setting in dict.fromkeys(first.settings[i] for i, _ in paired):
            a, b = (np.asarray([pair[k] for pair in paired if first.settings[pair[0]] == setting]) for k in (0, 1))
            for name in (name for name in QUANTITIES if name in first.values and name in other.values):
                x, y = first.values[name][a], other.values[name][b]
                with np.errstate(invalid="ignore"):
                    change = np.where(x == y, 0.0, y - x)  # two that diverged are a tie
                change = change[~np.isnan(change)]
                if len(change):
                    rows.append({"directory": other.name, "setting": setting, "quantity": name, "change": change})
    level = 1 - claims.ERROR / max(len(rows), 1)
    for row in rows:
        low, high = claims.interval("median", row["change"], level)
        alike = not row["change"].any()
        higher, lower = DECIDED
        said = "equal in all" if alike else higher if low > 0 else lower if high < 0 else "undecided"
        row |= {"n": len(row["change"]), "median": float(np.median(row["change"])), "low": low, "high": high}
        row |= {"verdict": said}
    return rows
