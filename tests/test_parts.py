"""Laws of parts: numbers never recompile, structure does, JSON goes out and back, what is wrong is one sentence."""

import dataclasses
import functools
import importlib
import json
import math
import pydoc
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _refusals import refusal
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdyn
from seqdyn import described, grids, parts
from seqdyn.grids import grid
from seqdyn.parts import Number, describe, number, part


def halved(x):
    return x / 2


@part
class Init:
    gain: Number = number(1.0, low=0)
    scheme: Literal["orthogonal", "gaussian"] = "orthogonal"


@part
class Leaky:
    """A layer, say."""

    hidden: int
    u: Init = Init()
    tau: Number = number(10.0, low=1.0)
    phi: Callable[..., Any] = jnp.tanh
    bound: float | None = None


@part
class Whole:
    """A spec, say."""

    layers: tuple[Leaky, ...]
    window: Number = number(10, low=1, whole=True)
    clip: Number = number(math.inf, above=0, infinite=True)
    rate: Number = number(0.5, above=0, below=1)
    momentum: Number = number(None, low=0, high=1)
    seed: Number = number(0, low=0, high=2**31 - 1, whole=True)
    name: str = ""


SPEC = Whole((Leaky(4), Leaky(8, Init(0.5), tau=2.0)))
TREE = jax.tree.structure


def through_json(value):
    return described.rebuilt(json.loads(json.dumps(describe(value), allow_nan=False)))


def test_what_stands_below_a_field_is_shown_by_help():
    @part
    class Told:
        """A cell, say."""

        hidden: int
        """Its width,
        in units."""
        tau: Number = number(10.0)

    assert Told.__doc__ == "A cell, say.\n\nFields:\n\nhidden\n    Its width,\n    in units."
    shown = pydoc.render_doc(seqdyn.Numbers, renderer=pydoc.plaintext)
    assert "gain\n |      Factor of the recurrent initialisation." in shown
    assert "Updates done before it." in seqdyn.Context.__doc__  # a NamedTuple
    assert "steps\n    T, time steps of a sequence" in seqdyn.Spec.__doc__  # of the class below it


# --- pytree -----------------------------------------------------------------------------------------------------


def test_another_number_compiles_nothing_and_another_structure_does():
    traced = []

    @jax.jit
    def total(spec):
        traced.append(spec)
        return sum(layer.tau * layer.u.gain for layer in spec.layers) + spec.window.astype(jnp.float32)

    for tau in (2, 3.5, np.float64(4), np.int32(5), jnp.float32(6)):
        spec = dataclasses.replace(SPEC, layers=(Leaky(4, tau=tau),))
        assert total(grids.arrays(spec)) == pytest.approx(float(tau) + 10)
    assert len(traced) == 1
    total(grids.arrays(dataclasses.replace(SPEC, layers=(Leaky(5),))))
    assert len(traced) == 2


def test_numbers_of_any_width_are_pythons():
    """The item of a longdouble is a longdouble again."""
    for found in (parts.listed(np.longdouble([0.5, 1.0])), parts.listed([np.longdouble(0.5), np.float16(1)])):
        assert found == [0.5, 1.0] and set(map(type, found)) == {float}
    assert [type(parts.plain(of(0.5))) for of in (np.longdouble, np.array, jnp.float32)] == [float] * 3
    allowed = parts.Range(0.0, 1.0, -math.inf, math.inf, whole=False, infinite=False)
    assert allowed.refuses(np.longdouble(2)) == "at least 0 and at most 1"
    assert seqdyn.grid(seqdyn.Spec(), gain=np.longdouble([0.5, 2.0])).numbers.gain.tolist() == [0.5, 2.0]


def test_structure_is_told_apart_by_value_and_type():
    @part
    class Any_:
        value: Any

    trees = [TREE(Any_(v)) for v in (1, 1.0, True, "1", (1,), ((1,),), (1.0,), None)]
    assert all((a == b) == (i == j) for i, a in enumerate(trees) for j, b in enumerate(trees))
    described_as = [json.dumps(describe(Any_(v))) for v in (1, 1.0, True, "1", (1,), (1.0,), None)]
    assert len(set(described_as)) == len(described_as) and Any_(1) != Any_(True) != Any_(1.0)


def test_a_field_is_a_branch_where_it_holds_a_part():
    @part
    class Maybe:
        init: Init | None = None

    assert jax.tree.leaves(Maybe()) == [] and jax.tree.leaves(Maybe(Init(0.25))) == [0.25]


def test_jax_may_rebuild_a_part_of_anything():
    for leaf in (None, object(), "word", jax.ShapeDtypeStruct((), jnp.float32)):
        rebuilt = jax.tree.map(lambda _, leaf=leaf: leaf, SPEC)
        assert rebuilt.layers[1].tau is leaf and rebuilt.layers[1].hidden == 8
    assert jax.tree.map(lambda v: v, SPEC) == SPEC
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(SPEC)]
    assert ".layers[1].u.gain" in paths and sorted(p.lstrip(".") for p in paths) == sorted(grids.numbers(SPEC))


def test_equal_parts_are_one_key_of_a_cache():
    made = []
    cached = functools.cache(made.append)
    for spec in (
        Leaky(4),
        Leaky(np.int64(4)),
        Leaky(4, tau=10),
        Leaky(4, tau=np.float32(10)),
        Leaky(4, Init()),
        Leaky(jnp.int32(4)),
    ):
        cached(spec)
    assert len(made) == 1
    cached(Leaky(4, tau=11))
    assert len(made) == 2


def test_a_class_defined_again_leaves_parts_of_the_old_one_parts():
    def cell():
        @part
        class Again:
            tau: Number = number(1.0)

        return Again()

    old, new = cell(), cell()
    assert parts.is_part(old) and parts.is_part(new) and old != new and jax.tree.leaves(old) == [1.0]


# --- JSON -------------------------------------------------------------------------------------------------------

finite = st.floats(1.0, 1e30)
layers = st.builds(
    Leaky,
    hidden=st.integers(1, 99),
    u=st.builds(Init, gain=finite, scheme=st.sampled_from(["orthogonal", "gaussian"])),
    tau=finite,
    phi=st.sampled_from([jnp.tanh, jax.nn.relu, halved]),
    bound=st.none() | st.just(math.inf) | st.just(-math.inf) | finite,
)
specs = st.builds(
    Whole,
    layers=st.lists(layers, max_size=3),
    window=st.integers(1, 1000),
    clip=finite | st.just(math.inf),
    momentum=st.none() | st.just(0.5),
    name=st.text(max_size=5) | st.just("inf"),
)


@settings(deadline=None)
@given(specs)
def test_a_part_written_and_read_is_the_same_part(spec):
    again = through_json(spec)
    assert (
        again == spec
        and TREE(again) == TREE(spec)
        and described.difference(describe(spec), describe(again), again) is None
    )
    assert jax.tree.leaves(grids.arrays(again)) == jax.tree.leaves(grids.arrays(spec))


def test_the_runs_of_a_grid_survive_json():
    runs = grid(SPEC, seeds=2, clip=[1.0, math.inf])
    again = through_json(runs)
    assert again == runs and again.clip.tolist() == [1.0, 1.0, math.inf, math.inf]
    assert describe(runs)["seed"] == {"runs": [0, 1, 0, 1]} and describe(runs)["rate"] == 0.5


def difference(there, here):
    return described.difference(there, describe(here), here)


def test_the_first_difference_is_told_by_its_path():
    def change(**changes):
        return difference(describe(SPEC), dataclasses.replace(SPEC, **changes))

    assert change() is None
    assert change(name="b") == ("name", "", "b")
    deep = (SPEC.layers[0], dataclasses.replace(SPEC.layers[1], u=Init(0.25), tau=3.0))
    assert change(layers=deep) == ("layers[1].u.gain", 0.5, 0.25)
    assert change(layers=SPEC.layers[:1])[0] == "layers"
    assert change(clip=1.0) == ("clip", {"float": "inf"}, 1.0)


def test_what_a_manifest_does_not_say_had_the_default():
    old = describe(SPEC)
    del old["rate"], old["layers"][0]["tau"], old["layers"][0]["u"]["scheme"]
    assert difference(old, SPEC) is None
    other = dataclasses.replace(SPEC, layers=(Leaky(4, tau=2.0), SPEC.layers[1]))
    assert difference(old, other) == ("layers[0].tau", 10.0, 2.0)
    assert difference(old | {"gone": 1}, SPEC) == ("gone", 1, "missing")


def test_a_manifest_imports_and_runs_nothing():
    for name in ("os:system", "subprocess:run", "builtins:exec"):
        sentence = refusal(described.rebuilt, describe(Leaky(4)) | {"phi": {"function": name}})
        assert name in sentence and "make a part or a Spec that holds it before" in sentence
    assert "x:Leaky" in refusal(described.rebuilt, {"part": "x:Leaky", "hidden": 4})
    assert "no field 'widths'" in refusal(described.rebuilt, describe(Leaky(4)) | {"widths": 1})


def test_a_name_may_be_given_and_functions_have_public_ones():
    @part(name="mine:Cell")
    class Moved:
        tau: Number = number(1.0)

    assert describe(Moved())["part"] == "mine:Cell" and through_json(Moved(2.0)) == Moved(2.0)
    assert describe(Leaky(1, phi=jax.nn.relu))["phi"] == {"function": "jax.nn:relu"}


def test_an_edited_function_is_seen_by_its_source(tmp_path, monkeypatch):
    found = described.sources(Leaky(4, phi=halved))
    assert set(found) == {"test_parts:Leaky", "test_parts:Init", "test_parts:halved"} and len(set(found.values())) == 3
    monkeypatch.syspath_prepend(tmp_path)
    for name, by in (("first", 2), ("edited", 3), ("same", 2)):
        (tmp_path / f"{name}.py").write_text(f"def shrunk(x):\n    return x / {by}\n", encoding="utf-8")
    digests = [
        described.sources(Leaky(4, phi=importlib.import_module(name).shrunk))[f"{name}:shrunk"]
        for name in ("first", "edited", "same")
    ]
    assert digests[0] == digests[2] != digests[1]
    assert described.sources(Leaky(4, phi=math.tanh)).keys() == {"test_parts:Leaky", "test_parts:Init"}  # has none


def test_an_edited_class_that_has_no_source_is_seen_by_its_code():
    """As one of a notebook, or typed at a prompt."""
    code = "class Typed:\n    rate: float = 1.0\n\n    def build(self):\n        return [lambda x: x {} 2]\n"
    made = []
    for sign in "*/*":
        there = {"__name__": "typed"}
        exec(code.format(sign), there)
        made.append(described.sources(part(there["Typed"], name="typed:Typed")())["typed:Typed"])
    assert made[0] == made[2] != made[1]


# --- what is wrong ----------------------------------------------------------------------------------------------


def with_lambda():
    return Leaky(4, phi=lambda x: x)


def with_inner():
    def inner(x):
        return x

    return Leaky(4, phi=inner)


def with_init_var():
    @part
    class Late:
        rate: dataclasses.InitVar[float] = 1.0

    Late()


def with_a_lost_attribute():
    @part
    class Late:
        def __post_init__(self):
            object.__setattr__(self, "rate", 1.0)

    Late()


@dataclasses.dataclass(frozen=True)
class NoPart:
    gain: float = 1.0


@pytest.mark.parametrize(
    "make, words",
    [
        (with_lambda, "Leaky.phi <lambda> top of a file"),
        (with_inner, "Leaky.phi inner top of a file"),
        (lambda: Leaky(4, u=NoPart()), "Leaky.u NoPart @part"),
        (lambda: Leaky(4, u=optax.adam(1e-3)), "Leaky.u optax build()"),
        (lambda: Leaky(4.5), "Leaky.hidden 4.5 whole"),
        (lambda: Leaky(True), "Leaky.hidden True whole"),
        (lambda: Leaky("4"), "Leaky.hidden '4' whole"),
        (lambda: Leaky(4, bound=math.nan), "Leaky.bound nan"),
        (lambda: Leaky(4, bound=np.zeros(3)), "Leaky.bound (0.0, number None"),
        (lambda: Leaky(4, u={"gain": 1}), "Leaky.u dict"),
        (lambda: Leaky(4, u=np.eye(3)), "Leaky.u [1., ndarray function"),  # which prints as three lines
        (lambda: Init(scheme="identity"), "Init.scheme 'identity' 'orthogonal' 'gaussian'"),
        (lambda: Whole((Leaky(4), 8)), "Whole.layers each Leaky"),
        (lambda: Leaky(4, tau=0.5), "Leaky.tau 0.5 at least 1"),
        (lambda: Leaky(4, tau="slow"), "Leaky.tau 'slow' number"),
        (lambda: Leaky(4, tau=True), "Leaky.tau True number"),
        (lambda: Leaky(4, tau=math.nan), "Leaky.tau nan finite"),
        (lambda: Leaky(4, tau=math.inf), "Leaky.tau inf finite"),
        (lambda: Leaky(4, tau=1e39), "Leaky.tau 1e+39 32-bit"),
        (lambda: Whole((), clip=0.0), "Whole.clip 0.0 above 0"),
        (lambda: Whole((), clip=-math.inf), "Whole.clip -inf"),
        (lambda: Whole((), rate=1.0), "Whole.rate 1.0 above 0 and below 1"),
        (lambda: Whole((), window=2.5), "Whole.window 2.5 whole"),
        (lambda: Whole((), momentum=1.5), "Whole.momentum 1.5 at least 0 and at most 1"),
        (lambda: Leaky(4, tau=[]), "Leaky.tau [] number"),
        (lambda: Leaky(4, tau={}), "Leaky.tau {} number"),
        (lambda: Whole((), window=2**31), "Whole.window 2147483648 below 2³¹"),
        (lambda: grid(SPEC, window=[2**40]), "window 1099511627776 below 2³¹"),
        (lambda: grid(SPEC, tau={2.0: 1}), "tau {2.0: number"),
        (lambda: part(dataclasses.dataclass(frozen=True)(type("Twice", (), {}))), "Twice dataclass @part"),
        (with_init_var, "Late InitVar field"),
        (with_a_lost_attribute, "Late.rate set property"),
        (lambda: grid(SPEC, tau=[2.0, 0.5]), "tau 0.5 at least 1"),
        (lambda: grid(SPEC, lr=[1e-3]), "'lr' layers[0].tau"),
        (lambda: grid(SPEC, clip=[]), "clip no values"),
        (lambda: grid(SPEC, seeds=0), "seeds 0 at least one"),
        (lambda: grid(SPEC, seeds=[1, -1]), "seed -1 at least 0"),
        (lambda: grid(SPEC, tau=2.0, **{"layers[0].tau": 3.0}), "'tau' 'layers[0].tau' one"),
        (lambda: grid(dataclasses.replace(SPEC, rate=np.array([0.1, 0.2]))), "rate 2 axis"),
        (lambda: grid(Init()), "Init seed"),
    ],
)
def test_what_is_wrong_is_one_sentence(make, words):
    sentence = refusal(make)
    missing = [word for word in words.split(" ") if word not in sentence]
    assert not missing, sentence


def test_a_class_below_a_part_is_a_part_only_if_it_says_so():
    class Below(Leaky):
        pass

    assert "Below" in refusal(Below, 4) and "@part" in refusal(Below, 4)

    @part
    class Said(Leaky):
        extra: Number = number(1.0)

    assert len(jax.tree.leaves(Said(4))) == 3


def test_what_a_part_does_once_it_is_made_is_done_by_those_below_it_too():
    seen = []

    @part
    class Above:
        a: int = 1

        def __post_init__(self):
            seen.append(type(self).__name__)

        @functools.cached_property
        def twice(self):
            return 2 * self.a

        def check(self):
            assert self.twice == 2 * self.a  # is kept beside the fields, and made again where it is not

    @part
    class Below(Above):
        b: int = 2

    @part
    class Lowest(Below):
        c: int = 3

        def __post_init__(self):
            super().__post_init__()

    Above(), Below(3), Lowest(3)
    assert seen == ["Above", "Below", "Lowest"]


def test_a_check_of_its_own_comes_after_the_others_and_sees_plain_values():
    seen = []

    @part
    class Checked:
        sizes: tuple[int, ...]

        def check(self):
            seen.append(self.sizes)

    Checked([np.int64(3), 4])
    assert seen == [(3, 4)] and type(seen[0][0]) is int
    refusal(Checked, (1.5,))
    assert len(seen) == 1


def test_a_field_called_a_list_takes_one_and_a_part_may_have_slots():
    @part
    class Listed:
        sizes: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
        more: list = dataclasses.field(default_factory=list)

    @part
    class Slotted:
        __slots__ = ("a",)
        a: int

    assert (Listed().sizes, Listed([3]).sizes, Listed().more, Slotted(3).a) == ((1, 2), (3,), (), 3)
    assert "Listed.sizes" in refusal(Listed, ["a"])


# --- grids ------------------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_of_its_axes_with_seeds_fastest():
    runs = grid(SPEC, seeds=range(5, 7), clip=[1.0, math.inf], rate=np.array([0.25]))
    assert runs.seed.tolist() == [5, 6, 5, 6] and runs.clip.tolist() == [1.0, 1.0, math.inf, math.inf]
    assert runs.rate.tolist() == [0.25] * 4


def at(runs, i):
    return jax.tree.map(lambda leaf: leaf[i], runs)


def test_a_run_of_a_grid_is_the_spec_with_its_numbers():
    runs = grid(SPEC, seeds=2, tau=[2.0, 3.0], **{"layers[1].u.gain": [0.1, 0.7]})
    for i in range(len(runs.seed)):
        alone = at(runs, i)
        layers = tuple(dataclasses.replace(layer, tau=[2.0, 3.0][i // 4]) for layer in SPEC.layers)
        layers = layers[0], dataclasses.replace(layers[1], u=Init([0.1, 0.7][i // 2 % 2]))
        assert alone == dataclasses.replace(SPEC, layers=layers, seed=i % 2)
        assert TREE(alone) == TREE(SPEC)


def test_an_axis_is_the_end_of_a_path_that_means_one_thing():
    for name in ("gain", "u.gain"):
        assert [layer.u.gain.tolist() for layer in grid(SPEC, **{name: [0.5]}).layers] == [[0.5], [0.5]]

    @part
    class Two:
        w: Init = Init()
        u: Init = Init()
        seed: Number = number(0, whole=True)

    assert all(word in refusal(grid, Two(), gain=[1.0]) for word in ("'gain'", "w.gain", "u.gain"))
    assert at(grid(Two(), **{"w.gain": [0.5]}), 0).w.gain == 0.5
    assert at(grid(Two(), **{"w.gain": [0.5]}), 0).u.gain == 1.0


def test_only_a_class_is_a_part_and_ends_of_a_range_are_numbers():
    assert "must stand above a class" in refusal(part, lambda: 1)
    for ends in (dict(low="0"), dict(high=None), dict(above=True)):
        assert "it must be a number" in refusal(number, 1.0, **ends)
    for ends in (dict(low=1, high=0), dict(above=1.0, high=0.5), dict(low=math.nan)):
        assert "some number must be" in refusal(number, 1.0, **ends)


def test_a_whole_number_that_no_float_holds_is_refused_as_any_that_is_too_large():
    assert "in size, as 32-bit floats are" in refusal(grid, SPEC, tau=[10**400])
    assert "it must be at least 1" in refusal(grid, SPEC, tau=[-(10**400)])
    assert "below 2³¹ in size" in refusal(grid, SPEC, seeds=[10**400])


def test_what_no_dataclass_can_be_is_a_sentence():
    def part_of(**body):
        return refusal(part, type("Odd", (), body))

    assert "Odd cannot be a part: mutable default" in part_of(__annotations__={"names": list}, names=[])
    assert "Odd cannot be a part: 'lr' is a field but has no type annotation" in part_of(lr=number(0.1))


def test_an_array_in_a_field_is_kept_as_a_tuple_and_must_be_annotated_so():
    @part
    class Scaled:
        scale: np.ndarray

    @part
    class Tupled:
        scale: tuple[float, ...]

    assert "it must be annotated as a tuple, which an array becomes" in refusal(Scaled, np.ones(3))
    assert Tupled(np.ones(3)).scale == (1.0, 1.0, 1.0)
