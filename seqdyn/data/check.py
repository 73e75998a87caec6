"""Does a data set fit its task? Made the library's own arrays, or said in a sentence before anything is compiled: on a
device, an id out of range is silently another id."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from seqdyn.data.arrays import array, first_wrong, numbers, step_counts, three, whole_numbers
from seqdyn.data.tasks import BANK, HELD_OUT, NEIGHBOURS, VECTORS, valid_mask
from seqdyn.data.text import Examples
from seqdyn.fields import Fields
from seqdyn.types import ConfigError


def check_all(specs: Iterable[Fields], data: Any) -> Any:
    """`check` of each spec of an experiment, which share the arrays; those first that read padding, where labels that
    are none are wrong."""
    for spec in sorted(specs, key=lambda spec: spec.mask):
        data = check(spec, data)
    return data


def check(spec: Fields, data: Any) -> Any:
    """The data of a task as the arrays that it is trained on; of a synthetic task, whatever was given.

    `data` is a dict of splits: 'train' and 'validation', and if wanted 'test' and 'shuffled' (`tasks.HELD_OUT`). In
    'stream' a split is the ids of a text, [n]. Otherwise it is (xs, lengths, ys), a `text.Examples` or any tuple of
    three:

        xs       ids [n, s], or numbers [n, s, d], s = `Spec.steps`, d = `Spec.features`; [n, s] where d is 1
        lengths  [n], how many steps of each are not padding, 1 … s
        ys       [n], classes 0 … `Spec.classes` − 1, or numbers where that is 0, [n, k] for k = `Spec.targets` above 1;
                 with the readout 'every' [n, s] or [n, s, k], on padding whatever you like (what is no label
                 becomes 0), unless `Spec.mask` is False;
                 in 'next_step' 0 or 1, [n, s, d]; any numbers under a loss of one's own (`Spec.loss`, a network's)

    Beside them may lie `tasks.VECTORS`, `tasks.NEIGHBOURS` and `tasks.BANK`. Arrays may be lists, Series or tensors,
    and of any type whose values have one meaning: ids, lengths and classes become int32, numbers float32.

    Raises ConfigError, which names the split and the first wrong example. It does so for a split that is missing or
    empty; for arrays of the wrong shape or type; for numbers that are Inf, NaN or too large for 32 bits; and for ids,
    lengths and labels out of range.
    """
    if spec.task not in ("labelled", "next_step", "stream"):
        return data
    if not isinstance(data, Mapping):
        raise ConfigError(f"data is {type(data).__name__}; the task '{spec.task}' needs a dict of its splits.")
    beside = {name: data[name] for name in (VECTORS, NEIGHBOURS, BANK) if name in data}
    splits = {name: data[name] for name in data if name not in beside}
    there = ", ".join(map(str, splits)) or "none"
    for name in ("train", "validation"):
        if name not in splits:
            raise ConfigError(f"data has the splits {there}; it must have {name}.")
    if set(splits) - {"train", *HELD_OUT}:
        raise ConfigError(f"data has the splits {there}; those that are not trained on are {', '.join(HELD_OUT)}.")
    for name, split in splits.items():
        if spec.task == "stream":
            splits[name] = _ids(f"the split {name}", split, spec.vocabulary)
            if splits[name].ndim != 1:
                raise ConfigError(f"the split {name} has the shape {splits[name].shape}; it must be the ids of a text.")
        else:
            splits[name] = _examples(spec, name, split)
    if spec.pretrained or VECTORS in beside:
        beside[VECTORS] = _vectors(spec, data.get(VECTORS))
    for name in spec.augment:
        wanted = {BANK: BANK, "insert": NEIGHBOURS, "neighbours": NEIGHBOURS}.get(name)
        if wanted and wanted not in data:
            raise ConfigError(f"augment has '{name}', but data has no '{wanted}': see tasks.{wanted.upper()}.")
    if NEIGHBOURS in beside:
        table = _ids(f'data["{NEIGHBOURS}"]', data[NEIGHBOURS], spec.vocabulary)
        if table.ndim != 2 or len(table) != spec.vocabulary or not table.size:
            raise ConfigError(f'data["{NEIGHBOURS}"] has the shape {table.shape}; it must be [{spec.vocabulary}, k].')
        beside[NEIGHBOURS] = table
    if BANK in beside:
        beside[BANK] = _bank(spec, splits["train"], data[BANK])
    return splits | beside


def _vectors(spec: Fields, vectors: Any) -> Any:
    found = None if vectors is None else numbers(f'data["{VECTORS}"]', vectors)
    wanted = (spec.vocabulary, spec.embedding)
    if spec.pretrained and (found is None or found.shape != wanted):
        what = "missing" if found is None else f"of the shape {found.shape}"
        raise ConfigError(f'data["{VECTORS}"] is {what}; pretrained needs [vocabulary, embedding], {wanted}.')
    return found


def _bank(spec: Fields, train: Any, bank: Any) -> Examples:
    if spec.task != "labelled":
        raise ConfigError(f"data[\"{BANK}\"] is there, but only the task 'labelled' has use for it.")
    where = f'data["{BANK}"]'
    xs, lengths, ys = three(where, bank)
    xs, lengths = array(f"xs of {where}", xs, "variants"), array(f"lengths of {where}", lengths, "whole numbers")
    n, k = len(train.ys), lengths.shape[1] if lengths.ndim == 2 else 0
    right = (n, max(k, 1), spec.steps, *([] if spec.vocabulary else [spec.features]))
    if xs.shape + (1,) == right:
        xs = xs[..., None]
    if xs.shape != right or lengths.shape != right[:2]:
        raise ConfigError(
            f"{where} has xs of the shape {xs.shape} and lengths of {lengths.shape}; K variants of each "
            f"training example have {right} and {right[:2]}."
        )
    if not np.array_equal(array(f"ys of {where}", ys, "labels").ravel(), train.ys.ravel()):
        raise ConfigError(f'{where} has other ys than data["train"]; its rows are those of the training examples.')
    flat = _examples(spec, BANK, (xs.reshape(-1, *right[2:]), lengths.ravel(), np.repeat(train.ys, k, axis=0)))
    return Examples(flat.xs.reshape(right), flat.lengths.reshape(right[:2]), train.ys)


def inputs(spec: Fields, where: str, xs: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray]:
    """(xs, lengths) of sequences that a spec's networks read, as they compute with them; ConfigError where they cannot
    be read. `where` is what they are called, as 'the split train'."""
    of = f"of {where}"
    xs = array(f"xs {of}", xs, "ids, whole numbers" if spec.vocabulary else "numbers")
    n = len(xs) if xs.ndim else 0
    if n == 0:
        raise ConfigError(f"{where} is empty; it needs at least one sequence.")
    xs = _shaped(f"xs {of}", xs, (n, spec.steps) if spec.vocabulary else (n, spec.steps, spec.features))
    xs = _ids(f"xs {of}", xs, spec.vocabulary) if spec.vocabulary else numbers(f"xs {of}", xs, "finite, on padding too")
    return xs, _shaped(f"lengths {of}", step_counts(of, lengths, spec.steps), (n,))


def _examples(spec: Fields, split: str, examples: Any) -> Examples:
    xs, lengths, ys = three(f"the split {split}", examples)
    xs, lengths = inputs(spec, f"the split {split}", xs, lengths)
    n, of = len(xs), f"of the split {split}"

    def shaped(name: str, value: Any, shape: tuple[int, ...], right: str) -> np.ndarray:
        return _shaped(f"{name} {of}", array(f"{name} {of}", value, right), shape)

    if spec.task == "next_step":
        own = spec.loss is not None or spec.network is not None
        right = "numbers" if own else "0 or 1; Spec(loss=…) takes any numbers"
        ys = shaped("ys", ys, (n, spec.steps, spec.features), right)
        if own:
            return Examples(xs, lengths, numbers(f"ys {of}", ys))
        return Examples(xs, lengths, whole_numbers(f"ys {of}", ys, 0, 1, right).astype(np.float32))
    every = spec.readout == "every"
    labels = (n, *([spec.steps] if every else []), *([spec.targets] if spec.targets > 1 else []))
    right = f"a class between 0 and {spec.classes - 1}" if spec.classes else "numbers"
    ys = shaped("ys", ys, labels, right)
    if every and spec.mask and ys.dtype.kind in "biuf":
        valid = np.asarray(valid_mask(spec, jnp.asarray(lengths))).T
        ys = np.where(valid.reshape(*valid.shape, *[1] * (ys.ndim - 2)) | _is_label(spec, ys), ys, 0)
    if not spec.classes:
        return Examples(xs, lengths, numbers(f"ys {of}", ys))
    if ys.dtype.kind in "SU":
        right += "; np.unique(labels, return_inverse=True)[1] numbers labels that are words"
        raise ConfigError(f"ys {of} has {ys.flat[0].item()!r} in example 0; it must be {right}.")
    return Examples(xs, lengths, whole_numbers(f"ys {of}", ys, 0, spec.classes - 1, right))


def _is_label(spec: Fields, ys: np.ndarray) -> np.ndarray:
    """Which may stay where they lie on padding: another spec may read it."""
    if not spec.classes:
        return np.abs(ys) <= np.finfo(np.float32).max
    return (ys >= 0) & (ys < spec.classes) & (ys == np.floor(ys))


def _shaped(where: str, found: np.ndarray, right: tuple[int, ...]) -> np.ndarray:
    """In the right shape; a last axis of length 1 may be missing or too much."""
    if (*found.shape, 1) == right or found.shape == (*right, 1):
        found = found.reshape(right)
    if found.shape != right:
        raise ConfigError(f"{where} has the shape {found.shape}; it must be {right}.")
    return found


def _ids(where: str, ids: Any, vocabulary: int) -> np.ndarray:
    found = array(where, ids, "ids, whole numbers")
    if found.dtype.kind not in "iu":
        raise ConfigError(f"{where} has the type {found.dtype}; ids must be whole numbers.")
    first_wrong(where, found, (found < 0) | (found >= vocabulary), f"an id between 0 and {vocabulary - 1}")
    return found.astype(np.int32, copy=False)
