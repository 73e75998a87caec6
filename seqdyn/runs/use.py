"""A trained network put to use: what it predicts, what it writes, and which word a prediction hangs on."""

import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import compiled
from seqdyn.data import check
from seqdyn.data.arrays import array
from seqdyn.data.batches import Batch
from seqdyn.data.tasks import DATA_SETS, padding, valid_mask
from seqdyn.data.text import SPECIAL, START, UNKNOWN, Truncate, encode, pad_to, tokenize
from seqdyn.data.vectors import load_vocabulary
from seqdyn.learn import model
from seqdyn.learn.config import Spec
from seqdyn.learn.own_cells import said
from seqdyn.nets.wrappers import BatchNorm
from seqdyn.parts import plain
from seqdyn.runs import manifest
from seqdyn.runs.restore import restore
from seqdyn.runs.run import VOCABULARY
from seqdyn.types import Array, ConfigError, Float, Key, one_of, whole


class Trained(NamedTuple):
    """One run of a run directory, as it predicts."""

    path: Path
    spec: Spec
    params: Any


def trained(path: str | Path, run: int, best: bool = False) -> Trained:
    """Run `run` of a run directory after its last update, or with the `best` parameters that early stopping saw.

    ConfigError as `restore`, and for a network that is no stack, whose part alone knows how it predicts.
    """
    params = restore(path, run, best=best)
    out, there = manifest.holding(path, run)
    experiment = manifest.experiment(out)
    spec, point = experiment.layout.place(there)
    one = experiment.runs[spec].at(point)
    if one.network is not None:
        raise ConfigError(f"run is {run} of {path}, a network that is no stack; call its part with restore's params.")
    return Trained(manifest.directory(path), one, params)


def _running(path: str | Path, run: int, best: bool) -> Trained:
    """With the numbers as a program takes them."""
    of = trained(path, run, best)
    return of._replace(spec=of.spec.arrays())


def predict(
    path: str | Path, run: int, data: Any, *, best: bool = False, batch: int = 256, truncate: Truncate = "last"
) -> np.ndarray:
    """What run `run` predicts for `data`.

    Returned are probabilities [n] of class 1, or [n, k] of k classes or bits; where `Spec.classes` is 0, numbers [n] or
    [n, k]. If every step has a prediction, a step axis follows: [n, t, …]. Under a loss of one's own predictions are
    returned as they are.

    `data` are a text or several, strings or UTF-8 bytes, if the run directory has a vocabulary; or arrays xs [n, steps]
    of ids or [n, steps, d] of numbers, of full length or shorter; or (xs, lengths, …) as in `data.check.check`. A text
    is cut into words as `data.text.tokenize` does; with a vocabulary of other tokens give their ids. Of a long text the
    first or last words are read, as `truncate` says: what `labelled_text` was told, a run directory does not know.
    Raises ConfigError for what this network cannot read, and warns of texts without a word that it knows.
    """
    of = _running(path, run, best)
    xs, lengths = _read(of, data, truncate)
    batch = whole("batch", batch)

    def of_rows(rows: Any) -> Array:
        return _meant(of.spec, model.predict(of.spec, of.params, _batch(of.spec, *rows)))

    size = min(batch, len(xs))
    padded = np.minimum(np.arange(-(-len(xs) // size) * size), len(xs) - 1).reshape(-1, size)
    program = compiled(of_rows)
    found = [np.asarray(program((xs[rows], lengths[rows]))) for rows in padded]
    if of.spec.readout == "every":
        found = [np.moveaxis(one, 0, 1) for one in found]
    whole_set = np.concatenate(found)[: len(xs)]
    return whole_set[..., 0] if whole_set.shape[-1] == 1 else whole_set


class Word(NamedTuple):
    """One word of a text."""

    word: str
    gradient: float
    """‖∂p/∂x_t‖ of the probability p with respect to the word's vector (its one-hot vector without an embedding)."""


def explained(
    path: str | Path, run: int, text: str | bytes, *, best: bool = False, truncate: Truncate = "last"
) -> tuple[np.ndarray, list[Word]]:
    """(the answer of `predict` to one text, the words that were read and how much the answer depends on each).

    Of k classes, the gradient is that of the most probable class's probability. ConfigError as for `predict`.
    """
    of = _running(path, run, best)
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if not isinstance(text, str):
        raise ConfigError(f"text is {text!r:.60}; it must be one text.")
    if of.spec.readout == "every":
        raise ConfigError(f"run is {run} of {path}, which predicts at every step; there is no one answer to explain.")
    words, (xs, lengths) = _vocabulary(of), _read(of, text, truncate)
    batch = _batch(of.spec, xs, lengths)

    def answer(vectors: Array) -> tuple[Array, Array]:
        # The words' vectors are what is read, as numbers; gates of the embedding have acted on them.
        spec = replace(of.spec, vocabulary=0, embedding=0, pretrained=False, features=vectors.shape[-1], dropout="none")
        network = model.acting_params(of.spec, of.params)._replace(embedding=None)
        found = _meant(spec, model.predict(spec, network, batch._replace(xs=vectors)))[0]
        return jnp.max(found), found

    vectors = model.embedded(of.spec, model.acting_params(of.spec, of.params), batch.xs)
    gradient, found = compiled(jax.grad(answer, has_aux=True))(vectors)
    norms = np.linalg.norm(np.asarray(gradient)[:, 0], axis=-1)
    there = np.ones(len(norms), bool) if batch.mask is None else np.asarray(batch.mask)[:, 0]
    found = np.asarray(found)
    read = [Word(words[i], float(g)) for i, g, on in zip(xs[0], norms, there, strict=True) if on]
    return found[0] if found.shape[-1] == 1 else found, read


def generate(
    path: str | Path, run: int, prompt: str, n: int, temperature: float = 1.0, *, best: bool = False, seed: int = 0
) -> str:
    """`n` symbols that follow `prompt`, written by a network that was trained on a stream.

    Each is drawn from softmax(logits / temperature), and then read; at temperature 0 the most probable one is taken.
    ConfigError for another task, a network with batch normalisation of each step, an empty prompt, a symbol that is not
    in its vocabulary, and a temperature below 0.
    """
    of = _running(path, run, best)
    if of.spec.task != "stream":
        raise ConfigError(f"run is {run} of {path}, whose task is {of.spec.task!r}; only a stream goes on.")
    if normal := "normalise is 'batch'" if of.spec.normalise == "batch" else said(of.spec, BatchNorm):
        raise ConfigError(
            f"run is {run} of {path}, whose {normal}: it has means for the {of.spec.steps} steps that it "
            "was trained on, and none for those after; only networks without them go on."
        )
    symbols, n = _vocabulary(of), whole("n", n)
    if not isinstance(prompt, str) or not prompt:
        raise ConfigError(f"prompt is {prompt!r:.60}; it must be a text of at least one symbol.")
    odd = sorted({symbol for symbol in prompt if symbol not in symbols})
    if odd:
        raise ConfigError(f"prompt has {odd[0]!r}, which is not among the {len(symbols)} symbols of {path}.")
    heat = plain(temperature)
    if isinstance(heat, bool) or not isinstance(heat, int | float) or not 0 <= heat < np.inf:
        raise ConfigError(f"temperature is {temperature!r}; it must be a number of at least 0.")
    ids = np.asarray([symbols.index(symbol) for symbol in prompt], np.int32)

    def read(carries: Any, xs: Array) -> tuple[Any, Array]:
        out = model.run(of.spec, of.params, Batch(xs[:, None], xs[:, None]), carries)
        return out.stacked.last, out.predictions[-1, 0]

    def write(ids: Array, key: Key[Array, ""], heat: Float[Array, ""]) -> Array:
        start = tuple(cell.initial_carry((1,)) for cell in model.layers(of.spec))

        def step(at: Any, key: Key[Array, ""]) -> tuple[Any, Array]:
            carries, logits = at
            drawn = jax.random.categorical(key, logits / jnp.where(heat > 0, heat, jnp.ones_like(heat)))
            new = jnp.where(heat > 0, drawn, jnp.argmax(logits)).astype(jnp.int32)
            return read(carries, new[None]), new

        return jax.lax.scan(step, read(start, ids), jax.random.split(key, n))[1]

    written = compiled(write)(ids, jax.random.key(whole("seed", seed, 0)), jnp.float32(heat))
    return "".join(symbols[i] for i in np.asarray(written))


# --- what is read -------------------------------------------------------------------------------------------


def _vocabulary(of: Trained) -> tuple[str, ...]:
    if not of.spec.vocabulary:
        raise ConfigError(f"{of.path} has no vocabulary, as its networks read numbers; give arrays.")
    if not (of.path / VOCABULARY).exists():
        raise ConfigError(f"{of.path} has no {VOCABULARY}; give seqdyn.run the vocabulary=, or arrays of ids here.")
    return load_vocabulary(of.path / VOCABULARY)


def _read(of: Trained, data: Any, truncate: Truncate = "last") -> tuple[np.ndarray, np.ndarray]:
    """(xs, lengths) of what was given."""
    spec = of.spec
    one_of("truncate", truncate, get_args(Truncate))
    if isinstance(data, tuple | list) and len(data) in (2, 3) and _axes(data[1]) == 1 < _axes(data[0]):
        return check.inputs(_reading(spec), "data", data[0], data[1])
    right = (
        f"[n, steps] of ids or [n, steps, d] of numbers, of at most {spec.steps} steps, or with their lengths, or a "
        "text, or several"
    )
    xs = array("data", [data] if isinstance(data, str | bytes) else data, right)
    if xs.dtype.kind == "S":
        xs = np.strings.decode(xs, "utf-8", "replace")
    if xs.ndim == 2 and xs.dtype.kind == "U" and xs.shape[1] == 1:
        xs = xs[:, 0]  # a table of one column
    elif xs.ndim == 2 and _reading(spec).features == 1 and (xs.shape[1] > 1 or spec.steps == 1):
        xs = xs[..., None]  # numbers of one feature; [s, 1] would be one sequence of s steps
    if xs.dtype.kind == "U" and xs.ndim == 1:
        if spec.task == "stream":
            raise ConfigError(f"the task of {of.path} is 'stream'; let it go on with generate().")
        if spec.task not in DATA_SETS:
            raise ConfigError(f"the task of {of.path} draws its ids, which no text has; give arrays of ids.")
        return pad_to(_rows(of, xs.tolist()), spec.steps, truncate, spec.pad)
    if xs.ndim != (2 if spec.vocabulary else 3) or not 1 <= xs.shape[1] <= spec.steps:
        raise ConfigError(f"data has the shape {xs.shape}; it must be {right}.")
    lengths, missing = np.full(len(xs), xs.shape[1], np.int32), spec.steps - xs.shape[1]
    around = (missing, 0) if padding(spec) == "before" else (0, missing)
    return check.inputs(_reading(spec), "data", np.pad(xs, [(0, 0), around, *[(0, 0)] * (xs.ndim - 2)]), lengths)


def _rows(of: Trained, texts: list[str]) -> list[list[int]]:
    """The ids of texts, where the vocabulary is that of our own tokens: by others each text would be another one."""
    words = _vocabulary(of)
    index, odd = _index(words)
    if odd is not None:
        raise ConfigError(
            f"data is text, but the vocabulary of {of.path} was not made by data.text.tokenize (id {odd} is "
            f"{words[odd]!r:.40}); give ids, as your own tokens make them: data.text.encode(tokens, index)."
        )
    rows = [encode(tokenize(text), index) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) == 1:
            raise ConfigError(f"data has the text {text!r:.40}; it must have a word.")
    unread = [text for text, row in zip(texts, rows, strict=True) if {*row} == {START, UNKNOWN}]
    if unread:
        warnings.warn(
            f"{len(unread)} of {len(texts)} texts have no word of the vocabulary of {of.path}, as {unread[0]!r:.40}; "
            "what is predicted for them hangs on their number of words alone.",
            stacklevel=4,
        )
    return rows


@lru_cache(maxsize=8)
def _index(words: tuple[str, ...]) -> tuple[dict[str, int], int | None]:
    """(the id of each word, the first id whose word is none of our tokens)"""
    cut = [[word] for word in SPECIAL] + [tokenize(word) for word in words[len(SPECIAL) :]]
    odd = next((i for i, word in enumerate(words) if cut[i] != [word]), None)
    return {word: i for i, word in enumerate(words)}, odd


def _axes(value: Any) -> int:
    """How many, of lists that are ragged two."""
    try:
        return np.ndim(value)
    except ValueError:
        return 2


def _reading(spec: Spec) -> Spec:
    """A spec whose `features` are said, which are a sampled task's own inputs."""
    return spec if spec.vocabulary or spec.features else replace(spec, features=model.task_of(spec).inputs)


def _batch(spec: Spec, xs: Any, lengths: Any) -> Batch:
    return Batch(jnp.moveaxis(jnp.asarray(xs), 1, 0), jnp.zeros(len(xs)), valid_mask(spec, jnp.asarray(lengths)))


def _meant(spec: Spec, predictions: Float[Array, "*s k"]) -> Float[Array, "*s k"]:
    """As probabilities, where they mean any."""
    probability = model.loss_of(spec).probability
    return predictions if probability is None else probability(predictions)
