"""Parameters that the runs of a directory start from: whether they fit, and `init.safetensors`, which keeps them. All
runs have the same ones, or those of each spec others, whose names then begin with 'start0/', 'start1/', ….

Tiles that have not begun need them after a kill, when nobody gives them again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seqdyn.io import parents, safetensors
from seqdyn.learn import start
from seqdyn.learn.config import Experiment
from seqdyn.learn.model import Model
from seqdyn.learn.spec import Spec
from seqdyn.runs import axes
from seqdyn.runs.checkpoint import digest
from seqdyn.runs.lock import gate
from seqdyn.types import ConfigError

NAME = "init.safetensors"
_PREFIX = "start{}/"
Given = Mapping[str, np.ndarray]


def fitted(experiment: Experiment, init: Any) -> Given:
    """The parameters by name, in the type in which their spec trains. ConfigError if any spec's do not fit them."""
    _no_path("init", init)
    labels = [spec.label for spec in experiment.specs]
    several = _several(init, labels)
    if several is None:
        if isinstance(init, Mapping) and all(isinstance(value, str | Path | Model) for value in init.values()):
            raise ConfigError(f"init has {', '.join(map(str, init)) or 'nothing'}; the specs are {', '.join(labels)}.")
        given = start.named(_params(init))
        return [start.fitted(axes.shapes(spec).params, given, "init", spec.label) for spec in experiment.specs][0]
    if several.keys() != {*labels}:
        raise ConfigError(
            f"init has parameters for {', '.join(several)}; the specs are {', '.join(labels)}: each must have its own."
        )
    for label in labels:
        _no_path(f"init[{label!r}]", several[label])
    each = [start.named(_params(several[label])) for label in labels]
    found = {}
    for i, (spec, given) in enumerate(zip(experiment.specs, each, strict=True)):
        fit = start.fitted(axes.shapes(spec).params, given, f"init[{spec.label!r}]", spec.label)
        found |= {_PREFIX.format(i) + name: value for name, value in fit.items()}
    return found


def _several(init: Any, labels: Sequence[str]) -> Mapping[str, Any] | None:
    """Parameters by the labels of specs, if that is what `init` is."""
    return init if isinstance(init, Mapping) and not {*labels}.isdisjoint(init) else None


def _no_path(where: str, given: Any) -> None:
    if hasattr(given, "state_dict"):
        raise ConfigError(f"{where} is a {type(given).__name__} of PyTorch; it must be seqdyn.io.from_torch of it.")
    if isinstance(given, str | Path):
        right = f"it must be parameters, as seqdyn.restore({str(given)!r:.40}, run)"
        raise ConfigError(f"{where} is {str(given)!r:.80}; {right}, or seqdyn.io.load of a file.")


def _params(init: Any) -> Any:
    """Those within what `seqdyn.trained` or `seqdyn.io.load` returns."""
    return init.params if hasattr(init, "params") and hasattr(init, "spec") else init


def described(experiment: Experiment, init: Any, given: Given) -> dict[str, Any]:
    """What a manifest says of them: a digest and their parents; where each spec has its own, their labels as `starts`
    and a list of parents each."""
    labels = [spec.label for spec in experiment.specs]
    several = _several(init, labels)
    if several is None:
        return {"sha256": digest(dict(given)), "parents": parents.of(_params(init))}
    each = [parents.of(_params(several[label])) for label in labels]
    return {"sha256": digest(dict(given)), "parents": each, "starts": labels}


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
        found = read()[spec.label] if "starts" in wanted else read()
        return start.fitted(axes.shapes(spec).params, found, str(path), spec.label)

    return of


def there(out: Path, noted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters that `out` keeps, of which its manifest has the digest: by name or, where each spec has its own,
    by label and name. Raises ConfigError if they are lost."""
    found = _read(out / NAME, noted["init"]["sha256"])
    if found is None:
        raise ConfigError(f"{out / NAME}, which the runs start from, is damaged or not there; give init again.")
    labels, known = noted["init"].get("starts"), noted["init"]["parents"]
    if labels is None:
        return _noted(found, known)
    each = {}
    for i, (label, of) in enumerate(zip(labels, known, strict=True)):
        begins = _PREFIX.format(i)
        own = {name.removeprefix(begins): value for name, value in found.items() if name.startswith(begins)}
        each[label] = _noted(own, of)
    return each


def again(out: Path, noted: Mapping[str, Any], experiment: Experiment) -> Mapping[str, Any]:
    """What `run` takes as `init` of an experiment that has some of these specs. ConfigError as `there`."""
    found = there(out, noted)
    return {spec.label: found[spec.label] for spec in experiment.specs} if "starts" in noted["init"] else found


def _noted(found: Given, known: Sequence[dict[str, Any]]) -> Given:
    for parent in known:
        parents.noted(found, parent)
    return found


def _read(path: Path, sha256: str) -> Given | None:
    try:
        found = safetensors.read(path)[0]
    except ConfigError:
        return None
    return found if digest(found) == sha256 else None
