"""What scripts share that measure once, without runs: one JSON file of all numbers, beside its tables and figures."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from seqdyn import backend, files
from seqdyn.files import in_one_step
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Once:
    """The options of what is measured once."""

    out: Path | None = None
    """Directory of the numbers and the figure; by default runs/<name of the script>-<digest of the settings>."""
    smoke: bool = False
    """Tiny sizes: seconds, along the same path; options that differ from their default win over them."""


@dataclass(frozen=True, kw_only=True)
class Presets(Once):
    """Of what has a full setting, too."""

    paper: bool = False
    """The full setting, which takes far longer; options that differ from their default win over it."""


def place(name: str, config: Any) -> tuple[Path, dict[str, Any]]:
    """(the file, the settings of a config but for its place), in `config.out` or runs/<name>-<digest of the settings>.

    The folder is made. Raises ConfigError for a file that is there of other settings, or damaged, and for a setting
    that names no value, or one twice: its rows would count twice.
    """
    settings = json.loads(json.dumps(asdict(config) | {"out": None}))
    for setting, value in settings.items():
        if value == []:
            raise ConfigError(f"{setting} is empty; it must have one value or more.")
        twice = next((one for one in value if value.count(one) > 1), None) if isinstance(value, list) else None
        if twice is not None:
            raise ConfigError(f"{setting} has {twice!r} twice; it must name each value once.")
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    file = (config.out or Path("runs") / f"{name}-{digest}") / f"{name}.json"
    if file.exists() and _settings(file) != settings:
        raise ConfigError(f"{file} was measured with other settings; choose another --out.")
    make_folder(file.parent)
    return file, settings


def make_folder(folder: Path) -> None:
    """Makes it. Raises ConfigError, before hours of measuring, if nothing can be written there."""
    try:
        files.make_folder(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}); choose another --out.") from None


def _settings(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged ({error!r:.80}); remove it, or choose another --out.") from None


def check_memory(sizes: Mapping[str, Any], numbers: float) -> None:
    """Raises ConfigError for options whose arrays, of so many float64, this machine could not hold."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not 8 * numbers < there:
        said = ", ".join(f"{name} is {size}" for name, size in sizes.items())
        right = f"below the {there / 2**30:.3g} GiB of memory here"
        raise ConfigError(f"{said}: arrays of {8 * numbers / 2**30:.3g} GiB; they must be {right}.")


def once(name: str, config: Any, measured: Callable[[Any], dict[str, Any]]) -> Path:
    """The file, in its `place`, of what `measured` finds with a config in float64; measured if it is not there."""
    kept, settings = place(name, config)
    backend.start()
    if not kept.exists():
        with jax.enable_x64(True):
            keep(kept, {"config": settings} | measured(config))
    return kept


def keep(file: Path, found: dict[str, Any]) -> None:
    """Writes all that was measured, its settings under 'config', in one step: a torn file is never there."""
    with in_one_step(file) as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
