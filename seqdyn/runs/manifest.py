"""`manifest.json`: what a run directory holds the result of, and on what it was made.

It is the only thing that decides whether a command may go on in a directory: the experiment it describes must be the
same, except that `updates` may grow.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from seqdyn.learn.config import Experiment, experiment_from
from seqdyn.runs.sweep import width
from seqdyn.types import ConfigError

FORMAT = 2
NAME = "manifest.json"
_OURS = (f".{NAME}.", ".lock")
"""What a process that was killed while it made the directory may leave."""


def claim(out: Path, experiment: Experiment, config: dict[str, Any]) -> dict[str, Any]:
    """The manifest of `out`, written if the directory is new.

    Raises ConfigError, naming the first difference, if the directory holds another experiment, and if it holds
    something else than a run; nothing in it changes then.
    """
    wanted = experiment.describe()
    if (out / NAME).exists():
        found = read(out)
        there = found["experiment"]
        difference = _difference(there | {"updates": 0}, wanted | {"updates": 0})
        if difference:
            name, old, new = difference
            raise ConfigError(
                f"{out} holds another experiment: {name} is {old} there and {new} here; choose another --out."
            )
        if there["updates"] > wanted["updates"]:
            raise ConfigError(
                f"{out} holds {there['updates']} updates and {wanted['updates']} were asked for; updates may only grow."
            )
        if there != wanted:
            found |= {"experiment": wanted, "config": config}
            write(out, found)
        now = surroundings(experiment)
        if any(found[name] != now[name] for name in ("versions", "backend", "width", "matmul_precision")):
            # Other code or hardware need not give the same bits: say so, keep what was, check the gradients anew.
            warnings.warn(f"{out} was begun on other versions or hardware: see resumed_on in {NAME}", stacklevel=3)
            if found["resumed_on"][-1:] != [now]:
                write(out, found | {"resumed_on": [*found["resumed_on"], now], "verified": {}})
        return read(out)
    if out.exists() and (not out.is_dir() or any(not p.name.startswith(_OURS) for p in out.iterdir())):
        raise ConfigError(f"{out} exists and is not a run directory; choose another --out or an empty directory.")
    out.mkdir(parents=True, exist_ok=True)
    fresh = {"format": FORMAT, "experiment": wanted, "config": config, "verified": {}, "resumed_on": []}
    write(out, fresh | surroundings(experiment))
    return read(out)


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Keeps other processes from training in `out`; the system lets go when this one ends, however it does.

    Raises RuntimeError if another process is at work there.
    """
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"another process trains in {out}; wait for it, or stop it.") from None
        yield


def surroundings(experiment: Experiment) -> dict[str, Any]:
    """Versions, backend and precision: what else a number can depend on."""
    packages = ("seqdyn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "zarr")
    return {
        "versions": {name: version(name) for name in packages},
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "width": width(experiment),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "git": _revision(),
    }


def read(out: str | Path) -> dict[str, Any]:
    """The manifest of a run directory; ConfigError if there is none or it cannot be read."""
    path = Path(out) / NAME
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{out} is not a run directory: it has no {NAME}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); it must be the JSON that the run wrote.") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError(f"{path} is not of format {FORMAT}; another version of seqdyn wrote it.")
    return found


def write(out: Path, manifest: dict[str, Any]) -> None:
    """Replaces the manifest in one step: a reader sees the old one or the new one."""
    partial = out / f".{NAME}.{os.getpid()}"
    partial.write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    partial.replace(out / NAME)


def experiment(out: str | Path) -> Experiment:
    """The experiment a run directory holds."""
    return experiment_from(read(out)["experiment"])


def _difference(there: Any, here: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two JSON values differ: (dotted name, there, here)."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(k for k in there if k not in here)]:
            found = _difference(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (a, b) in enumerate(zip(there, here, strict=True)):
            found = _difference(a, b, f"{name}[{i}]")
            if found:
                return found
        return None
    return None if there == here else (name, there, here)


def _revision() -> str | None:
    """The git revision of the code, with '+' if it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        show = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        return subprocess.run(show, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
