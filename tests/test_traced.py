"""Law: what a user's code draws by other means than keys is refused before anything is compiled or written."""

import dis
import functools
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _refusals import refusal

import seqdyn as sd
from seqdyn import watch
from seqdyn.described import reads
from seqdyn.runs.environment import environment
from seqdyn.runs.traced import check_traces

X64 = False
RNG = np.random.default_rng()
WHOLE = np.random.default_rng(0).normal(size=(3, 3))


def drawn(by, shape=()):
    """A number, or a matrix, by NumPy's generator if asked, else always the same."""
    return RNG.normal(size=shape) if by == "numpy" else WHOLE if shape else 0.5


@jax.jit
def jittered(x):
    """What a user has jitted, which JAX traces once."""
    return RNG.normal() * x


@jax.jit
def doubled(x):
    return 2.0 * x


@sd.part
class Jittery:
    """A cell whose weights shake in its step (or whose build draws a matrix)."""

    by: str
    built: bool = False

    def build(self, inputs: int) -> sd.Cell:
        fixed = drawn(self.by, (3, 3)) if self.built else np.zeros((3, 3))

        def step(p, h, x):
            shaken = p["u"] + fixed if self.built else p["u"] + 1e-3 * drawn(self.by, (3, 3))
            return jnp.tanh(x @ p["w"] + h @ shaken)

        def init(key):
            w, u = jax.random.split(key)
            return {"w": jax.random.normal(w, (inputs, 3)), "u": jax.random.normal(u, (3, 3))}

        return sd.cell(init, step, lambda batch: jnp.zeros((*batch, 3)))


@sd.part
class Noisy:
    """As a rule, a schedule or a loss."""

    by: str
    what: str

    def build(self):
        if self.what == "rule":
            return optax.stateless(lambda g, p: jax.tree.map(lambda leaf: -0.01 * drawn(self.by) * leaf, g))
        if self.what == "memory":
            return optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(int(100 * drawn(self.by)))), optax.sgd(0.1))
        if self.what == "schedule":
            return lambda done: 1.0 + drawn(self.by) * done
        if self.what == "jitted":
            scaled = jittered if self.by == "numpy" else doubled
            return lambda prediction, y: scaled(prediction[..., 0] - y[..., 0]) ** 2
        return lambda prediction, y: drawn(self.by) * (prediction[..., 0] - y[..., 0]) ** 2


@sd.part
class Written:
    """As a record, a probe or a penalty."""

    by: str
    weight: sd.Number = sd.number(0.1)
    variables = {"written": sd.Variable((), "a number")}
    reads = "weights"

    def record(self, context):
        return {"written": drawn(self.by) * context.loss}

    def measure(self, look):
        return {"written": drawn(self.by) * look.loss_of(look.params)}

    def value(self, seen):
        return abs(drawn(self.by)) * jnp.sum(seen.params.readout.w**2)


PLACES = {
    "a step": lambda by: dict(layers=(Jittery(by),)),
    "a build": lambda by: dict(layers=(Jittery(by, built=True),)),
    "a rule": lambda by: dict(optimizer=Noisy(by, "rule")),
    "what a rule begins with": lambda by: dict(optimizer=Noisy(by, "memory")),
    "a link": lambda by: dict(optimizer=(Noisy(by, "rule"), sd.SGD(0.1))),
    "a schedule": lambda by: dict(schedule=Noisy(by, "schedule")),
    "a loss": lambda by: dict(loss=Noisy(by, "loss")),
    "a loss that is jitted": lambda by: dict(loss=Noisy(by, "jitted")),
    "a record": lambda by: dict(records=(Written(by),)),
    "a penalty": lambda by: dict(penalties=(Written(by),)),
    "a probe": lambda by: dict(probes=(Written(by),)),
}


def experiment(fields):
    probes = fields.pop("probes", ())
    spec = sd.Spec(**{"steps": 4, "batch": 2, "holdout": 2, "hidden": (3,)} | fields)
    return sd.Experiment("x", spec, updates=2, probes=probes)


@pytest.mark.parametrize("place", PLACES)
def test_what_draws_without_a_key_is_refused_wherever_it_stands(place):
    def tried():
        check_traces(experiment(PLACES[place]("numpy")), None)

    sentence, own = refusal(tried), {"Jittery", "Noisy", "Written"}
    assert sum(name in sentence for name in own) == 1
    assert "something else each time" in sentence and "jax.random" in sentence


@pytest.mark.parametrize("place", PLACES)
def test_what_is_always_the_same_is_taken(place):
    check_traces(experiment(PLACES[place]("constant")), None)


KEPT = {}


def kept(x):
    """What the first call that asks is given."""
    return KEPT.setdefault("first", x)


@sd.part
class Keeping:
    """Each of these with what it saw in another call."""

    variables = {"kept": sd.Variable((), "a number")}

    def build(self, *inputs):
        def step(p, h, x):
            return jnp.tanh(x @ p["w"] + h @ kept(p["u"]))

        if inputs:
            both = {"w": jnp.ones((*inputs, 3)), "u": jnp.ones((3, 3))}
            return sd.cell(lambda key: both, step, lambda batch: jnp.zeros((*batch, 3)))
        return optax.stateless(lambda g, p: jax.tree.map(lambda leaf: -kept(p.readout.b[0]) * leaf, g))

    def record(self, context):
        return {"kept": kept(context.loss)}

    def measure(self, look):
        return {"kept": kept(look.loss)}

    def init(self, key):
        return jnp.ones(3)

    def loss(self, params, batch, key):
        last, _ = watch.scan(lambda h, x: (h + x, None), kept(params), jnp.ones(4), batch=None)
        return jnp.sum(last), {"kept": 0.0}


@pytest.mark.parametrize(
    "fields",
    [
        dict(layers=(Keeping(),)),
        dict(network=Keeping(), hidden=(32,)),
        dict(optimizer=Keeping()),
        dict(records=(Keeping(),)),
        dict(probes=(Keeping(),)),
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_an_array_of_another_call_is_refused_wherever_it_is_kept(fields):
    def tried():
        KEPT.clear()
        check_traces(experiment(dict(fields)), None)

    sentence = refusal(tried)
    assert "Keeping" in sentence and "keeps an array of one call for another" in sentence


@sd.part
class Twice:
    """Parameters of which two have one name where they are saved."""

    def init(self, key):
        return {"a/b": jnp.ones(3), "a": {"b": jnp.ones(3)}}

    def loss(self, params, batch, key):
        begun = params["a/b"] * params["a"]["b"]
        return jnp.sum(watch.scan(lambda h, x: (h + x, None), begun, jnp.ones(4), batch=None)[0])


def test_parameters_that_could_not_be_restored_are_refused_before_they_are_trained(tmp_path):
    sentence = refusal(sd.run, experiment(dict(network=Twice(), hidden=(32,))), tmp_path / "out")
    assert "two arrays of the name a/b" in sentence and not (tmp_path / "out").exists()


TRACED = []


@sd.part
class Counted:
    """A penalty that notes when it is traced."""

    weight: sd.Number = sd.number(0.1)
    reads = "weights"

    def value(self, seen):
        TRACED.append(self)
        return jnp.sum(seen.params.readout.w**2)


@functools.cache
def _sized():
    """What is asked once: its trace stands where it is asked first, and nothing uses it."""
    return jax.random.normal(jax.random.key(0), (3,)).shape[0]


@sd.part
class Sized:
    """A penalty that asks for a size that is known from then on."""

    weight: sd.Number = sd.number(0.1)
    reads = "weights"

    def value(self, seen):
        return _sized() * jnp.sum(seen.params.readout.w**2)


def test_what_is_made_once_and_kept_is_no_other_program():
    _sized.cache_clear()
    check_traces(experiment(dict(penalties=(Sized(),))), None)


def test_new_numbers_are_not_traced_again_and_another_spec_is():
    fields = [dict(penalties=(Counted(weight),), steps=steps) for weight, steps in ((0.1, 4), (0.2, 4), (0.2, 5))]
    counts = []
    for each in [experiment(of) for of in fields]:
        TRACED.clear()
        check_traces(each, None)
        counts.append(len(TRACED))
    assert counts[0] == counts[2] > 1 and counts[1] == 0


SIZE, MATRIX, CALLS = 1.0, np.ones(3), 0


def helped(x):
    return SIZE * x + jnp.sum(MATRIX)


class Reading:
    """A penalty that reads its module, by a function that it calls, and counts how often."""

    weight: sd.Number = sd.number(0.1)
    reads = "weights"

    def value(self, seen):
        global CALLS
        CALLS += 1
        return helped(jnp.sum(seen.params.readout.w**2))


def test_what_code_reads_of_its_module_is_known_and_a_change_that_no_program_would_heed_is_refused(monkeypatch):
    part = sd.part(type("Reading", (Reading,), {"__annotations__": Reading.__annotations__, "__module__": __name__}))
    other = sd.part(type("Reading", (Reading,), {"__annotations__": Reading.__annotations__, "__module__": __name__}))
    there = reads(part)
    assert {*there} == {f"{__name__}:{name}" for name in ("helped", "SIZE", "MATRIX")}
    assert there[f"{__name__}:SIZE"] == "1.0"
    asked = experiment(dict(penalties=(part(),)))
    assert environment(asked)["reads"] == there and "reads" not in environment(experiment({}))
    check_traces(asked, None)
    for name, value in {"SIZE": 2.0, "MATRIX": np.zeros(3), "helped": lambda x: SIZE + x + MATRIX[0]}.items():
        with monkeypatch.context() as changed:
            changed.setitem(globals(), name, value)
            sentence = refusal(check_traces, experiment(dict(penalties=(part(),))), None)
            assert f"{__name__}:{name} has changed since Reading" in sentence
            check_traces(experiment(dict(penalties=(other(),))), None) if name == "SIZE" else None
    check_traces(experiment(dict(penalties=(part(),))), None)
    check_traces(experiment({}), None)
    monkeypatch.setitem(globals(), "readout", 1.0)  # the code names an attribute so, and no value of the module
    assert reads(part) == there


HELPING = """
import jax

SCALES, TABLE, LOG, SEEN = [1.0, 2.0], {"a": {"b": 1.0}}, [], {}


@jax.jit
def scaled(x):
    return SCALES[0] * noted(x)


def noted(x):
    SEEN[len(SEEN)] = 0
    return x


def logged(x):
    LOG.append(0)
    return x * TABLE["a"].get("b")
"""
READER = """
import jax.numpy as jnp, seqdyn as sd
import helping
from helping import logged

HALF = jnp.ones(1)


@sd.part
class Reader:
    weight: sd.Number = sd.number(0.1)
    reads = "weights"

    def value(self, seen):
        return HALF[0] * logged(helping.scaled(jnp.sum(seen.params.readout.w**2)))
"""


def test_helpers_of_another_module_and_their_lists_and_tables_are_read_too_but_not_what_they_fill(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {"helping": HELPING, "reader": READER}.items():
        (tmp_path / f"{name}.py").write_text(text)
    helping, reader = map(importlib.import_module, ("helping", "reader"))
    there = reads(reader.Reader)
    assert {*there} == {f"helping:{n}" for n in ("scaled", "noted", "SCALES", "TABLE")} | {
        "reader:logged",
        "reader:HALF",
    }
    assert there["helping:SCALES"] == "[1.0, 2.0]"
    asked = experiment(dict(penalties=(reader.Reader(),)))
    check_traces(asked, None)
    check_traces(asked, None)  # LOG is longer now, and no constant
    helping.TABLE["a"]["b"] = 2.0
    assert "helping:TABLE has changed since Reader" in refusal(check_traces, asked, None)


def filling(x):
    FILLED.append(x)
    SAME.items()
    return SAME["a"] * ONE[0] + filled()


def filled():
    return len(FILLED) + len(dis.opmap)


FILLED, SAME, ONE = [], {"a": 1.0}, (3.0,)


def test_a_list_that_one_function_fills_is_left_out_where_another_reads_it():
    found = {name.partition(":")[2]: said for name, said in reads(filling).items()}
    assert {*found} == {"SAME", "ONE", "filled"} and found["ONE"] == "(3.0,)"


def test_nothing_is_written_for_such_a_run(tmp_path):
    assert "Noisy" in refusal(lambda: sd.run(experiment(PLACES["a loss"]("numpy")), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_probe_after_the_fact_is_held_to_the_same(tmp_path):
    sd.run(experiment({}), tmp_path / "out", verify=False)
    assert "Written" in refusal(lambda: sd.probe(tmp_path / "out", Written("numpy"), steps=[2]))


@sd.part
class Shrinks:
    """Only one of its numbers is used, in one branch."""

    used: sd.Number = sd.number(0.1)
    idle: sd.Number = sd.number(0.1)

    def build(self):
        return lambda prediction, y: jax.lax.cond(y.sum() > 0, lambda e: self.used * e, jnp.square, prediction[..., 0])


@sd.part
class Begins:
    """A cell that uses its number where it begins alone."""

    wide: sd.Number = sd.number(1.0)

    def build(self, inputs):
        def init(key):
            return {"w": self.wide * jax.random.normal(key, (inputs, 3))}

        return sd.cell(init, lambda p, h, x: jnp.tanh(x @ p["w"]) + 0.5 * h, lambda batch: jnp.zeros((*batch, 3)))


@pytest.mark.parametrize(
    "fields, axes, told",
    [
        (dict(loss=Shrinks()), dict(idle=[0.1, 0.2]), ["loss.idle differs among the runs"]),
        (dict(loss=Shrinks()), dict(idle=0.3), []),
        (dict(loss=Shrinks()), dict(idle=[0.1, 0.2], used=[0.1, 0.2], seeds=2), ["loss.idle differs among the runs"]),
        (dict(loss=Shrinks()), dict(used=[0.1, 0.2], gain=[0.5, 1.0]), []),
        (dict(layers=(Begins(),), loss=Shrinks()), dict(wide=[1.0, 2.0], used=[0.1, 0.2]), []),
    ],
)
def test_an_axis_on_which_nothing_depends_is_told(fields, axes, told):
    spec = sd.Spec(**dict(steps=4, batch=2, holdout=2) | fields)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        check_traces(sd.Experiment("x", sd.grid(spec, **axes), updates=1, probes=()), None)
    assert [str(one.message).partition(" of rnn")[0] for one in heard] == told
    assert all(str(one.message).endswith(": runs that differ in it alone are the same") for one in heard)
