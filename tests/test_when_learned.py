"""Laws of what a user's task says of when it is learned: reports count by it, without the task's code."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from _refusals import refusal

import seqdyn as sd
from analysis import learned
from analysis.compare_differences import first_setting
from seqdyn.data.tasks import own_criterion
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


def test_runs_of_ones_own_task_have_learned_by_its_criterion_and_the_code_is_not_asked(tmp_path, monkeypatch):
    of = [spec("always"), spec("never", "test_loss", 0.0), spec("nobody knows", "test_loss", None, None)]
    found = [tmp_path / one.name for one in of]
    for one, out in zip(of, found, strict=True):
        manifest.open_run(out, sd.Experiment("told", one, updates=2), {})
    monkeypatch.setattr(Told, "build", None)
    criteria = [learned.criterion(manifest.described(out)) for out in found]
    assert [one.metric for one in criteria] == ["test_loss"] * 3
    np.testing.assert_array_equal([one.target[0] for one in criteria], [1e9, 0, np.nan])
    np.testing.assert_array_equal([one.chance[0] for one in criteria], [2, 2, np.nan])
    loss, known = np.full((1, 1), 0.5), xr.Dataset({"recorded": (("run", "step"), np.ones((1, 2), bool))})
    ds = known.assign(test_loss=(("run", "probe"), loss), finite=known.recorded)
    statuses = [learned.statuses(ds, of)[0] for of in criteria]
    assert statuses == ["learned", "not yet", "trained"]


@pytest.mark.parametrize("before", [None, [["test_accuracy", 0.5, 2.0]]])
def test_a_criterion_may_come_or_change_on_the_way(tmp_path, before):
    experiment = sd.Experiment("told", spec("always"), updates=1)
    manifest.open_run(tmp_path / "out", experiment, {})

    def as_before(found):
        kept = {name: said for name, said in found.items() if name != "learned"}
        return kept | ({"learned": before} if before else {})

    manifest.note(tmp_path / "out", as_before)
    manifest.open_run(tmp_path / "out", experiment, {})
    assert manifest.described(tmp_path / "out")["learned"] == [["test_loss", 1e9, 2.0]]


def test_a_criterion_is_no_setting_that_runs_differ_in(tmp_path):
    for name in ("one", "other"):
        manifest.open_run(tmp_path / name, sd.Experiment("told", spec("always"), updates=1), {})
    manifest.note(tmp_path / "other", lambda found: found | {"learned": [["test_accuracy", 0.5, 2.0]]})
    assert first_setting(tmp_path / "one", tmp_path / "other") is None


def test_runs_that_were_added_have_their_criterion_too(tmp_path):
    out = sd.run(sd.Experiment("told", spec("always"), updates=1), tmp_path / "out", verify=False)
    sd.extend(out, seeds=2)
    of = learned.criterion(manifest.described(out))
    assert of.target.tolist() == [1e9, 1e9] and learned.statuses(sd.load(out), of).tolist() == ["learned", "learned"]


def test_of_the_library_s_tasks_a_manifest_need_not_say_it():
    assert own_criterion(spec("told")) == ["test_loss", 1e9, 2.0]
    assert own_criterion(sd.Spec("adding", steps=4, batch=2, holdout=2)) is None


@sd.part
class Saying:
    """Says what a task cannot."""

    index: int
    factor: sd.Number = sd.number(1.0)

    def build(self):
        def draw(key, batch):
            return jnp.ones((3, batch, 1)), jnp.ones(batch)

        said = (*WRONG, dict(chance=self.factor))[self.index]
        return sd.task(draw, loss=lambda p, y: p[:, 0] - y, inputs=1, outputs=1, **said)


WRONG = (
    dict(learned=("accuracy", 0.9)),
    dict(learned=0.9),
    dict(learned=("test_loss", "low")),
    dict(learned=("test_loss", math.inf)),
    dict(learned=("test_loss", 10**400)),
    dict(learned=("test_loss", True)),
    dict(learned=(np.ones(2), 0.5)),
    dict(learned=("test_accuracy", 0.9)),
    dict(chance="1"),
    dict(chance=-math.inf),
)


@pytest.mark.parametrize("index", range(len(WRONG) + 1))
def test_what_is_no_criterion_is_refused(index):
    said = refusal(sd.Spec, Saying(index), batch=2, holdout=2)
    name, value = next(iter(WRONG[index].items())) if index < len(WRONG) else ("chance", None)
    assert said.startswith(f"{name} of a task is " + ("" if value is None else f"{value!r:.60}"))
    assert ("correct=" in said) == (name == "learned")


@pytest.mark.parametrize(
    "said", [dict(chance=1.0), dict(learned=("test_loss", 0.1)), dict(of_lengths=lambda key, lengths: None)]
)
def test_what_only_a_task_with_a_loss_can_say_is_refused_without_one(said):
    assert f"{next(iter(said))} of a task" in refusal(sd.task, lambda key, batch: (), **said)
