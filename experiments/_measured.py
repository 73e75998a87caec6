"""What scripts share that measure once, without runs: one JSON file of all numbers, beside its tables and figures."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from seqdyn import backend
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

    The folder is made. Raises ConfigError for a file that is there of other settings.
    """
    settings = json.loads(json.dumps(asdict(config) | {"out": None}))
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    file = (config.out or Path("runs") / f"{name}-{digest}") / f"{name}.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["config"] != settings:
        raise ConfigError(f"{file} was measured with other settings; choose another --out.")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file, settings


def once(name: str, config: Any, measured: Callable[[Any], dict[str, Any]]) -> Path:
    """The file, in its `place`, of what `measured` finds with a config in float64; measured if it is not there."""
    kept, settings = place(name, config)
    backend.start()
    if not kept.exists():
        with jax.enable_x64(True):
            keep(kept, {"config": settings} | measured(config))
    return kept


def keep(file: Path, found: dict[str, Any]) -> None:
    """Writes all that was measured, its settings under 'config'."""
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
