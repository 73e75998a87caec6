"""What scripts share that measure once, without runs: one JSON file of all numbers, beside its tables and figures."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Once:
    """The options of what is measured once."""

    out: Path | None = None
    """Directory of the numbers and the figure; by default runs/<name of the script>-<digest of the settings>."""
    smoke: bool = False
    """Tiny sizes: seconds, along the same path; options that differ from their default win over them."""


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


def keep(file: Path, found: dict[str, Any]) -> None:
    """Writes all that was measured, its settings under 'config'."""
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
