"""Every sentence about a wrong value in a `Spec`, `Hypers` or `Experiment`, raised before anything is compiled."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, get_args

import jax
import numpy as np

from seqdyn.data.augment import AUGMENTATIONS
from seqdyn.data.images import pix
from seqdyn.data.tasks import BANK, DATA_SETS
from seqdyn.learn import choices, looks, network, precision, terms
from seqdyn.learn.fitted import INNER, unheeded
from seqdyn.learn.numbers import check_hyper
from seqdyn.learn.optim import decays, links
from seqdyn.parts import is_part
from seqdyn.types import ConfigError, Pad, one_of, whole

if TYPE_CHECKING:
    from seqdyn.learn.config import Experiment, Hypers, Spec

EVERY_STEP = ("next_step", "stream", "copy", "memorization")
"""The tasks that ask for a prediction at every step."""
OF_ANY_LENGTH = ("adding", "multiplication", "temporal_order", "temporal_order_3", "random_permutation", "parity")
"""The tasks whose sequences may have lengths of their own."""
LEAST = {"temporal_order": 10, "temporal_order_3": 10, "copy": 21, "memorization": 11} | dict.fromkeys(DATA_SETS, 1)
"""Steps without which a task makes no sense; 2 of the others. A row of a table is a sequence of one step."""


def validate(experiment: "Experiment") -> None:
    """Raises ConfigError, in one sentence, for the first field that cannot be right."""
    for spec in experiment.specs:
        _check_spec(spec)
    precision.check(experiment.specs)
    first = experiment.specs[0]
    for spec in experiment.specs[1:]:
        for name in ("task", "shortest", "training_set", "features", *(["steps"] if first.task in DATA_SETS else [])):
            if not _alike(getattr(spec, name), getattr(first, name)):
                raise ConfigError(
                    f"{name} is {getattr(spec, name)!r} in one spec and {getattr(first, name)!r} in another; "
                    "the specs of one experiment share it."
                )
    if len({s.label for s in experiment.specs}) < len(experiment.specs):
        raise ConfigError(
            f"specs have the labels {[s.label for s in experiment.specs]}; name, cell or activation must differ."
        )
    grids = [(experiment.specs, experiment.hypers)]
    if experiment.hypers is None:
        grids = [((spec,), runs.hypers) for spec, runs in zip(experiment.specs, experiment.runs, strict=True)]
    for specs, hypers in grids:
        for f in dataclasses.fields(hypers):
            column = np.asarray(getattr(hypers, f.name))
            if column.shape != (len(hypers),) or np.ndim(hypers.seed) != 1:
                raise ConfigError(
                    f"hypers.{f.name} has the shape {column.shape}; give one value a run, as grid() does."
                )
            for value in column:
                check_hyper(f.name, value)
        _check_use(specs, hypers)
    try:
        json.dumps(experiment.settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings is {experiment.settings!r}; it must be JSON ({error}).") from None
    for name in ("updates", "chunk", "probe_every", "tile", "diagnostic", "modes"):
        whole(name, getattr(experiment, name))
    looks.check_probes(experiment)
    for name, unit in (("updates", "chunk"), ("probe_every", "chunk")):
        value, divisor = getattr(experiment, name), getattr(experiment, unit)
        if value % divisor:
            raise ConfigError(f"{name} is {value}; it must be a multiple of {unit}, {divisor}.")
    if experiment.updates % experiment.probe_every:
        raise ConfigError(
            f"updates is {experiment.updates}; it must be a multiple of probe_every, {experiment.probe_every}."
        )


def _alike(one: Any, other: Any) -> bool:
    """The same, but for the numbers of parts."""
    return jax.tree.structure(one) == jax.tree.structure(other) if is_part(one) and is_part(other) else one == other


_SWITCHES = {
    "dropout": "dropout on",
    "thaw": "pretrained on",
    "patience": "stop on",
    "min_improvement": "stop on",
    "weight_decay": "the optimizer 'adamw'",
    "strength": "augment on",
}
"""What makes a spec heed a number, but for the penalties' own names."""


def _check_use(specs: Sequence["Spec"], hypers: "Hypers") -> None:
    """No number may be given that no spec heeds."""
    for name, heeded in (
        ("dropout", [s.dropout != "none" for s in specs]),
        ("thaw", [s.pretrained for s in specs]),
        ("patience", [s.stop != "none" for s in specs]),
        ("min_improvement", [s.stop != "none" for s in specs]),
        ("weight_decay", [s.optimizer == "adamw" for s in specs]),
        ("strength", [s.augment for s in specs]),
        *((name, [name in s.penalties for s in specs]) for name in get_args(choices.PenaltyName)),
    ):
        values = np.asarray(getattr(hypers, name), float)
        largest = np.max(values, where=np.isfinite(values) | (name != "patience"), initial=0)
        if largest > 0 and not any(heeded):
            missing = _SWITCHES.get(name, f"'{name}' among its penalties")
            raise ConfigError(f"{name} is {largest:g}; no spec has {missing}.")
    strongest = np.max(np.asarray(hypers.strength, float))
    shares = [n for s in specs for n in s.augment if AUGMENTATIONS[n].kind in ("text", "any")]
    if strongest > 1 and shares:
        raise ConfigError(f"strength is {strongest:g}; of '{shares[0]}' it is a share and must be at most 1.")
    deaf = [unheeded(spec) for spec in specs]
    for name in set.intersection(*map(set, deaf)):
        odd = [v for v in np.asarray(getattr(hypers, name)).tolist() if v != getattr(type(hypers), name)]
        if odd:
            raise ConfigError(
                f"{name} is {odd[0]:g}, which {type(deaf[0][name]).__name__} does not heed; leave it out."
            )


def _check_spec(spec: "Spec") -> None:
    for name, literal in (
        ("task", choices.TaskName),
        ("cell", choices.CellName),
        ("activation", choices.Activation),
        ("w_init", choices.InitName),
        ("u_init", choices.InitName),
        ("readout_init", choices.InitName),
        ("normalise", choices.Normalise),
        ("optimizer", choices.Optimizer),
        ("schedule", choices.Schedule),
        ("clip", choices.Clip),
        ("readout", choices.Readout),
        ("dropout", choices.Dropout),
        ("pad", Pad),
        ("stop", choices.Stop),
        ("kind", choices.Kind),
    ):
        if not is_part(getattr(spec, name)) and not (name == "optimizer" and links(spec)):
            one_of(name, getattr(spec, name), get_args(literal))
    for name in ("chrono", "truncate", "mask", "pretrained", "bidirectional", "evaluate_train"):
        if not isinstance(getattr(spec, name), bool):
            raise ConfigError(f"{name} is {getattr(spec, name)!r}; it must be True or False.")
    if not isinstance(spec.name, str):
        raise ConfigError(f"name is {spec.name!r}; it must be a string.")
    for name in ("steps", "batch", "holdout", "floss_steps", "targets"):
        whole(name, getattr(spec, name))
    names, words = get_args(choices.PenaltyName), terms.words(spec)
    if not _are_words(words, names) or len({*words}) < len(words):
        raise ConfigError(
            f"penalties is {words!r}; it must be a tuple of different names among {', '.join(names)}, or of parts."
        )
    _check_penalties(spec)
    for name in ("shortest", "training_set", "vocabulary", "embedding", "features", "classes"):
        _whole_or_none(name, getattr(spec, name))
    least = 1 if is_part(spec.task) else LEAST.get(spec.task, 2)
    for name in ("steps", "shortest") if spec.shortest else ("steps",):
        if getattr(spec, name) < least:
            raise ConfigError(f"{name} is {getattr(spec, name)}; a sequence of '{spec.task}' needs at least {least}.")
    if spec.shortest > spec.steps:
        raise ConfigError(f"shortest is {spec.shortest}; it must be at most steps, {spec.steps}.")
    if spec.shortest and spec.task not in OF_ANY_LENGTH:
        raise ConfigError(f"shortest is {spec.shortest} for the task '{spec.task}'; it must be 0.")
    if spec.training_set % spec.batch:
        raise ConfigError(f"training_set is {spec.training_set}; it must be a multiple of batch, {spec.batch}.")
    _check_cell(spec)
    _check_task(spec)
    if spec.network is not None:
        network.check_spec(spec)
    _check_dropout(spec)
    _check_floss(spec)
    _check_looks(spec)
    _check_augment(spec)


def _check_penalties(spec: "Spec") -> None:
    names, penalised, penalties = get_args(choices.PenalisedGroup), spec.penalised, terms.words(spec)
    if not _are_words(penalised, names) or not penalised or len({*penalised}) < len(penalised):
        raise ConfigError(
            f"penalised is {penalised!r}; it must be a tuple of one or more different names among {', '.join(names)}."
        )
    if "embedding" in penalised and not spec.embedding:
        raise ConfigError(f"penalised is {penalised!r} and embedding is 0; there is no embedding to penalise.")
    if penalised == ("recurrent",) and spec.cell.startswith("dense"):
        raise ConfigError(f"penalised is {penalised!r} for the cell '{spec.cell}', which has no recurrence.")
    heed = {"l1", "l1_proximal", "l2", "l0"}
    if {*penalised} != {*names[:3]} and not heed & {*penalties} and not decays(spec):
        raise ConfigError(
            f"penalised is {penalised!r}; neither a penalty among {', '.join(sorted(heed))} nor 'adamw' heeds it."
        )
    for two, why in (
        (("l1", "l1_proximal"), "they are the same sum, descended in two ways; take one"),
        (("l0", "l1_proximal"), "a weight's proximal step is not that of the weight behind its gate; take one"),
        (("l0", "omega"), "Ω's gradient is that of U, not of its gates; take one"),
        (("l0", "orthogonality"), "a U with zeros drawn anew at every update is not orthogonal; take one"),
    ):
        if {*two} <= {*penalties}:
            raise ConfigError(f"penalties is {penalties!r} with '{two[0]}' and '{two[1]}': {why}.")


def _check_cell(spec: "Spec") -> None:
    if not isinstance(spec.hidden, tuple):
        raise ConfigError(f"hidden is {spec.hidden!r}; it must be a tuple of widths, one per level.")
    if not spec.hidden:
        raise ConfigError("hidden is empty; give one width per level.")
    for width in spec.hidden:
        whole("hidden", width)
    if spec.chrono and spec.cell not in ("lstm", "gru", "gru_reset_before"):
        raise ConfigError(f"chrono is True for an {spec.cell}; it sets the biases of gates, so choose lstm or gru.")
    if spec.bidirectional and spec.cell.startswith("dense"):
        raise ConfigError(f"bidirectional is True for the cell '{spec.cell}', which has no direction.")
    name = "hidden" if spec.normalise == "layer" else "batch"
    if spec.normalise != "none" and 1 in (spec.hidden if name == "hidden" else (spec.batch,)):
        raise ConfigError(
            f"{name} is {getattr(spec, name)} and normalise is '{spec.normalise}'; minus its mean a single value is 0, "
            "whatever was read, so it must be at least 2."
        )
    if spec.normalise != "none" and spec.cell.startswith("dense"):
        raise ConfigError(f"normalise is '{spec.normalise}' for the cell '{spec.cell}'; it takes rnn, lstm and gru.")
    padded = spec.shortest or (spec.task in ("labelled", "next_step") and spec.mask)
    if spec.normalise.startswith("batch") and padded:
        raise ConfigError(
            f"normalise is '{spec.normalise}' for sequences of several lengths, whose padding a batch would count; "
            "set mask to False and shortest to 0."
        )
    if "omega" in spec.penalties and (spec.cell != "rnn" or spec.normalise != "none"):
        raise ConfigError(f"penalties has 'omega' for the cell {spec.label}; Ω is of an rnn that is not normalised.")
    if spec.cell == "dense_per_position" and spec.task == "stream":
        raise ConfigError("cell is 'dense_per_position' for the task 'stream', which has no positions.")


def _check_task(spec: "Spec") -> None:
    task = spec.task
    if spec.training_set and task in DATA_SETS:
        raise ConfigError(f"training_set is {spec.training_set} for the task '{task}'; a data set brings its own.")
    if not is_part(task) and spec.network is None and (spec.readout == "every") != (task in EVERY_STEP):
        right = "'every', as it asks at every step" if task in EVERY_STEP else "'last', 'mean' or 'sum'"
        raise ConfigError(f"readout is '{spec.readout}' for the task '{task}'; it must be {right}.")
    ids, numbers = spec.vocabulary > 0, spec.features > 0
    right = {
        "labelled": "one of the two above 0: ids or numbers",
        "next_step": "features above 0 and no vocabulary",
        "stream": "vocabulary above 0 and no features",
    }.get(task, "neither: a synthetic task makes its own inputs")
    if (ids, numbers) not in {
        "labelled": [(True, False), (False, True)],
        "next_step": [(False, True)],
        "stream": [(True, False)],
    }.get(task, [(False, False)]):
        raise ConfigError(
            f"vocabulary is {spec.vocabulary} and features is {spec.features} for the task '{task}'; it takes {right}."
        )
    if spec.vocabulary == 1:
        raise ConfigError("vocabulary is 1; what is always the same id says nothing, so it must be 2 or more.")
    if spec.embedding and not ids:
        raise ConfigError(f"embedding is {spec.embedding} and vocabulary is 0; only ids are embedded.")
    if spec.pretrained and not spec.embedding:
        raise ConfigError("pretrained is True and embedding is 0; word vectors need an embedding of their width.")
    if task == "labelled" and spec.classes == 1:
        raise ConfigError("classes is 1; it must be 2 or more, or 0 for labels that are numbers.")
    if spec.targets > 1 and (task != "labelled" or spec.classes > 2):
        of = f"classes is {spec.classes}" if task == "labelled" else f"the task is {task!r:.60}"
        raise ConfigError(f"targets is {spec.targets} and {of}; several are of 'labelled' with 0 or 2 classes.")
    if task in ("next_step", "stream") and spec.bidirectional:
        raise ConfigError(f"bidirectional is True for the task '{task}'; it would read what it is to predict.")


def _check_looks(spec: "Spec") -> None:
    if spec.evaluate_train and spec.task not in DATA_SETS:
        raise ConfigError(f"evaluate_train is True for the task '{spec.task}'; only a data set has a training split.")
    if spec.stop != "none" and spec.task not in DATA_SETS:
        raise ConfigError(f"stop is '{spec.stop}' for the task '{spec.task}'; only a data set has a validation split.")
    if spec.stop == "accuracy" and spec.loss is not None and not hasattr(spec.loss, "correct"):
        raise ConfigError(
            f"stop is 'accuracy' and loss is {type(spec.loss).__name__}, which has no correct(); it must be 'loss'."
        )
    without = spec.loss is None and (spec.task == "next_step" or (spec.task == "labelled" and not spec.classes))
    if spec.stop == "accuracy" and without:
        raise ConfigError(f"stop is 'accuracy' for the task '{spec.task}', which has no classes; it must be 'loss'.")


def _check_dropout(spec: "Spec") -> None:
    kind = spec.dropout
    if kind == "words" and not spec.vocabulary:
        raise ConfigError("dropout is 'words' and vocabulary is 0; only ids are words, so choose 'inputs'.")
    if kind in INNER and spec.cell.startswith("dense"):
        raise ConfigError(f"dropout is '{kind}' for the cell '{spec.cell}'; it takes rnn, lstm and gru.")
    if kind == "candidate" and spec.cell == "rnn":
        raise ConfigError("dropout is 'candidate' for an rnn, which has none; choose lstm or gru.")
    if kind in INNER and spec.normalise != "none":
        raise ConfigError(
            f"dropout is '{kind}' and normalise is '{spec.normalise}'; of normalised cells only words, inputs and "
            "outputs are dropped."
        )
    if kind in INNER and "omega" in spec.penalties:
        raise ConfigError(f"penalties has 'omega' and dropout is '{kind}'; Ω is of a recurrence that is whole.")
    _whole_or_none("monte_carlo", spec.monte_carlo)
    if spec.monte_carlo and kind == "none":
        raise ConfigError(f"monte_carlo is {spec.monte_carlo} and dropout is 'none'; it samples what dropout leaves.")
    if spec.monte_carlo and spec.loss is not None and not hasattr(spec.loss, "mean"):
        raise ConfigError(
            f"monte_carlo is {spec.monte_carlo} and loss is {type(spec.loss).__name__}, which has no mean(); take 0."
        )
    if spec.monte_carlo and "l0" in spec.penalties:
        raise ConfigError(
            f"monte_carlo is {spec.monte_carlo} and penalties has 'l0', whose gates it would draw; take 0."
        )
    if spec.monte_carlo and spec.normalise.startswith("batch"):
        raise ConfigError(
            f"monte_carlo is {spec.monte_carlo} and normalise is '{spec.normalise}'; with dropout on, a batch would be "
            "normalised by its own mean and variance."
        )
    if spec.monte_carlo and spec.task == "stream":
        raise ConfigError(f"monte_carlo is {spec.monte_carlo} for the task 'stream', which carries one state; take 0.")


def _check_augment(spec: "Spec") -> None:
    if not _are_words(spec.augment, AUGMENTATIONS):
        raise ConfigError(f"augment is {spec.augment!r}; it must be a tuple of names among {', '.join(AUGMENTATIONS)}.")
    if spec.augment and spec.task != "labelled":
        raise ConfigError(f"augment is {spec.augment!r} for the task '{spec.task}'; it must be 'labelled'.")
    if BANK in spec.augment[1:]:
        raise ConfigError(
            f"augment is {spec.augment!r}; '{BANK}' must come first, as it takes the place of a sequence."
        )
    kind = "text" if spec.vocabulary else spec.kind
    for name in spec.augment:
        fits = AUGMENTATIONS[name].kind
        if fits not in (kind, "any"):
            what = "ids, which are text" if kind == "text" else f"data of the kind '{kind}'"
            raise ConfigError(f"augment has '{name}' for {what}; it is of {fits}.")
        if fits == "image" and spec.features % spec.steps:
            raise ConfigError(
                f"augment has '{name}' and features is {spec.features}; an image has a multiple of steps, {spec.steps}."
            )
        if name == "colour" and spec.features != 3 * spec.steps:
            raise ConfigError(
                f"augment has 'colour' and features is {spec.features}; it needs three channels, {3 * spec.steps}."
            )
        if fits == "image":
            pix()


def _check_floss(spec: "Spec") -> None:
    _whole_or_none("floss", spec.floss)
    if not spec.floss:
        return
    if spec.cell.startswith("dense") or len(spec.widths) > 1 or spec.normalise != "none":
        raise ConfigError(f"floss is {spec.floss} for {spec.label}; it takes one rnn, lstm or gru, not normalised.")
    size = spec.hidden[0] * (2 if spec.cell == "lstm" else 1)
    if spec.floss > size:
        raise ConfigError(f"floss is {spec.floss}; it must be at most {size}, the size of the state.")
    if spec.cell == "rnn" and spec.activation in ("relu", "hard_tanh"):
        raise ConfigError(f"floss is {spec.floss} for {spec.activation}, whose exponents are −inf; take a smooth one.")


def _whole_or_none(name: str, value: Any) -> None:
    if not isinstance(value, int) or value != 0 or value is False:
        whole(name, value)


def _are_words(value: Any, words: Collection[str]) -> bool:
    return isinstance(value, tuple) and all(isinstance(word, str) and word in words for word in value)
