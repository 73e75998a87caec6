"""`manifest.json`: what a run directory holds the result of, and on what it was made.

It is the only thing that decides whether a command may go on in a directory: the experiment it describes must be the
same, except that `updates` may grow, and so must be what decides the data that are drawn, and the versions of seqdyn
and jax, unless the command allows others. What only decides the last bits is noted, with a warning. What an older
manifest does not say is not known, and nothing is held against it. It carries a digest of itself.
"""

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from seqdyn.data import tasks
from seqdyn.described import difference
from seqdyn.files import in_one_step
from seqdyn.layout import layout, numbers_of
from seqdyn.learn.config import Experiment, experiment_from
from seqdyn.runs.environment import environment
from seqdyn.runs.lock import GATE, gate
from seqdyn.types import ConfigError, as_path, whole

FORMAT = 3
NAME = "manifest.json"
BITS = ("seqdyn", "jax", "jaxlib")
"""Packages whose other version need not give the same bits."""
_MORE = "more-"
_OURS = (f".{NAME}.", GATE, "slurm.json", ".slurm.json.")
"""What there may be before the manifest: what a process that was killed while it made the directory leaves, and what is
known of jobs that have yet to begin."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOENT)
"""What a path is to blame for, where no directory can be made; not a disk that is full."""


def open_run(
    out: Path,
    experiment: Experiment,
    config: dict[str, Any],
    allow_version_drift: bool = False,
    init: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of `out`, written if the directory is new. `init` says what its runs start from: a digest of the
    parameters, and their parents.

    Raises ConfigError, naming the first difference, if the directory holds another experiment, began from other
    parameters than those of `init` or (but for `allow_version_drift`, which is noted) was made by another seqdyn or
    jax, if it holds something else than a run, and if no directory can be made there; nothing in it changes then.
    """
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"config is {config!r:.80}; it must be what JSON can say ({error}).") from None
    make_place(out)
    with gate(out):
        return _open_run(out, experiment, config, allow_version_drift, init)


def withdraw(out: Path) -> None:
    """Takes back what `open_run` has written of a new directory, in which nothing was trained."""
    (out / NAME).unlink(missing_ok=True)


def make_place(out: Path) -> None:
    """Makes the directory if it is not there; ConfigError as `check_place`, and if none can be made or written in."""
    check_place(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        open(out / GATE, "ab").close()
    except OSError as error:
        if os.path.exists(out / NAME) or error.errno not in _REFUSED:
            raise
        raise ConfigError(f"{out} cannot be a run directory ({error.strerror}); choose another --out.") from None


def check_place(out: Path) -> None:
    """ConfigError if there is something else than a run in `out`, or no directory can be there."""
    above = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not above.is_dir() and (above != out or not out.exists()):
        raise ConfigError(f"{out} cannot be a run directory, as {above} is none; choose another --out.")
    foreign = out.exists() and (not out.is_dir() or any(not p.name.startswith(_OURS) for p in out.iterdir()))
    if foreign and not (out / NAME).exists():  # looked at last: another process may be making the directory
        raise ConfigError(f"{out} exists and is not a run directory; choose another --out or an empty directory.")


def _open_run(
    out: Path, experiment: Experiment, config: dict[str, Any], allow_version_drift: bool, init: dict[str, Any] | None
) -> dict[str, Any]:
    wanted, now = experiment.describe(), environment(experiment)
    criteria = [tasks.own_criterion(spec) for spec in experiment.specs]
    learned = {"learned": criteria} if any(criteria) else {}
    if (out / NAME).exists():
        found = same(out, experiment, init)
        before = _last(found)
        drift = _drift(out, before, now, allow_version_drift)
        changed = found | ({"experiment": wanted, "config": config} if found["experiment"] != wanted else {}) | learned
        noted = now | ({"allowed_version_drift": drift} if drift else {})
        other = _others(before, now)
        if other:
            # Other code or hardware need not give the same bits: say so, keep what was, check the gradients anew.
            warnings.warn(f"{_told(out, other)}: see resumed_on in {NAME}", stacklevel=4)
            changed |= {"resumed_on": [*found["resumed_on"], noted], "verified": {}}
        elif now.keys() - before.keys():
            changed |= {"resumed_on": [*found["resumed_on"], noted]}
        if changed != found:
            write(out, changed)
        return read(out)
    fresh = {"format": FORMAT, "experiment": wanted, "config": config, "verified": {}, "resumed_on": []}
    write(out, fresh | now | learned | ({} if init is None else {"init": init}))
    return read(out)


def same(out: Path, experiment: Experiment, init: dict[str, Any] | None = None) -> dict[str, Any]:
    """The manifest of a directory that is there. ConfigError, naming the first difference, if it holds another
    experiment, more updates, or one that began from other parameters."""
    found, wanted = read(out), experiment.describe()
    there = found["experiment"]
    different = difference(there | {"updates": 0}, wanted | {"updates": 0}, experiment)
    if different:
        name, old, new = different
        numbers = name.startswith("hypers") or name.endswith(".runs")
        added = "add runs to it by seqdyn.extend, or " if numbers and _has_more(there, wanted) else ""
        name = name.replace("hypers", "numbers", 1) if name.startswith("hypers") else name  # as users call them
        raise ConfigError(
            f"{out} holds another experiment: {name} is {_shown(old)} there and {_shown(new)} here; {added}choose "
            "another --out."
        )
    if there["updates"] > wanted["updates"]:
        raise ConfigError(
            f"{out} holds {there['updates']} updates and {wanted['updates']} were asked for; updates may only grow."
        )
    if init is not None:
        _same_start(out, found.get("init"), init)
    return found


def sealed(out: Path) -> str:
    """Why this process may not write in a run directory that is there; '' where it may."""
    if not (out / NAME).exists():
        return ""
    try:
        open(out / GATE, "ab").close()
        TemporaryFile(dir=out).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ""
    return ""


def _has_more(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Has an experiment more runs than there are, of specs that are as many?"""
    before, now = (layout(one).counts for one in (there, wanted))
    return len(before) == len(now) and before != now and all(a <= b for a, b in zip(before, now, strict=True))


def _shown(value: Any) -> str:
    """A value in a sentence: of a list that is long, or of specs, its length, which is what differs."""
    if isinstance(value, list) and (len(value) > 12 or any(isinstance(one, dict) for one in value)):
        return f"a list of {len(value)}"
    return str(value) or "''"


def going_on(out: Path, experiment: Experiment) -> Experiment:
    """The experiment with the chunks of the directory that it goes on in, where they were left to a rule: see there."""
    return experiment.going_on(read(out)["experiment"]) if (out / NAME).exists() else experiment


def _last(found: dict[str, Any]) -> dict[str, Any]:
    """What the directory was last worked on with."""
    return found["resumed_on"][-1] if found["resumed_on"] else found


def note(out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Writes `change` of the manifest, while no other process does."""
    with gate(out):
        write(out, change(read(out)))


def _same_start(out: Path, there: dict[str, Any] | None, here: dict[str, Any]) -> None:
    """Raises ConfigError if the runs began elsewhere."""
    if there is None:
        raise ConfigError(f"{out} began without init; leave it out, or choose another --out.")
    if there["sha256"] != here["sha256"]:
        raise ConfigError(
            f"{out} began from other parameters: the digest of init is {there['sha256'][:8]} there and "
            f"{here['sha256'][:8]} here; give the same or none, or choose another --out."
        )


def _same_draws(out: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises ConfigError if the same seeds would draw other data here."""
    if "lengths" in here and here["lengths"] != there.get("lengths"):
        raise ConfigError(
            f"{out} has lengths of sequences (shortest) that an older seqdyn drew, by a key that symbols had, too; now "
            "others are drawn, so choose another --out."
        )
    for name, old in there.items():
        if name in here and here[name] != old:
            raise ConfigError(
                f"{out} was made with {name} {old} and here it is {here[name]}, which draws other data; "
                f"set {name.upper()}={old}, or choose another --out."
            )


def _drift(out: Path, before: dict[str, Any], now: dict[str, Any], allowed: bool) -> list[str]:
    """The packages of `BITS` whose version is another; ConfigError for them if they are not allowed, and for what draws
    other data."""
    _same_draws(out, before.get("draws", {}), now["draws"])
    drift = [name for name in BITS if before["versions"].get(name) != now["versions"][name]]
    if drift and not allowed:
        old, new = before["versions"].get(drift[0]), now["versions"][drift[0]]
        raise ConfigError(
            f"{out} was made on {drift[0]} {old} and this is {new}, which need not give the same bits; "
            "go on with --allow-version-drift, or choose another --out."
        )
    return drift


def held_against(out: Path, experiment: Experiment, allow_version_drift: bool) -> None:
    """Is what is made here what would have been made when `out` was? Raises ConfigError as `open_run`, or warns."""
    before, now = _last(read(out)), environment(experiment)
    _drift(out, before, now, allow_version_drift)
    if other := _others(before, now):
        warnings.warn(_told(out, other), stacklevel=3)


def _told(out: Path, other: list[tuple[str, Any, Any]]) -> str:
    shown = ", ".join(f"{name} {old} → {new}" for name, old, new in other)
    return f"{out} was begun on other versions, hardware or code, which may have other bits ({shown})"


def _others(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Each fact that both know and that differs: (dotted name, there, here). The revision says nothing of bits."""
    found = [difference(there[name], here[name], name=name) for name in here if name in there and name != "git"]
    return [one for one in found if one]


def directory(path: Any) -> Path:
    """What was given as a run directory, ~ as the home; ConfigError for what is no path, or may not be looked into."""
    out = as_path("path", path, "a run directory")
    try:
        (out / NAME).exists()
    except OSError as error:
        raise ConfigError(f"path is {str(out)!r:.80}; it must be a run directory ({error.strerror}).") from None
    return out


def read(out: str | Path) -> dict[str, Any]:
    """The manifest of a run directory; ConfigError if there is none or it cannot be read."""
    path = directory(out) / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        inside = sorted(made.parent.name for made in path.parent.glob(f"*/{NAME}"))
        some = f"; in it are those named {', '.join(inside[:5])}{', …' * (len(inside) > 5)}" if inside else ""
        raise ConfigError(f"{out} is not a run directory: it has no {NAME}{some}.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); it must be the JSON that the run wrote."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); it must be the JSON that the run wrote.") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError(f"{path} is not of format {FORMAT}; another version of seqdyn wrote it, or it is damaged.")
    if found.pop("sha256", None) != _digest(found):
        raise ConfigError(f"{path} is damaged (its digest does not match); it must be the JSON that the run wrote.")
    return found


def more(out: Path, k: int) -> Path:
    """Where the runs lie that `out` was extended by, the k-th time, 1 the first."""
    return out / f"{_MORE}{k}"


def directories(path: str | Path) -> list[Path]:
    """A run directory, and within it those that extend it, in the order in which their runs are counted. ConfigError
    where one of these is gone."""
    out = directory(path)
    there = [made.parent.name.removeprefix(_MORE) for made in out.glob(f"{_MORE}*/{NAME}")]
    found = sorted(int(k) for k in there if k.isdecimal())
    if found != [*range(1, len(found) + 1)]:
        raise ConfigError(f"{out} has {_MORE}{found[-1]} and not all before it, whose runs are counted first.")
    return [out, *(more(out, k) for k in found)]


def described(path: str | Path) -> dict[str, Any]:
    """The experiment of a run directory as JSON, after its specs and numbers those of what extends it: those of all its
    runs, in their order. `learned` has what users' tasks say of when they are, a value or None for each spec."""
    found = [read(one) for one in directories(path)]
    all_of = [one["experiment"] for one in found]
    learned = [one for of in found for one in of.get("learned") or [None] * len(of["experiment"]["specs"])]
    whole = all_of[0] | {"learned": learned}
    if len(found) == 1:
        return whole
    specs = [spec for of in all_of for spec in of["specs"]]
    return whole | {"specs": specs, "hypers": [numbers for of in all_of for numbers in numbers_of(of)]}


def extends(out: Path) -> bool:
    """Is it a directory within another, which it extends?"""
    inside = out.absolute()
    numbered = inside.name.startswith(_MORE) and inside.name.removeprefix(_MORE).isdecimal()
    return numbered and (inside.parent / NAME).exists()


def first_run(out: Path) -> int:
    """The number of its first run: where it extends another directory, after all runs before; else 0."""
    if not extends(out):
        return 0
    before = int(out.absolute().name.removeprefix(_MORE))
    return sum(sum(layout(read(one)["experiment"]).counts) for one in directories(out.absolute().parent)[:before])


def holding(path: str | Path, run: Any) -> tuple[Path, int]:
    """(the directory that holds run number `run` of a run directory: itself, or one that extends it; which run it is
    there). ConfigError with the runs that there are."""
    number = there = whole("run", run, 0)
    last = -1
    for one in directories(path):
        count = sum(layout(read(one)["experiment"]).counts)
        if there < count:
            return one, there
        there, last = there - count, last + count
    raise ConfigError(f"run is {number}; {path} holds runs 0 to {last}.")


def write(out: Path, manifest: dict[str, Any]) -> None:
    """Replaces the manifest in one step: a reader sees the old one or the new one."""
    text = json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1, allow_nan=False) + "\n"
    with in_one_step(out / NAME) as partial:
        partial.write_text(text, encoding="utf-8")


def _digest(manifest: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(manifest))  # a tuple is written as a list
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def experiment(out: str | Path) -> Experiment:
    """The experiment a run directory holds."""
    return experiment_from(read(out)["experiment"])
