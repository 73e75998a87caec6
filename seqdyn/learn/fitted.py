"""Do the parts of a `Spec` fit each other, and the words beside them?

`layers` are parts with `build(inputs) -> Cell`, a `task` has `build() -> Drawn`, and a `loss` what `losses.made_loss`
says. An `optimizer`, each link of one, and a `clip` have `build() -> optax.GradientTransformation` or `rules.Rule`; the
last link's updates are added to the parameters as they are. A `schedule` has `build() -> (updates done) -> factor` of
`Numbers.lr`. For a schedule and a loss a function of a module may stand. Each of `records` has `variables` and
`record(context)`, and each of `penalties` that is no word is what `terms` says.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.building import as_part, built, check_part, known_at_run_time
from seqdyn.data import sampled
from seqdyn.data.losses import made_loss
from seqdyn.data.sampled import Drawn
from seqdyn.data.synthetic import Sequences
from seqdyn.data.tasks import TASKS
from seqdyn.fields import Fields, replaced_by
from seqdyn.grids import as_shapes, numbers
from seqdyn.learn import network, terms
from seqdyn.learn.context import check_variables
from seqdyn.learn.dropout import INNER
from seqdyn.learn.optim import AdamW, ClipByNorm, ClipByValue, Descent, links
from seqdyn.learn.own_cells import check_cells, known
from seqdyn.learn.rules import factor, made_link
from seqdyn.numbers import FIELDS, replaced
from seqdyn.parts import is_part
from seqdyn.types import ConfigError, whole


def fitted(spec: Fields) -> dict[str, Any]:
    """The fields of a spec that its parts decide: `steps`, `hidden`, and what stands in its place as a tuple.

    Raises ConfigError for a part of another kind than its field's, and where what parts build does not fit.
    """
    found: dict[str, Any] = {}
    if is_part(spec.penalties):
        found["penalties"] = (spec.penalties,)
    for name in ("layers", "records"):
        value = getattr(spec, name)
        found[name] = (value,) if is_part(value) or isinstance(value, type) else value
        if not isinstance(found[name], tuple):
            raise ConfigError(f"{name} is {value!r:.80}; it must be a tuple of parts.")
        for i, one in enumerate(found[name]):
            check_part(f"{name}[{i}]", one, "build" if name == "layers" else "record")
    if type(spec.optimizer) is tuple:
        _check_chain(spec.optimizer)
        found["optimizer"] = spec.optimizer[0] if len(spec.optimizer) == 1 else spec.optimizer
    for name in ("schedule", "loss"):
        found[name] = as_part(name, getattr(spec, name))
    for name in ("task", "optimizer", "clip", "schedule", "loss"):
        value = found.get(name, getattr(spec, name))
        if (
            (name == "loss" and value is not None) or is_part(value) or callable(value) or hasattr(value, "update")
        ):  # all else is refused as no word
            check_part(name, value, "build")
    if spec.network is not None:
        network.check("network", spec.network)
    names = {*network.variables(spec), *_check_terms(spec, found)}
    for i, one in enumerate(found["records"]):
        check_variables(f"records[{i}]", one)
        for name in names & one.variables.keys():
            raise ConfigError(f"records[{i}] is {type(one).__name__}, which records {name!r} as another does.")
        names |= one.variables.keys()
    # Numbers as shapes: a grid's are [r], and nothing that is checked here depends on a value.
    optimizer = found.get("optimizer", spec.optimizer)
    task, clip, schedule = (part if is_part(part) else None for part in (spec.task, spec.clip, found["schedule"]))
    chain = optimizer if isinstance(optimizer, tuple) else (optimizer,) if is_part(optimizer) else ()
    parts = (task, clip, schedule, found["loss"], chain, found["layers"])
    numbers, tree = jax.tree.flatten(as_shapes(parts))
    jax.eval_shape(lambda numbers: _check_built(spec, found, jax.tree.unflatten(tree, numbers)), numbers)
    if task is not None and spec.network is not None:
        found["steps"] = max(network.scans(spec).values())
    _check_words(spec, found)
    return found


def _check_terms(spec: Fields, found: dict[str, Any]) -> list[str]:
    """The names under which the terms of a spec that are no words are recorded."""
    given = found.get("penalties", spec.penalties)
    names: list[str] = []
    for i, one in enumerate(given if isinstance(given, tuple) else (given,)):
        if not (is_part(one) or callable(one) or hasattr(one, "value")):
            continue  # a word, or refused as none
        terms.check_term(f"penalties[{i}]", one)
        name = f"penalty_{terms.called(one)}"
        if name in names:
            raise ConfigError(
                f"penalties[{i}] is {type(one).__name__}, which is recorded as {name!r}, as another is; give one "
                "another `name`."
            )
        if spec.network is not None and one.reads != "weights":
            raise ConfigError(
                f"penalties[{i}] is {type(one).__name__}, which reads {one.reads!r}, and network has "
                f"{type(spec.network).__name__}, whose scans are its own; it must read 'weights'."
            )
        names.append(name)
    return names


def _check_chain(links: tuple[Any, ...]) -> None:
    if not links:
        raise ConfigError("optimizer is (); it must be a word, a part, or a tuple of parts, the first link first.")
    for i, link in enumerate(links):
        if isinstance(link, str):
            raise ConfigError(
                f"optimizer[{i}] is {link!r}; a link is a part, as seqdyn.Adam() and seqdyn.ClipByNorm(1.0)."
            )
        check_part(f"optimizer[{i}]", link, "build")


def _check_words(spec: Fields, found: dict[str, Any]) -> None:
    """Nothing may be said that nobody heeds, as there is a part in its place."""
    default = {f.name: f.default for f in dataclasses.fields(spec)}
    chain = found.get("optimizer", spec.optimizer)
    chain = chain if isinstance(chain, tuple) else (chain,)
    own = {"layers": found["layers"][:1], "optimizer": chain[-1:], "task": (spec.task,), "network": (spec.network,)}
    called = {name: type(one).__name__ for name, parts in own.items() for one in parts if is_part(one)}
    for field, part in called.items():
        for name, fields in replaced_by().items():
            heard = field not in fields or (field == "task" and isinstance(spec.task, Sequences))
            if not heard and getattr(spec, name) != default[name]:
                raise ConfigError(f"{name} is {getattr(spec, name)!r} and {field} has {part}; leave {name} out.")
    for name, field in (("steps", "task"), ("hidden", "layers")):
        value = getattr(spec, name)
        if name in found and value not in (found[name], default[name]):
            raise ConfigError(
                f"{name} is {value!r} and those of {called[field]} are {found[name]!r}; leave {name} out."
            )
    given = found.get("penalties", spec.penalties)
    if not isinstance(given, tuple) and (called or not isinstance(given, list | str)):
        raise ConfigError(f"penalties is {given!r:.80}; it must be a tuple of names.")
    words = tuple(one for one in given if not is_part(one))
    if words and "network" in called:
        raise ConfigError(f"penalties is {words!r} and network has {called['network']}; leave penalties out.")
    # Of cells of one's own nobody knows what their weights and gates are.
    strange = next((type(one).__name__ for one in found["layers"] if not known(one)), None)
    blind = {"layers": strange, "network": called.get("network")}
    if not isinstance(chain[-1], Descent):  # which says its rate
        blind["optimizer"] = called.get("optimizer")
    of_words = {"layers": {"l1", "l2", "l0", "l1_proximal", "orthogonality", "omega"}, "optimizer": {"l1_proximal"}}
    for field, part in blind.items():
        odd = [name for name in words if name in of_words.get(field, ())]
        if part and odd:
            raise ConfigError(f"penalties has {odd[0]!r} and {field} has {part}, which it does not know; leave it out.")
    for name in ("normalise", "floss", *(["dropout"] if spec.dropout in INNER else [])):
        if strange and getattr(spec, name) != default[name]:
            right = "be outside of cells" if name == "dropout" else f"be {default[name]!r}"
            raise ConfigError(f"{name} is {getattr(spec, name)!r} and layers has {strange}; it must {right}.")
    free = next((name for name in ("layers", "network") if blind[name]), None)
    if free and any(one == "adamw" or isinstance(one, AdamW) for one in chain):
        said = "AdamW" if is_part(chain[-1]) else "'adamw'"
        raise ConfigError(
            f"optimizer is {said} and {free} has {blind[free]}, of which it does not know what decays; take a "
            "part that builds optax.adamw."
        )


def unheeded(spec: Fields) -> dict[str, Any]:
    """Number of `Numbers` -> the part of a spec in whose place there is nobody who heeds it."""
    own = {"layers": spec.layers[:1], "optimizer": links(spec)[-1:], "schedule": (spec.schedule,), "clip": (spec.clip,)}
    own = {field: of[0] if of else None for field, of in own.items()} | {"network": spec.network}
    nobody = replaced(lambda field: is_part(own[field]), spec.normalise)
    return {name: own[field] for name, field in nobody.items()}


def unheard(spec: Fields, name: str) -> str | None:
    """What a spec must have to heed the number `name`, where its runs would all be the same along it. The numbers of
    `unheeded` are left out of `spec`."""
    switch = next((f.metadata["switch"] for f in FIELDS if f.name == name), None)
    alone = [path for path in numbers(spec) if path.rpartition(".")[2] == name] == [f"numbers.{name}"]
    return switch.missing if switch and alone and not switch.on(spec) else None


def _check_built(spec: Fields, found: dict[str, Any], parts: tuple[Any, ...]) -> None:
    task, clip, schedule, loss, chain, layers = parts
    inputs = _read_by_words(spec) if layers else 1
    if task is not None:
        whole("batch", spec.batch)
        drawn = built("task", task, Drawn, "what seqdyn.task(…) returns")
        inputs = drawn.inputs
        if spec.shortest and drawn.of_lengths is None:
            said = f"shortest is {spec.shortest!r} and task has {type(task).__name__}, which draws no lengths"
            raise ConfigError(f"{said}; leave shortest out, or give seqdyn.task an of_lengths.")
        sampled.check_criterion(drawn)
        if drawn.loss is None and spec.network is None:
            raise ConfigError(f"task is {type(task).__name__}, which has no loss; only a network brings its own.")
        with known_at_run_time(f"task is {type(task).__name__}"):
            if spec.network is None:
                found["steps"] = sampled.shapes(spec, type(task).__name__, drawn)
                inputs = drawn.inputs or spec.embedding or spec.vocabulary
                if not drawn.inputs and not spec.vocabulary:
                    said = f"vocabulary is {spec.vocabulary!r} and task is {type(task).__name__}, which draws ids"
                    raise ConfigError(f"{said} (its inputs are 0); vocabulary must say how many kinds there are.")
    if layers:
        steps = whole("steps", found.get("steps", spec.steps))
        found["hidden"] = check_cells(layers, inputs, 2 if spec.bidirectional else 1, steps)
    if isinstance(clip, Descent):
        raise ConfigError(f"clip is {type(clip).__name__}, which descends; it must leave a gradient, as a clip does.")
    rules = [type(link).__name__ for link in chain if isinstance(link, Descent)]
    if len(rules) > 1:
        raise ConfigError(f"optimizer has {' and '.join(rules)}, of which each descends; take one.")
    if chain and all(isinstance(link, ClipByNorm | ClipByValue) for link in chain):
        raise ConfigError(
            f"optimizer is {type(chain[-1]).__name__}, which leaves a gradient; put a rule after it, as seqdyn.Adam()."
        )
    # Links are tried on the network's own parameters before anything is compiled.
    for i, link in enumerate(chain):
        made_link(f"optimizer[{i}]" if len(chain) > 1 else "optimizer", link)
        if isinstance(link, Descent):
            link.rate(jnp.int32(0))
    if clip is not None:
        made_link("clip", clip)
    if loss is not None:
        made_loss("loss", loss)
    if schedule is not None:
        factor("schedule", schedule, jnp.int32(0))


def _read_by_words(spec: Fields) -> int:
    """Numbers a step that the lowest cell reads where the task is a word; 1 where validation has yet to refuse it."""
    try:
        return spec.embedding or spec.vocabulary or TASKS[spec.task](spec).inputs or 1
    except (ConfigError, ArithmeticError, LookupError, TypeError, ValueError):
        return 1
