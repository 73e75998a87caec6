"""Laws of users' probes: they see the run as it is, change nothing, and are read as the library's are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _digests import digests
from _network import RESIDUAL
from _own import SPEC as OWN
from _programs import program
from _refusals import refusal
from _training import having

import seqdyn as sd
from seqdyn.data.tasks import task_of
from seqdyn.learn import model, train
from seqdyn.runs import sweep
from seqdyn.runs.run import _recorded

X64 = False
run = partial(sd.run, verify=False)


@sd.part
class Line:
    """The loss a step of `length` down the gradient, and how far each layer's adjoint reaches."""

    length: sd.Number = sd.number(0.0)
    variables = {
        "down": sd.Variable((), "loss after a step down the gradient", "loss"),
        "far": sd.Variable(("layer", "time"), "mean of log₂ ‖λ_t‖", "log₂ loss / h"),
        "along": sd.Variable(("way",), "loss further down", "loss", axes={"way": np.linspace(0, 0.1, 3)}),
    }

    def measure(self, look: sd.Look) -> dict:
        def down(length):
            return look.loss_of(jax.tree.map(lambda w, g: w - length * g, look.params, look.grads))

        far = [jnp.mean(layer.log2, axis=1) for layer in look.layers]
        along = jnp.stack([down(length) for length in (0.0, 0.05, 0.1)])
        return {"down": down(self.length), "far": jnp.stack(far), "along": along}


@sd.part
class Further:
    """With a number of its own at every look."""

    length: sd.Number = sd.number(0.1)
    variables = {
        "further": sd.Variable((), "loss further down"),
        "drawn": sd.Variable((), "u"),
        "at": sd.Variable((), "updates done"),
    }

    def measure(self, look):
        moved = jax.tree.map(lambda w, g: w - self.length * g, look.params, look.grads)
        return {"further": look.loss_of(moved), "drawn": jax.random.uniform(look.key), "at": look.step}


SPEC = sd.Spec(steps=6, batch=4, holdout=4, hidden=(3,))
PROBES = ("weights", Line(), Further())


def experiment(spec=SPEC, probes=PROBES, **more):
    """Two runs, the second of which diverges between the first look and the second."""
    runs = sd.grid(spec, **({"lr": [1e-2, 1e30]} if isinstance(spec.optimizer, str) else {"seeds": 2}))
    fields = dict(updates=4, chunk=2, probe_every=2, tile=2, diagnostic=5) | more
    return sd.Experiment("looks", runs, probes=probes, **fields)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return run(experiment(), tmp_path_factory.mktemp("looks") / "out")


def test_a_probe_changes_no_bit_of_a_run_nor_of_another_probe(out, tmp_path):
    bare, params = digests(run(experiment(probes=("weights",)), tmp_path / "bare"))
    records, same = digests(out)
    assert params == same and set(records) - set(bare) == {"down", "far", "along", "further", "drawn", "at"}
    assert bare == {name: records[name] for name in bare}
    assert [p._cache_size() for p in sweep.programs(SPEC, 1)][:3] == [1, 1, 1]


def test_what_a_probe_says_is_there_at_every_look_until_a_run_diverges(out):
    ds = sd.load(out).load()
    assert ds.down.dims == ("run", "probe") and ds.far.dims == ("run", "probe", "layer", "time")
    assert ds.down.attrs == {"long_name": "loss after a step down the gradient", "units": "loss"}
    there = ds.isel(run=0)
    np.testing.assert_array_equal(there["at"], [0, 2, 4])
    np.testing.assert_array_equal(there["along"].sel(way=0.0), there["down"])
    assert (there["along"].diff("way") < 0).all()
    assert len({*there.drawn.values.tolist()}) == 3 and np.isfinite(there.far).all()
    assert np.isnan(ds.down[1, -1]) and np.isfinite(ds.down[1, 0])


def test_a_probe_sees_the_loss_of_the_diagnostic_batch_and_descends_it(out):
    """At length 0 it is what the network's own loss on that batch is."""
    ds, last = sd.load(out).isel(run=0), sd.restore(out, 0)
    assert (ds.further < ds.down).all()
    one = experiment().runs[0].at(0).arrays()

    @program
    def loss(params, numbers):
        batch = task_of(SPEC).diagnostic(None, train.keys(having(SPEC, numbers)).data, "holdout", 5)
        return model.loss(having(SPEC, numbers), params, batch)

    np.testing.assert_allclose(ds.down[-1], loss(last, one.numbers), rtol=1e-6)


@sd.part
class Clash:
    """With an axis, and a name, of its own choice."""

    name: str
    axis: str
    labels: tuple[float | str, ...]

    @property
    def variables(self):
        return {self.name: sd.Variable((self.axis,), "clash", axes={self.axis: self.labels})}

    def measure(self, look):
        return {self.name: jnp.zeros(len(self.labels))}


@pytest.mark.parametrize(
    "clash, words",
    [
        (Clash("a", "way", ("x", "y", "z")), "'a' axis 'way' labels"),
        (Clash("a", "down", (1, 2)), "'a' axis 'down' variable"),
        (Clash("way", "b", (1, 2)), "'way' variable"),
        (Clash("along", "way", (0.0, 0.1)), "probes 'along'"),
        (Clash("a", "example", (1, 2)), "'a' axis 'example' library"),
    ],
)
def test_axes_of_what_is_added_afterwards_are_held_against_those_that_are_there(out, clash, words):

    def there():
        return {p: p.stat().st_mtime_ns for p in out.rglob("*") if not p.name.startswith(".lock")}

    before = there()
    for tried in (partial(sd.probe, out, clash, steps=[0]), partial(sd.extend, out, seeds=[5], probes=clash)):
        sentence = refusal(tried)
        assert all(word in sentence for word in words.split(" ")), sentence
    assert before == there()


def test_a_changed_probe_is_refused_by_its_path_and_the_same_one_goes_on(out):
    changed = experiment(probes=("weights", Line(0.5), *PROBES[2:]))
    assert "probes[1].length is 0.0 there and 0.5 here" in refusal(run, changed, out)
    run(experiment(), out)


def test_cells_and_networks_of_ones_own_are_looked_at():
    for spec, probe in ((OWN, Line()), (RESIDUAL, Further())):
        assert {*probe.variables} < {*_recorded(experiment(spec, probes=probe), None)}


# --- what is refused --------------------------------------------------------------------------------------------


def probe(measure, variables=None, **more):
    """A part with these in its class."""

    @sd.part
    class Made:
        pass

    given = {"measure": measure, "variables": {"a": sd.Variable((), "a")} if variables is None else variables}
    for name, one in (given | more).items():
        setattr(Made, name, one)
    return Made()


@pytest.mark.parametrize(
    "probes, words",
    [
        ((Line,), "probes[0] class Line"),
        ((len,), "probes[0] len measure() part"),
        (("weights", OWN.records[0]), "probes[1] Reach measure()"),
        ((3,), "probes (3,) names"),
        (("weight", Line()), "probes 'weight' weights parts"),
        ((probe(lambda self: {}),), "Made measure () look"),
        ((probe(lambda self, look: {}, variables={}),), "Made variables Variable"),
        ((probe(lambda self, look: {}, variables={"a": sd.Variable(("mode",), "a")}),), "Made 'mode' layer"),
        (
            (probe(lambda self, look: {"loss": look.loss}, variables={"loss": sd.Variable((), "a")}),),
            "probes 'loss' library",
        ),
        ((Line(), Line(0.1)), "probes[1] Line 'down' another"),
        ((Line([0.1, 0.2]),), "probes[0] Line length 2"),
        ((probe(lambda self, look: {"b": 1.0}),), "Made ['b'] ['a']"),
        ((probe(lambda self, look: {"a": jnp.ones(2)}),), "Made 'a' (2,) ()"),
        ((probe(lambda self, look: {"a": float(look.loss)}),), "Made Python jnp.where"),
    ],
)
def test_what_is_no_probe_is_one_sentence_before_anything_is_compiled(probes, words, tmp_path):
    sentence = refusal(lambda: run(experiment(probes=probes), tmp_path / "out"))
    assert all(word in sentence for word in words.split(" ")), sentence
    assert not (tmp_path / "out").exists()
