"""What the runs of a directory differ in, read from the manifest's JSON alone: coordinates of `run`.

The code of users' parts is not needed, nor is what words mean: an experiment stays readable when they are gone.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from seqdyn.building import Function
from seqdyn.fields import Fields, label
from seqdyn.layout import Layout, numbers_of
from seqdyn.numbers import FIELDS, replaced

WORDS = ("label", "cell", "activation", "u_init", "w_init")
ALWAYS = ("task", "steps", "batch", "hidden", "optimizer", "readout")
"""Fields of a spec that are coordinates whatever they say; of the others those that are not at their default."""

_FIELDS = {
    f.name: f.default
    for f in dataclasses.fields(Fields)
    if f.name not in (*WORDS, "name", "decided", "numbers", "layers", "records")
}


def per_run(described: Mapping[str, Any], at: Layout, taken: Collection[Any]) -> dict[str, np.ndarray]:
    """Name -> [run]: every number of `Numbers`, `WORDS`, the numbers of users' parts by the shortest ends of their
    paths that tell them apart and are not `taken`, NaN in runs that have none of that name; and the fields of specs,
    'spec_clip' where the name is another's."""
    specs, deaf = described["specs"], [_unheeded(spec) for spec in described["specs"]]
    own = [dict(_of_parts(spec)) for spec in specs]
    names = _names(own, [{f.name for f in FIELDS} - nobody for nobody in deaf], {*taken, *WORDS})
    found: dict[str, list[np.ndarray]] = {}
    for spec, words, nobody, parts, count in zip(specs, numbers_of(described), deaf, own, at.counts, strict=True):
        numbers = {f.name: words.get(f.name, f.default) for f in FIELDS} | dict.fromkeys(nobody, np.nan)
        for name, paths in names.items():
            numbers[name] = next((parts[p] for p in paths if p in parts), numbers.get(name, np.nan))
        for name, said in numbers.items():
            found.setdefault(name, []).append(_numbers(said, count))
        for name in WORDS:
            found.setdefault(name, []).append(np.full(count, _word(spec, name)))
    columns = {name: np.concatenate(parts) for name, parts in found.items()}
    never = set.intersection(*deaf) - names.keys()
    columns = {name: column for name, column in columns.items() if name not in never}
    blocked = {*taken, *columns, *(f.name for f in FIELDS)}
    return columns | {
        f"spec_{name}" if name in blocked else name: np.repeat(values, at.counts)
        for name, values in _of_fields(specs).items()
    }


def _numbers(described: Any, count: int) -> np.ndarray:
    """[count] of a column, of {"runs": […]}, or of one value; infinity is a word, or {"float": "inf"}."""
    values = described["runs"] if isinstance(described, dict) and "runs" in described else described
    values = values if isinstance(values, list) else [values] * count
    return np.asarray(
        [float(v["float"] if isinstance(v, dict) else v) if isinstance(v, dict | str) else v for v in values]
    )


def _unheeded(spec: Mapping[str, Any]) -> set[str]:
    """Numbers of `Numbers` in whose place a spec has parts."""
    there = {field: bool(value) and not isinstance(value, str) for field, value in spec.items()}
    return {*replaced(lambda field: there.get(field, False), spec.get("normalise", "none"))}


def _word(spec: Mapping[str, Any], name: str) -> str:
    own = [*spec.get("layers", []), *filter(None, [spec.get("network")])]
    said = {n: spec.get(n, getattr(Fields, n)) for n in ("name", *WORDS[1:])}
    if name == "label":
        return label(said["name"], said["cell"], said["activation"], own)
    return said[name] if not own else label("", "", "", own) if name == "cell" else ""


def _of_fields(specs: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Field -> [spec], as numbers or text."""
    found = {}
    for name, default in _FIELDS.items():
        said = [_told(spec.get(name, default)) for spec in specs]
        if name in ALWAYS or set(said) != {_told(default)}:
            found[name] = np.asarray(said if len({*map(type, said)}) == 1 else [*map(str, said)])
    return found


def defaults(taken: Collection[Any], recorded: Collection[str]) -> dict[str, Any]:
    """Of the fields of specs that need not be coordinates, by the names that they have as such beside those `taken` and
    the variables that may be `recorded`: what is said of a run that has no such coordinate."""
    blocked = {*recorded, *(f.name for f in FIELDS)}
    return {
        f"spec_{name}" if name in blocked or f"spec_{name}" in taken else name: _told(default)
        for name, default in _FIELDS.items()
        if name not in ALWAYS
    }


def _told(value: Any) -> Any:
    """A field as one number or text: of a part its class, of a function its name, of several what each is."""
    if isinstance(value, dict) and value.get("part") == Function.__part_name__:  # type: ignore[attr-defined]
        return value["made"]["function"].rpartition(":")[2]
    if isinstance(value, dict) and "part" in value:
        return value["part"].rpartition(":")[2]
    if isinstance(value, list | tuple):
        told = [_told(one) for one in value]
        return told[0] if len(told) == 1 else ", ".join(map(str, told))
    return "" if value is None else value


def _of_parts(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, what is said) of every number of a spec's parts."""
    for name, value in spec.items():
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
            yield from _within(name, value)


def _within(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for i, one in enumerate(value):
            yield from _within(f"{path}[{i}]", one)
    elif isinstance(value, dict) and "part" in value:
        for name, one in value.items():
            yield from _within(f"{path}.{name}", one) if name != "part" else ()
    elif isinstance(value, dict) and {"runs", "float"} & value.keys():
        yield path, value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _names(own: list[dict[str, Any]], heeded: list[set[str]], taken: set[str]) -> dict[str, list[str]]:
    """Name -> the paths that it stands for: layers that agree in a number in all specs share one name. A number of a
    part has that of a hyperparameter only where its spec heeds no such hyperparameter."""
    alike: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for numbers in own for path in numbers):
        alike.setdefault(re.sub(r"\[\d+\]", "", path), []).append(path)
    groups = {}
    for path, paths in alike.items():
        same = all(len({str(numbers[p]) for p in paths if p in numbers}) <= 1 for numbers in own)
        groups |= {path: paths} if same else {p: [p] for p in paths}
    names = {}
    for path, paths in groups.items():
        pieces = path.split(".")
        ends = [".".join(pieces[i:]) for i in range(len(pieces) - 1, -1, -1)]
        mine = [words for numbers, words in zip(own, heeded, strict=True) if any(p in numbers for p in paths)]
        blocked = taken.union(*mine)
        alone = (e for e in ends if e not in blocked and [g for g in groups if f".{g}".endswith(f".{e}")] == [path])
        names[next(alone, path)] = paths
    return names
