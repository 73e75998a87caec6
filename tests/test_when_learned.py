"""Laws of what a user's task says of when it is learned: reports count by it, without the task's code."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal

import seqdyn as sd
from analysis import learned
from seqdyn.runs import manifest

X64 = False


@sd.part
class Told:
    """The first of three numbers, which says when it is learned."""

    metric: str = "test_loss"
    level: float | None = 1e9
    chance: float | None = 2.0

    def build(self):
        def draw(key, batch):
            xs = jax.random.normal(key, (3, batch, 1))
            return xs, xs[0, :, 0]

        def loss(prediction, y):
            return (prediction[:, 0] - y) ** 2

        def correct(prediction, y):
            return jnp.abs(prediction[:, 0] - y) < 0.1

        level, chance = (math.nan if one is None else one for one in (self.level, self.chance))
        said = dict(chance=chance, learned=(self.metric, level))
        return sd.task(draw, loss=loss, inputs=1, outputs=1, correct=correct, **said)


def spec(name, *said):
    return sd.Spec(Told(*said), batch=2, holdout=4, hidden=(2,), name=name)


def test_runs_of_ones_own_task_have_learned_by_its_criterion_and_the_code_is_not_asked(tmp_path):
    of = [spec("always"), spec("never", "test_loss", 0.0), spec("nobody knows", "test_loss", None, None)]
    found = [sd.run(sd.Experiment("told", one, updates=2), tmp_path / one.name, verify=False) for one in of]
    criteria = [learned.criterion(json.loads((out / "manifest.json").read_text())["experiment"]) for out in found]
    assert [one.metric for one in criteria] == ["test_loss"] * 3
    np.testing.assert_array_equal([one.target[0] for one in criteria], [1e9, 0, np.nan])
    np.testing.assert_array_equal([one.chance[0] for one in criteria], [2, 2, np.nan])
    statuses = [learned.statuses(sd.load(out), of)[0] for out, of in zip(found, criteria, strict=True)]
    assert statuses[0] == "learned" and statuses[1] in ("not yet", "at chance") and statuses[2] == "trained"
    assert "learned" not in manifest.described(found[2])


@pytest.mark.parametrize("before", [None, [["test_accuracy", 0.5, 2.0]]])
def test_a_criterion_may_come_or_change_on_the_way(tmp_path, before):
    experiment = sd.Experiment("told", spec("always"), updates=1)
    manifest.open_run(tmp_path / "out", experiment, {})

    def as_before(found):
        kept = {name: said for name, said in found["experiment"].items() if name != "learned"}
        return found | {"experiment": kept | ({"learned": before} if before else {})}

    manifest.note(tmp_path / "out", as_before)
    manifest.open_run(tmp_path / "out", experiment, {})
    assert manifest.described(tmp_path / "out")["learned"] == [["test_loss", 1e9, 2.0]]


@pytest.mark.parametrize(
    "said, words",
    [
        (dict(learned=("accuracy", 0.9)), "learned of a task is ('accuracy', 0.9)"),
        (dict(learned=0.9), "learned of a task is 0.9"),
        (dict(learned=("test_loss", "low")), "'low'"),
        (dict(learned=("test_loss", math.inf)), "inf"),
        (dict(learned=("test_accuracy", 0.9)), "give correct="),
        (dict(chance="1"), "chance of a task is '1'"),
    ],
)
def test_what_is_no_criterion_is_refused(said, words):
    def draw(key, batch):
        return jnp.ones((3, batch, 1)), jnp.ones(batch)

    assert words in refusal(sd.task, draw, loss=lambda p, y: p[:, 0] - y, inputs=1, outputs=1, **said)
