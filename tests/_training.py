"""An update of a whole network, compiled once a spec and read by many laws, beside what autodiff makes of its loss."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import compiled
from seqdyn.data.tasks import task_of
from seqdyn.learn import model, train
from seqdyn.learn.config import Spec
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.numbers import Numbers


class Update(NamedTuple):
    """What one update makes of a state."""

    after: Any
    metrics: dict
    autodiff: Any
    """The gradient of the same loss through a plain scan."""


def having(spec: Spec, numbers: Numbers) -> Spec:
    """A spec with these numbers."""
    return spec.having(**vars(numbers))


def over(function: Any, spec: Spec) -> Any:
    """A function of a spec and more, as one of its numbers and more: they are traced, and one program fits all."""
    return lambda numbers, *more: function(having(spec, numbers), *more)


@cache
def _program(spec: Spec, autodiff: bool):
    def one(numbers, state, data):
        batch = train.sample(
            having(spec, numbers), data, train.batch_index(having(spec, numbers), data, state.step), state.step
        )
        carries = train.initial_carry(having(spec, numbers), state.carries, batch)

        def loss(params):
            return model.forward(having(spec, numbers), params, batch, carries, by=unroll_autodiff).loss

        slopes = jax.grad(loss)(state.params) if autodiff else None
        return Update(*train.step(having(spec, numbers), state, batch), slopes)

    return compiled(one)


def update(spec, numbers, state, data=None, autodiff=True) -> Update:
    """Update number `state.step`; a law that does not read autodiff's gradient need not compile it."""
    with jax.numpy_dtype_promotion("standard"):
        return _program(spec, autodiff)(numbers, state, data)


@cache
def _evaluation(spec: Spec):
    return compiled(over(train.evaluate, spec))


def evaluated(spec, numbers, state, data=None) -> dict:
    """What a look at the held-out splits says."""
    with jax.numpy_dtype_promotion("standard"):
        return _evaluation(spec)(numbers, state, data)


def start(spec, data=None, seed=0):
    """A state whose parameters, biases too, are drawn by NumPy: nothing is compiled for it."""
    rng = np.random.default_rng(seed)
    state = jax.eval_shape(lambda data: train.init(having(spec, Numbers().arrays()), data), data)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    params = jax.tree.map(lambda leaf: np.float32(0.5 * rng.standard_normal(leaf.shape)), state.params)
    return jax.tree.map(jnp.asarray, zeros._replace(params=params, alive=np.bool_(True)))


def first_batch(spec, numbers, data=None):
    """The batch of the first update, nothing changed in it."""
    return task_of(spec).batch(data, "train", train.batch_index(having(spec, numbers), data, jnp.int32(0)))


@cache
def _drawing(spec: Spec):
    return compiled(partial(first_batch, spec))


def scene(spec, **numbers):
    """(numbers, a state whose parameters NumPy draws, the first batch)"""
    h = Numbers(**numbers).arrays()
    return h, start(spec), _drawing(spec)(h)


def assert_descends(spec, data=None, state=None, **numbers) -> tuple[Any, Update]:
    """Plain descent at rate 1 is the step along autodiff's gradient, group by group. Returns the state and its
    update."""
    assert spec.optimizer == "sgd"
    state = start(spec, data) if state is None else state
    found = update(spec, Numbers(lr=1.0, **numbers).arrays(), state, data)
    before, after, slopes = (model.groups(tree) for tree in (state.params, found.after.params, found.autodiff))
    for name in slopes:
        p, q, g = (_flat(groups[name]) for groups in (before, after, slopes))
        size = np.linalg.norm(g)
        allowed = 2e-5 * size + np.finfo(np.float32).eps * np.linalg.norm(q)  # the step's end is rounded
        assert allowed < 1e-2 * size, f"{name}: too small a gradient to tell"
        assert np.linalg.norm(p - q - g) < allowed, name
    assert bool(found.metrics["finite"])
    return state, found


def _flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])
