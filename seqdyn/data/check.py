"""Does a data set fit its task? Said in a sentence before anything is compiled: on a device, an id out of range is
silently another id."""

from typing import TYPE_CHECKING, Any

import numpy as np

from seqdyn.data.tasks import BANK, HELD_OUT, NEIGHBOURS, VECTORS
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    from seqdyn.learn.config import Spec


def check(spec: "Spec", data: Any) -> None:
    """Raises ConfigError for a split that is missing or empty, for arrays of the wrong shape or type, and for ids,
    lengths and labels out of range; names the split and the first wrong example."""
    if spec.task not in ("labelled", "next_step", "stream"):
        return
    if not isinstance(data, dict):
        raise ConfigError(f"data is {type(data).__name__}; the task '{spec.task}' needs a dict of its splits.")
    splits = {name: data[name] for name in data if name not in (VECTORS, NEIGHBOURS, BANK)}
    there = ", ".join(splits) or "none"
    for name in ("train", "validation"):
        if name not in splits:
            raise ConfigError(f"data has the splits {there}; it must have {name}.")
    if set(splits) - {"train", *HELD_OUT}:
        raise ConfigError(f"data has the splits {there}; those that are not trained on are {', '.join(HELD_OUT)}.")
    for name, split in splits.items():
        if spec.task == "stream":
            _ids(f"the split {name}", np.asarray(split), spec.vocabulary)
        else:
            _check_examples(spec, name, split)
    if spec.pretrained:
        _check_vectors(spec, data.get(VECTORS))
    for name in spec.augment:
        wanted = {BANK: BANK, "insert": NEIGHBOURS, "neighbours": NEIGHBOURS}.get(name)
        if wanted and wanted not in data:
            raise ConfigError(f"augment has '{name}', but data has no '{wanted}': see tasks.{wanted.upper()}.")
    if NEIGHBOURS in data:
        table = np.asarray(data[NEIGHBOURS])
        if table.ndim != 2 or len(table) != spec.vocabulary or not table.size:
            raise ConfigError(f'data["{NEIGHBOURS}"] has the shape {table.shape}; it must be [{spec.vocabulary}, k].')
        _ids(f'data["{NEIGHBOURS}"]', table, spec.vocabulary)
    if BANK in data:
        _check_bank(spec, data)


def _check_vectors(spec: "Spec", vectors: Any) -> None:
    wanted = (spec.vocabulary, spec.embedding)
    found = None if vectors is None else np.shape(vectors)
    if found != wanted:
        what = "missing" if found is None else f"of the shape {found}"
        raise ConfigError(f'data["{VECTORS}"] is {what}; pretrained needs [vocabulary, embedding], {wanted}.')
    if not np.isfinite(np.asarray(vectors)).all():
        raise ConfigError(f'data["{VECTORS}"] has entries that are Inf or NaN; they must be finite.')


def _check_bank(spec: "Spec", data: Any) -> None:
    if spec.task != "labelled":
        raise ConfigError(f"data[\"{BANK}\"] is there, but only the task 'labelled' has use for it.")
    xs, lengths = np.asarray(data[BANK].xs), np.asarray(data[BANK].lengths)
    k = lengths.shape[1] if lengths.ndim == 2 else 0
    right = (len(data["train"].ys), max(k, 1), spec.steps, *([] if spec.vocabulary else [spec.features]))
    if xs.shape != right or lengths.shape != right[:2]:
        raise ConfigError(
            f'data["{BANK}"] has xs of the shape {xs.shape} and lengths of {lengths.shape}; K variants of each '
            f"training example have {right} and {right[:2]}."
        )
    if not np.array_equal(data[BANK].ys, data["train"].ys):
        raise ConfigError(
            f'data["{BANK}"] has other ys than data["train"]; its rows are those of the training examples.'
        )
    flat = xs.reshape(-1, *xs.shape[2:]), lengths.ravel(), np.repeat(np.asarray(data["train"].ys), k, axis=0)
    _check_examples(spec, BANK, flat)


def _check_examples(spec: "Spec", split: str, examples: Any) -> None:
    xs, lengths, ys = (np.asarray(leaf) for leaf in examples)
    n = len(xs)
    if n == 0:
        raise ConfigError(f"the split {split} is empty; it needs at least one sequence.")
    shape = (n, spec.steps) if spec.vocabulary else (n, spec.steps, spec.features)
    targets = (n, spec.steps, spec.features) if spec.task == "next_step" else (n,)
    for name, array, right in (("xs", xs, shape), ("lengths", lengths, (n,)), ("ys", ys, targets)):
        if array.shape != right:
            raise ConfigError(f"{name} of the split {split} has the shape {array.shape}; it must be {right}.")
    if spec.vocabulary:
        _ids(f"xs of the split {split}", xs, spec.vocabulary)
    else:
        _first(f"xs of the split {split}", xs, ~np.isfinite(xs), "finite, on padding too")
    right = f"between 1 and steps, {spec.steps}"
    _first(f"lengths of the split {split}", lengths, (lengths < 1) | (lengths > spec.steps), right)
    if spec.task == "next_step":
        _first(f"ys of the split {split}", ys, (ys != 0) & (ys != 1), "0 or 1")
    elif spec.classes:
        whole = f"a class between 0 and {spec.classes - 1}"
        _first(f"ys of the split {split}", ys, ~np.isin(ys, np.arange(spec.classes)), whole)
    else:
        _first(f"ys of the split {split}", ys, ~np.isfinite(ys), "finite")


def _ids(where: str, ids: np.ndarray, vocabulary: int) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ConfigError(f"{where} has the type {ids.dtype}; ids must be whole numbers.")
    _first(where, ids, (ids < 0) | (ids >= vocabulary), f"an id between 0 and {vocabulary - 1}")


def _first(where: str, array: np.ndarray, wrong: np.ndarray, right: str) -> None:
    """Raises for the first wrong entry."""
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), wrong.shape)
        value = array[at].item()
        raise ConfigError(f"{where} has {value!r} in example {at[0]}; it must be {right}.")
