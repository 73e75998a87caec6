"""Parameters that the runs of a directory start from: whether they fit, and `init.safetensors`, which keeps them.

Tiles that have not begun need them after a kill, when nobody gives them again.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seqdyn.io import parents, safetensors
from seqdyn.learn import start
from seqdyn.learn.config import Experiment
from seqdyn.learn.spec import Spec
from seqdyn.runs import axes
from seqdyn.runs.checkpoint import digest
from seqdyn.runs.lock import gate
from seqdyn.types import ConfigError

NAME = "init.safetensors"
Given = Mapping[str, np.ndarray]


def fitted(experiment: Experiment, init: Any) -> Given:
    """The parameters by name, in the type in which the first spec trains. ConfigError if any spec's do not fit them."""
    if isinstance(init, str | Path):
        raise ConfigError(f"init is {str(init)!r:.80}; it must be parameters, as seqdyn.restore({str(init)!r:.40}, …).")
    given = start.named(_params(init))
    found = [start.fitted(axes.shapes(spec).params, given, "init", spec.label) for spec in experiment.specs]
    return found[0]


def _params(init: Any) -> Any:
    """Those within what `seqdyn.trained` or `seqdyn.io.load` returns."""
    return init.params if hasattr(init, "params") and hasattr(init, "spec") else init


def described(init: Any, given: Given) -> dict[str, Any]:
    """What a manifest says of them."""
    return {"sha256": digest(dict(given)), "parents": parents.of(_params(init))}


def kept(out: Path, noted: Mapping[str, Any], given: Given | None) -> Callable[[Spec], Given]:
    """spec -> the parameters that its runs start from: those given, which `out` keeps from now on, or those it keeps.

    The function raises ConfigError if they are needed and neither there nor given.
    """
    wanted, path = noted["init"], out / NAME
    if given is not None:
        with gate(out):
            if _read(path, wanted["sha256"]) is None:
                path.unlink(missing_ok=True)
                safetensors.write(path, given, {"parents": json.dumps(wanted["parents"])})

    read = cache(lambda: there(out, noted))

    def of(spec: Spec) -> Given:
        return start.fitted(axes.shapes(spec).params, read(), str(path), spec.label)

    return of


def there(out: Path, noted: Mapping[str, Any]) -> Given:
    """The parameters that `out` keeps, of which its manifest has the digest. Raises ConfigError if they are lost."""
    found = _read(out / NAME, noted["init"]["sha256"])
    if found is None:
        raise ConfigError(f"{out / NAME}, which the runs start from, is damaged or not there; give init again.")
    for parent in noted["init"]["parents"]:
        parents.noted(found, parent)
    return found


def _read(path: Path, sha256: str) -> Given | None:
    try:
        found = safetensors.read(path)[0]
    except ConfigError:
        return None
    return found if digest(found) == sha256 else None
