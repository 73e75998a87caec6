"""Parameters in a safetensors file, under our own names: of any network, those of one's own included.

    embedding   layer0/w  layer0/u  layer0/b  layer0/bn  layer1/w …   readout/w  readout/b

Layers count both directions of a level, as records do. The metadata, all text, hold `format`, `spec` as a manifest has
it, the order of the `gates`, and, where they are known, `step`, `run` and `parents`. https://github.com/huggingface/safetensors
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seqdyn import parts
from seqdyn.data.arrays import plain_json
from seqdyn.described import rebuilt
from seqdyn.files import in_one_step
from seqdyn.io import parents
from seqdyn.io.stacks import check_spec, pair, written
from seqdyn.learn.own_cells import levels, own
from seqdyn.learn.spec import Spec, check_one
from seqdyn.learn.start import fitted, named, tree
from seqdyn.nets.conventions import OURS
from seqdyn.numbers import Numbers
from seqdyn.runs.axes import shapes
from seqdyn.types import ConfigError, as_path, whole

FORMAT = "seqdyn 1"


class Saved(NamedTuple):
    """What a file holds."""

    params: Any
    spec: Spec
    step: int | None
    """Updates after which they are."""
    run: Any
    """Which run they are of, as `save` was told."""
    parents: list[dict[str, Any]]
    """Where they came from: see `parents.of`."""


def save(path: str | Path, params: Any, spec: Any = None, *, step: int | None = None, run: Any = None) -> Path:
    """Writes parameters, with all bits, and returns the path. What `seqdyn.restore` returned knows its step and run.

    Raises ConfigError if they are not of this spec, for a `run` that is no JSON, and if there is a file already.
    """
    params, spec = pair(params, spec)
    found = fitted(shapes(spec).params, named(params), "params", spec.label)
    known = parents.of(params)
    step = next((one.get("step") for one in known), None) if step is None else step
    run = next((one.get("run") for one in known), None) if run is None else run
    step = None if step is None else whole("step", step, 0)
    said: dict[str, Any] = {"step": step, "run": plain_json(run), "parents": known, "spec": _described(spec)}
    try:
        texts = {name: json.dumps(value) for name, value in said.items() if value not in (None, [])}
    except TypeError:
        raise ConfigError(f"run is {run!r:.60}; it must be a number or a text.") from None
    path = as_path("path", path, "that of a file")
    with written(path):
        write(path, found, {"format": FORMAT, "gates": _gates(spec)} | texts)
    return path


def load(path: str | Path, spec: Any = None) -> Saved:
    """What `save` wrote, bit for bit; `spec` in the place of that of the file, which other programs do not write.

    Raises ConfigError for a file that is none of ours, arrays that do not fit the spec, another order of gates, and
    parts that this process does not know.
    """
    path = as_path("path", path, "that of a file")
    found, said = read(path)
    if spec is None:
        if said.get("format") != FORMAT:
            raise ConfigError(f"{path} has the format {said.get('format')!r}, not {FORMAT!r}; give load its spec.")
        spec = _said(path, "spec", lambda: Spec(**{k: rebuilt(v) for k, v in json.loads(said["spec"]).items()}))
    check_spec(spec)
    if said.get("gates", _gates(spec)) != _gates(spec):
        raise ConfigError(
            f"{path} has its gates in the order {said['gates']!r}; {spec.label} has {_gates(spec) or 'none'!r}."
        )
    wanted = shapes(spec).params
    params = jax.tree.map(jnp.asarray, tree(wanted, fitted(wanted, found, str(path), spec.label)))
    step, run, before = (
        _said(path, name, lambda name=name: json.loads(said[name])) if name in said else None
        for name in ("step", "run", "parents")
    )
    counted = step is None or (type(step) is int and step >= 0)
    listed = before is None or (isinstance(before, list) and all(isinstance(one, dict) for one in before))
    for name, right in (("step", counted), ("parents", listed)):
        if not right:
            raise ConfigError(f"{path} has metadata whose {name} is damaged ({said[name]!r:.80}); give load another.")
    parents.noted(params, {"file": str(path.resolve()), "step": step, "run": run, "parents": before or []})
    return Saved(params, spec, step, run, before or [])


def _said(path: Path, name: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} has metadata whose {name} is damaged ({error!r:.80}); give load another file."
        ) from None


def _gates(spec: Spec) -> str:
    kinds = () if own(spec) or spec.network else dict.fromkeys(level.word for level in levels(spec))
    return " ".join(OURS.get(kind, "") for kind in kinds)


def _described(spec: Spec) -> dict[str, Any]:
    fields = [f.name for f in dataclasses.fields(spec) if f.name not in ("decided", "numbers")]
    check_one(spec)
    numbers = Numbers(**{name: np.asarray(value).item() for name, value in vars(spec.numbers).items()})
    return {name: parts.describe(getattr(spec, name)) for name in fields} | {"numbers": parts.describe(numbers)}


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Arrays by name into a new file, which is whole or not there. ConfigError if there is one already."""
    if path.exists():
        raise ConfigError(f"{path} exists; choose another name, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with in_one_step(path) as partial:
            save_file({name: np.asarray(value, order="C") for name, value in arrays.items()}, partial, metadata)
    except SafetensorError as error:  # of the file system: a full disk, say
        raise OSError(str(error)) from None


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a file; ConfigError if it cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there; it must be a safetensors file.") from None
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); it must be a safetensors file.") from None
