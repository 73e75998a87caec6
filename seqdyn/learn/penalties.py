"""The library's penalties by the words of `Spec.penalties`, each weighted by the hyperparameter λ of its name.

    l1              Σ |w| of the weight matrices of `Spec.penalised`                 Tibshirani 1996
    l1_proximal     the same; descended by a proximal step                       Parikh & Boyd 2014, §4.2, §6.5.2
    l2              ½ Σ w² of the same                                Goodfellow, Bengio & Courville 2016, eq. 7.2
    l0              Σ P(w ≠ 0) of the same, each behind a gate            Louizos, Welling & Kingma 2018, eq. 12
    activity        mean of h² over units, valid steps and examples, of the top level      Merity et al. 2017, eq. 3
    orthogonality   Σ ‖UᵀU − I‖_F² over gates and layers              Vorontsov et al. 2017, eq. 2
    omega           Ω, how far the gradient is from keeping its norm from step to step     Pascanu et al. 2013, eq. 9

All but l1_proximal, which is a step, are terms as users' are (`terms`). Adjoints are those of the data loss alone: what
a penalty contributes to the gradient is added to it afterwards, and before clipping. l1 adds its subgradient,
λ sign(w), which steps over 0 and leaves hardly a weight there; l1_proximal adds nothing, and after the update shrinks
each weight by lr · λ and no further than to 0, where it stays. l1 or l1_proximal together with l2 are the elastic net
(Zou & Hastie 2005). Under l0, l1 and l2 count weights before their gates. Under Adam neither l1 nor l2 keeps its
meaning, since its moments rescale what they add; the proximal step and the decoupled decay of 'adamw' come after it and
do.
"""

from typing import Any, get_args

import jax
import jax.numpy as jnp

from seqdyn.fields import PenalisedGroup, PenaltyName
from seqdyn.learn.model import Model, acting_params, groups, layers, matrices, with_matrices
from seqdyn.learn.optim import decays
from seqdyn.learn.own_cells import said
from seqdyn.learn.spec import Spec
from seqdyn.learn.terms import Pass, own
from seqdyn.learn.terms import words as worded
from seqdyn.nets import hard_concrete
from seqdyn.nets.levels import Dense
from seqdyn.nets.stack import Layer
from seqdyn.norms import norm
from seqdyn.parts import Number, number, part
from seqdyn.types import Array, Bool, ConfigError, Float, are_words

FAINT = 1e-20
"""Ω leaves out steps whose ‖λ‖² is below this: `bound` in the authors' code."""


def activity(hs: Float[Array, "t b h"], mask: Bool[Array, "t b"] | None) -> Float[Array, ""]:
    """Mean of h² over units, valid steps and examples."""
    square = jnp.mean(jnp.square(hs), axis=-1)
    if mask is None:
        return jnp.mean(square)
    return jnp.sum(jnp.where(mask, square, 0)) / jnp.sum(mask).astype(square.dtype)


def omega(
    u: Float[Array, "h h"],
    adjoint: Float[Array, "t b h"],
    slope: Float[Array, "t b h"],
    exponent: Float[Array, "t b"] | None = None,
    mask: Bool[Array, "t b"] | None = None,
) -> Float[Array, ""]:
    """Ω = mean over t = 1 … T and examples of (‖(λ_t ⊙ φ'_t) Uᵀ‖² / ‖λ_t‖² − 1)², given rows t = 0 … T.

    Pascanu, Mikolov & Bengio 2013, eq. 9–10, as their code has it: squared norms, examples apart, λ = ∂L/∂h of the
    batch's mean loss, steps with ‖λ‖² < 1e-20 left out of both sum and count; 0 if that leaves none. λ (`adjoint`
    times 2^`exponent`) and φ' are constants: the gradient is that through the U in sight. (U acts from the right.)
    """
    adjoint, slope = jax.lax.stop_gradient((adjoint[1:], slope[1:]))
    size = norm(adjoint)
    log2 = jnp.log2(jnp.where(size > 0, size, 1)) + (0 if exponent is None else exponent[1:].astype(size.dtype))
    counts = (size > 0) & (2 * log2 >= jnp.log2(jnp.asarray(FAINT, size.dtype)))
    if mask is not None:
        counts &= mask[1:]
    unit = adjoint / jnp.broadcast_to(jnp.where(counts, size, 1)[..., None], adjoint.shape)
    ratio = jnp.sum(jnp.square((unit * slope) @ u.T), axis=-1)
    total = jnp.sum(jnp.where(counts, jnp.square(ratio - 1), 0))
    return total / jnp.maximum(jnp.sum(counts).astype(total.dtype), 1)


def slopes(layer: Layer) -> Float[Array, "t b h"]:
    """φ'(z_t) of an rnn at every step, from its path: one product over all steps."""
    cell = layer.cell
    zx, zh = cell.input_projection(layer.params, layer.xs), cell.recurrent_projection(layer.params, layer.before)
    return cell.nonlinearity(layer.params, layer.carry._replace(h=layer.before), zx, zh)[1][0]


def absolute(spec: Spec, model: Model) -> Float[Array, ""]:
    """Σ |w| of the weight matrices of `Spec.penalised`."""
    return jnp.sum(jnp.stack([jnp.sum(jnp.abs(w)) for w in matrices(spec, model).values()]))


@part
class L1:
    """Σ |w|; its gradient at 0 is 0."""

    weight: Number = number(0.0, low=0.0)
    name = "l1"
    reads = "weights"

    def value(self, seen: Pass) -> Float[Array, ""]:
        """Of the weight matrices of `Spec.penalised`."""
        return absolute(seen.spec, seen.params)


@part
class L2:
    """½ Σ w²."""

    weight: Number = number(0.0, low=0.0)
    name = "l2"
    reads = "weights"

    def value(self, seen: Pass) -> Float[Array, ""]:
        """Of the weight matrices of `Spec.penalised`."""
        return 0.5 * jnp.sum(jnp.stack([jnp.sum(jnp.square(w)) for w in matrices(seen.spec, seen.params).values()]))


@part
class L0:
    """The expected number of weights whose gate is not 0."""

    weight: Number = number(0.0, low=0.0)
    name = "l0"
    reads = "weights"

    def value(self, seen: Pass) -> Float[Array, ""]:
        """Of the gates, which are parameters."""
        return jnp.sum(jnp.stack([jnp.sum(hard_concrete.expected(a)) for a in seen.params.log_alpha.values()]))


@part
class Orthogonality:
    """Σ ‖UᵀU − I‖_F², U each gate's own block."""

    weight: Number = number(0.0, low=0.0)
    name = "orthogonality"
    reads = "weights"

    def value(self, seen: Pass) -> Float[Array, ""]:
        """Over gates and layers."""
        found = [jnp.zeros(())]
        for cell, params in zip(layers(seen.spec), seen.params.layers, strict=True):
            for u in jnp.split(params.u, len(cell.gates), axis=1) if cell.memory else ():
                found.append(jnp.sum(jnp.square(u.T @ u - jnp.eye(u.shape[1], dtype=u.dtype))))
        return jnp.sum(jnp.stack(found))


@part
class Activity:
    """Mean of h² of the top level; of two directions, the mean of theirs."""

    weight: Number = number(0.0, low=0.0)
    name = "activity"
    reads = "states"

    def value(self, seen: Pass) -> Float[Array, ""]:
        """Over units, valid steps and examples."""
        return jnp.mean(jnp.stack([activity(layer.states, layer.ran.mask) for layer in seen.top]))


@part
class Omega:
    """Ω, summed over layers: see `omega`."""

    weight: Number = number(0.0, low=0.0)
    name = "omega"
    reads = "adjoints"
    detached = True

    def value(self, seen: Pass) -> Float[Array, ""]:
        """Of rnn layers."""
        found = []
        for layer, params in zip(seen.layers, seen.params.layers, strict=True):
            assert layer.reading is not None and layer.reading.adjoint is not None
            given = (layer.reading.adjoint.h, slopes(layer.ran), layer.reading.exponent, layer.ran.mask)
            # A row in front for h_0, which no loss reads: every one of the T steps counts, the first one's pull too.
            given = jax.tree.map(lambda rows: jnp.concatenate([rows[:1], rows]), given)
            found.append(omega(params.u, *given))
        return jnp.sum(jnp.stack(found))


TERMS = (Activity, Omega, L1, L2, L0, Orthogonality)
"""The library's, in the order in which their gradients are added."""


def terms(spec: Spec) -> tuple[Any, ...]:
    """What is added to the loss: of words the library's terms, weighted by `Numbers`, then users'."""
    words = tuple(term(weight=getattr(spec.numbers, term.name)) for term in TERMS if term.name in spec.penalties)
    return (*words, *own(spec).values())


def proximal(spec: Spec, model: Model, updates: Model, lr: Float[Array, ""]) -> Model:
    """The updates that lead from w not to v = w + Δw but to sign(v) · max(|v| − lr λ, 0), the minimum over x of
    |x| λ + (x − v)² / (2 lr): exactly 0 where |v| ≤ lr λ."""

    def shrunk(w: Array, move: Array) -> Array:
        v = w + move
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - lr * spec.numbers.l1_proximal, 0) - w

    moves, ws = matrices(spec, updates), matrices(spec, model)
    return with_matrices(updates, {name: shrunk(w, moves[name]) for name, w in ws.items()})


def counts(spec: Spec, model: Any) -> Any:
    """For each array of a model, whether it is one of `Spec.penalised`."""
    return with_matrices(jax.tree.map(lambda _: False, model), dict.fromkeys(matrices(spec, model), True))


def nonzero(spec: Spec, model: Model) -> Float[Array, " group"]:
    """How many numbers of each of `model.groups` are not 0, of weights as they act; of 'log_alpha', how many gates."""
    acting = acting_params(spec, model)
    if model.log_alpha is not None:
        acting = acting._replace(log_alpha={name: hard_concrete.gate(a) for name, a in model.log_alpha.items()})
    return jnp.stack([tree_count(group) for group in groups(acting).values()])


def tree_count(tree: Any) -> Float[Array, ""]:
    """Numbers that are not 0."""
    return jnp.sum(jnp.stack([jnp.sum(leaf != 0).astype(jnp.float32) for leaf in jax.tree.leaves(tree)]))


def plus(grads: Any, extra: Any, weight: Any) -> Any:
    """grads + weight · extra, grads where `extra` is None."""

    def added(g: Any, e: Any) -> Any:
        return g if e is None else g + weight * e

    return jax.tree.map(added, grads, extra, is_leaf=lambda leaf: leaf is None)


def check(spec: Spec) -> None:
    """Raises ConfigError for words that are no penalties, and for what does not go together."""
    names, words = get_args(PenaltyName), worded(spec)
    if not are_words(words, names) or len({*words}) < len(words):
        raise ConfigError(
            f"penalties is {words!r}; it must be a tuple of different names among {', '.join(names)}, or of parts."
        )
    names, penalised, penalties = get_args(PenalisedGroup), spec.penalised, words
    if not are_words(penalised, names) or not penalised or len({*penalised}) < len(penalised):
        raise ConfigError(
            f"penalised is {penalised!r}; it must be a tuple of one or more different names among {', '.join(names)}."
        )
    if "embedding" in penalised and not spec.embedding:
        raise ConfigError(f"penalised is {penalised!r} and embedding is 0; there is no embedding to penalise.")
    if penalised == ("recurrent",) and (dense := said(spec, Dense)):
        raise ConfigError(f"penalised is {penalised!r} and {dense}, which has no recurrence.")
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
