"""Which seeds decide, what their runs count as, and when a claim of them holds."""

import dataclasses
import itertools
import json
import runpy
import sys
from importlib import import_module
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import tyro
import xarray as xr
from _refusals import refusal
from scipy.stats import beta, binom, quantile_test

import seqdyn as sd
from analysis import claimants, claims, exploding, outcomes, power, replicated, reproduced
from analysis.claims import Claim, interval, minus, of, prevails
from experiments import gating, gradient_flow
from experiments.exploding import PerTensor
from experiments.reproduce import _cases
from seqdyn.data.text import SPECIAL, Examples, Text
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import manifest, points, script
from seqdyn.runs.records import load
from seqdyn.runs.script import seeds
from seqdyn.types import ConfigError

X64 = False


@pytest.mark.parametrize(
    ("text", "meant"), [("3", [0, 1, 2]), ("3:6", [3, 4, 5]), ("3,5,8", [3, 5, 8]), ("(8, 5)", [8, 5]), ("7,", [7])]
)
def test_seeds_are_how_many_a_range_or_a_list(text, meant):
    chosen = tyro.cli(gradient_flow.Config, args=["--seeds", text])
    assert seeds(chosen.seeds) == meant
    assert gradient_flow.experiment(chosen).numbers.seed[: len(meant)].tolist() == meant
    shown = tyro.cli(gradient_flow.Config, args=[], default=chosen)  # --help and errors print it in the form it takes
    assert shown.seeds == chosen.seeds


@pytest.mark.parametrize(
    "text", ["3:3", "6:3", "3,3", "a", "1.5", "3:", "", "1:2:3", "1,,2", "0:99999999999", "99999999999"]
)
def test_seeds_that_are_none_are_refused_in_a_sentence(text, capsys):
    with pytest.raises(SystemExit) as refused:
        tyro.cli(gating.Config, args=["--seeds", text])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert refused.value.code == 2 and f"seeds is {text!r}; it must be" in said


# --- intervals and verdicts -----------------------------------------------------------------------------------

HALF = Claim("more than half", "proportion", of("learned"), 0.5)
MEDIAN = Claim("above 0", "median", of("learned"), 0.0)


@pytest.mark.parametrize("text", ["[{", '{"a": 1}', "[1]", '[{"a": "b"}]', ""])
def test_a_table_of_another_kind_is_named_before_anything_is_printed(text, tmp_path, capsys):
    (tmp_path / claims.TOLD).write_text(text)
    sentence = refusal(claims.main, claims.Config((tmp_path,)))
    assert str(tmp_path / claims.TOLD) in sentence and not capsys.readouterr().out


@pytest.mark.parametrize(("k", "n", "level"), [(0, 10, 0.95), (7, 20, 0.95), (20, 20, 0.99), (3, 9, 0.995)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(k, n, level):
    """Its ends are quantiles of beta distributions."""
    low, high = interval("proportion", np.repeat([1.0, 0.0], [k, n - k]), level)
    assert low == pytest.approx(beta.ppf((1 - level) / 2, k, n - k + 1) if k else 0.0)
    assert high == pytest.approx(beta.ppf((1 + level) / 2, k + 1, n - k) if k < n else 1.0)


@pytest.mark.parametrize("n", [10, 40])
def test_the_interval_of_a_share_covers_any_coins_at_least_as_often_as_it_says(n):
    """The exact chance, over all outcomes of n tosses; also at the level of one of 11 claims made at once, where
    Wilson's does not."""
    tosses = np.arange(n + 1)
    for level in (0.95, 1 - 0.05 / 11):
        ends = np.array([interval("proportion", np.repeat([1.0, 0.0], [k, n - k]), level) for k in tosses])
        for p in (0.05, 0.3, 0.5, 0.77):
            covers = (ends[:, 0] <= p) & (p <= ends[:, 1])
            assert level <= np.sum(binom.pmf(tosses, n, p) * covers) <= 1 - 1e-9
        verdicts = [claims.decide(low, high, 0.5, "above") for low, high in ends]
        assert set(verdicts) == {"holds", "undecided", "does not hold"}


@pytest.mark.slow
def test_the_interval_of_a_median_covers_it_at_least_as_often_as_it_says():
    """Of a skewed distribution, at several numbers of seeds; 0.9 so that it would show if it were wider than asked."""
    draws = np.random.default_rng(0)
    for n in (5, 10, 23):
        ends = np.array([interval("median", draws.exponential(size=n), 0.9) for _ in range(1000)])
        covered = np.mean((ends[:, 0] <= np.log(2)) & (np.log(2) <= ends[:, 1]))
        assert 0.89 <= covered <= 0.98, (n, covered)


def test_the_ranks_of_a_median_s_interval_are_the_sign_tests():
    for n in (*range(1, 40), 101, 1000):
        for level in (0.9, 0.95, 1 - 0.05 / 1824):
            right = quantile_test(np.arange(n, dtype=float), p=0.5).confidence_interval(level)
            found = claims.ranks(n, level)
            assert [np.nan if rank is None else rank for rank in found] == pytest.approx([*right], nan_ok=True)
    assert interval("median", np.array([]), 0.9) == interval("median", np.full(9, np.nan), 0.9) == (-np.inf, np.inf)


def test_three_seeds_decide_nothing_and_least_says_how_many_would():
    for kind in ("proportion", "median", "difference", "slope"):
        for side, values, threshold in (("above", 1.0, 0.5), ("below", 0.0, 0.5), ("within", 0.0, 0.5)):
            if (kind, side) == ("proportion", "within"):
                continue
            claim = Claim("x", kind, of("learned"), threshold, side)
            assert claims.tested(claim, np.full(3, values), 0.95).verdict == "undecided"
            enough = claims.least(claim, 0.95)
            assert claims.tested(claim, np.full(enough - 1, values), 0.95).verdict == "undecided"
            assert claims.tested(claim, np.full(enough, values), 0.95).verdict == "holds"
            assert (
                claims.tested(claim, np.full(enough, 1.0 - values), 0.95).verdict == "does not hold" or side == "within"
            )
    assert (
        claims.tested(MEDIAN, np.zeros(0), 0.95).verdict
        == claims.tested(HALF, np.zeros(0), 0.95).verdict
        == "undecided"
    )


def test_what_was_never_reached_is_larger_than_anything():
    """A censored value may be infinite: a median and its interval stay what they are."""
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, np.inf, np.inf, np.inf])
    found = claims.tested(MEDIAN, values, 0.95)
    assert found.value == 5.5 and found.low == 2.0 and found.high == np.inf and found.verdict == "holds"


# --- statistics -----------------------------------------------------------------------------------------------


def table(**columns):
    return xr.Dataset({name: ("run", np.asarray(values)) for name, values in columns.items()})


def test_a_paired_difference_sees_what_two_medians_do_not():
    """Seeds differ by far more than two settings do."""
    luck = np.random.default_rng(1).normal(0, 10, 20)
    runs = table(
        seed=np.tile(np.arange(20), 2), gain=np.repeat([1.0, 2.0], 20), loss=np.concatenate([luck, luck + 0.1])
    )
    low, high = of("loss", gain=1.0), of("loss", gain=2.0)
    paired = claims.tested(Claim("x", "difference", minus(high, low), 0.0), minus(high, low)(runs).values, 0.95)
    assert paired.verdict == "holds" and paired.value == pytest.approx(0.1)
    apart = [interval("median", one(runs).values, 0.95) for one in (low, high)]
    assert apart[0][1] > apart[1][0]  # they overlap
    shuffled = runs.isel(run=np.random.default_rng(2).permutation(40))
    np.testing.assert_allclose(minus(high, low)(shuffled), 0.1)  # by seed, not by place


def test_a_seeds_value_is_the_mean_of_its_runs_and_pairs_are_of_seeds_that_both_have():
    runs = table(
        seed=[0, 0, 1, 1, 2], label=["a", "b", "a", "b", "a"], clip=[1.0, np.inf, 1.0, np.inf, 1.0],
        learned=[1.0, 0.0, 1.0, 1.0, 0.0],
    )  # fmt: skip
    assert of("learned", label=("a", "b"))(runs).values.tolist() == [0.5, 1.0, 0.0]
    a, b = of("learned", label="a"), of("learned", clip=np.inf)
    assert minus(a, b)(runs).values.tolist() == [1.0, 0.0]
    assert prevails(a, b)(runs).values.tolist() == [1.0]  # seed 1 does not say which is better
    for nowhere in ({"label": "c"}, {"gain": 1.0}):
        with pytest.raises(claims.NotRun):
            of("learned", **nowhere)(runs)


def test_of_settings_that_nothing_tells_apart_neither_prevails():
    drawn = [one for one in itertools.product([0.0, 1.0], repeat=4) for _ in range(2 ** one.count(0.0))]  # p = 1/3
    seeds, learned = np.repeat(range(len(drawn)), 4), np.ravel(drawn)
    runs = table(seed=seeds, clip=np.tile([1.0, 2.0, 3.0, 4.0], len(drawn)), learned=learned)
    assert prevails(of("learned", clip=(1.0, 2.0)), of("learned", clip=(3.0, 4.0)))(runs).values.mean() == 0.5
    assert prevails(of("learned", clip=1.0), of("learned", clip=3.0))(runs).values.mean() == 0.5
    several, one = of("learned", clip=(1.0, 2.0)), of("learned", clip=3.0)
    change = minus(several, one)(runs).values
    assert np.mean(change[change != 0] > 0) == pytest.approx(5 / 9)  # (2 − p) / 3: by chance alone
    with pytest.raises(ValueError, match="2 and of 1 settings"):
        prevails(several, one)


# --- runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Two seeds that go on and two that overflow at once."""
    spec = Spec(steps=6, batch=2, hidden=(3,), activation="relu", holdout=6, optimizer="sgd", name="x")
    e = Experiment("gradient_flow", (spec,), grid(seeds=2, lr=[1e-3, 1e30]), 4, 2, 2, tile=4, probes=())
    return sd.run(e, tmp_path_factory.mktemp("claims") / "run", verify=False, config={"smoke": False})


def test_a_run_that_diverged_counts_as_said(part):
    runs = outcomes.columns(part)
    gone = runs["lr"].values > 1
    np.testing.assert_array_equal(runs["diverged"], gone)
    for name in ("usable", "learned", "horizon_end"):
        assert not runs[name].values[gone].any(), name
    assert (runs["horizon_end"].values[~gone] > 0).all() and (runs["horizon_start"].values > 0).all()
    assert (runs["learned"].values == 0).all()  # the others are censored, not missing
    assert np.isinf(runs["learned_at"]).all() and {*outcomes.VALUES} <= {*runs}
    np.testing.assert_array_equal(np.isinf(runs["test_loss"]), gone)
    assert np.isfinite(runs["largest_gradient"]).all() and np.isfinite(runs["slope_start"]).all()
    assert of("diverged", lr=1e30)(runs).values.tolist() == [1.0, 1.0]


def test_what_reproductions_measure_is_what_the_records_say(part):
    runs, ds = reproduced.columns(part), load(part)
    assert {*reproduced.VALUES} <= {*runs.data_vars}
    norms = ds["adjoint_norm"].values[:, 0, 0, ::-1].astype(float)  # lag 0 first
    np.testing.assert_allclose(runs["change_start"], np.log10(norms[:, -1] / norms[:, 0]), rtol=1e-6)
    np.testing.assert_allclose(runs["kept_start"] ** (norms.shape[1] - 1), norms[:, -1] / norms[:, 0], rtol=1e-6)
    np.testing.assert_allclose(runs["spread_start"], np.log10(norms.max(axis=1) / norms.min(axis=1)), rtol=1e-6)
    gone = runs["lr"].values > 1
    assert np.isnan(runs["change_end"].values[gone]).all() and np.isfinite(runs["change_end"].values[~gone]).all()
    assert np.isnan(runs["kept_c_start"]).all() and (runs["speed"] == 0).all()  # without c; none learned
    np.testing.assert_allclose(runs["loss_share"].values[~gone], ds["test_loss"].values[~gone, -1] * 6, rtol=1e-5)
    far = reproduced.less(of("kept_start", lr=1e-3), 0.5)(runs)
    np.testing.assert_allclose(far, of("kept_start", lr=1e-3)(runs) - 0.5)


def test_sooner_is_of_the_seeds_that_differ_and_what_never_learned_is_later_than_anything():
    at = np.array([100, np.inf, 200, np.inf, 200, 100, 200, np.inf])
    runs = table(seed=np.tile(range(4), 2), label=np.repeat(["a", "b"], 4), speed=reproduced.speed(at))
    assert reproduced.sooner("a", "b")(runs).values.tolist() == [1.0, 0.0]
    assert reproduced.sooner("b", "a")(runs).values.tolist() == [0.0, 1.0]


def test_claims_made_at_once_are_each_made_at_a_higher_level_and_those_not_run_are_not_made(part):
    of_all = [dataclasses.replace(HALF, statistic=of("diverged", lr=1e30), statement=f"{i}") for i in range(10)]
    missing = Claim("of what was not run", "proportion", of("diverged", gain=7.0), 0.5)
    alone, many = claims.verdicts([of_all[0], missing], part), claims.verdicts([*of_all, missing], part)
    assert len(alone) == 1 and [v.claim.statement for v in many] == list("0123456789")
    assert many[0].low < alone[0].low and many[0].least > alone[0].least
    assert claims.verdicts([missing], part) == claims.tables([]) == []


def test_parts_of_one_command_are_found_together_wherever_it_has_put_them(tmp_path, capsys):
    """Side by side in folders, one within another, or alone; the next command's lie apart."""

    def made(place, name, command):
        (tmp_path / place).mkdir(parents=True)
        said = {"format": manifest.FORMAT, "experiment": {"name": name}, "config": {"smoke": command}}
        (tmp_path / place / manifest.NAME).write_text(json.dumps(said | {"sha256": manifest._digest(said)}))

    made("a/T_50", "gating_50", 1), made("a/T_100", "gating_100", 1)
    made("b", "minimal_cells", 2), made("b-replicate-1", "minimal_cells", 3)
    made("c", "gradient_flow", 4), made("c/within", "gradient_flow", 4)
    made("d/0", "causes", 5), made("d/1", "causes", 5)
    made("s/pixels", "sequences_pixels", 6), made("s/again", "sequences_pixels", 7)
    made("s/music", "sequences_music", 8), made("s/permuted", "sequences_permuted", 9)
    made("e", "mine", 6)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / manifest.NAME).touch()  # damaged, which is said; the others are found
    found = claimants.experiments([tmp_path])
    assert str(tmp_path / "f" / manifest.NAME) in "".join(capsys.readouterr().out.split())
    told = {str(at.relative_to(tmp_path)): [str(p.relative_to(tmp_path)) for p in parts] for at, parts in found.items()}
    assert told == {
        "a": ["a/T_100", "a/T_50"],
        "b": ["b"],
        "b-replicate-1": ["b-replicate-1"],
        "c": ["c", "c/within"],
        "d": ["d/0", "d/1"],
        **{place: [place] for place in ("s/again", "s/music", "s/pixels")},
    }
    rows = {"a/T_50": "gating", "s/again": "sequences_pixels", "s/music": "sequences_music"}
    assert {part: claimants.row_of(tmp_path / part) for part in rows} == rows


def test_what_a_script_costs_is_the_paragraph_of_its_docstring():
    for module in (*(one.script for one in claimants.STATED.values()), "experiments.reproduce.ghost"):
        said = claimants.cost(module)
        assert said.startswith("Cost: ") and "Expect" not in said and said.endswith("."), module
    assert claimants.cost(None) == claimants.cost("experiments.reproduce") == ""


@pytest.mark.parametrize("name", ["ghost", "smoothness"])
def test_a_table_of_claims_finds_the_script_that_wrote_it(name, tmp_path):
    for file in ("verdicts.json", f"{name}.json", "a-b.png"):
        (tmp_path / file).touch()
    assert claimants.script_beside(tmp_path / "verdicts.json") == f"experiments.reproduce.{name}"
    (tmp_path / f"{name}.json").unlink()
    assert claimants.script_beside(tmp_path / "verdicts.json") is None


@pytest.mark.filterwarnings("ignore:'analysis.claims' found in sys.modules")
def test_as_a_command_claims_of_runs_that_are_not_there_are_left_out(part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["claims", str(part.parent)])
    runpy.run_module("analysis.claims", run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said == [str(part), claimants.cost("experiments.gradient_flow")] and "Cost: 240 runs" in said[1]


def test_every_claim_below_a_directory_is_printed(part, monkeypatch, capsys):
    stated = Claim("plain descent explodes at a rate of 10³⁰", "proportion", of("diverged", lr=1e30), 0.5, source="us")
    monkeypatch.setattr(gradient_flow, "CLAIMS", (stated,))
    claims.main(claims.Config((part.parent,)))
    said = " ".join(capsys.readouterr().out.split())
    assert str(part) in said and "undecided" in said and "proportion above 0.5" in said
    claims.main(claims.Config((part.parent,), markdown=True))
    columns = {line.count("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")}
    assert len(columns) == 1
    with pytest.raises(ConfigError, match="no directory"):
        claims.main(claims.Config((part / "nowhere",)))


def test_cases_of_a_reproduction_are_one_experiment_and_no_beginning_is_anothers(part, tmp_path):
    cases = [tmp_path / "out" / panel / case for panel in ("T_6", "T_8") for case in ("LSTM", "GRU")]
    said = manifest.read(part)
    said["experiment"]["name"] = "adding_6"
    for case in cases:
        case.mkdir(parents=True)
        manifest.write(case, said)
    assert claimants.experiments([tmp_path]) == {tmp_path / "out": sorted(cases)}
    assert claimants.script_of(cases[0]) == "experiments.reproduce.adding"
    named = sorted(claimants.STATED)
    assert not [one for one in named for other in named if other.startswith(f"{one}_")]


def several_data_sets(main, config, folder, monkeypatch):
    """The commands of a script that reads several data sets, of each of which a few examples of its shape are there."""

    def splits(steps, features, bank=()):
        one = Examples(np.zeros((2200, steps, features)), np.full(2200, steps), np.arange(2200) % 10)
        return dict.fromkeys(("train", "validation", "test", *bank), one)

    if main.__name__ == "experiments.overfitting":
        reviews = Examples(np.full((2200, 80), 3), *np.ones((2, 2200), int))
        monkeypatch.setattr(main, "imdb", lambda *_, **__: Text((*SPECIAL, "film"), splits(80, 1) | {"train": reviews}))
        monkeypatch.setattr(main.audio, "spoken_digits", lambda *_, **__: splits(51, 3, [main.BANK]))
        monkeypatch.setattr(main, "extended", lambda data, _: data)
        return [dataclasses.replace(config, audio_dir=folder)]
    if main.__name__ == "experiments.sequences":
        stream = SimpleNamespace(symbols=("a", "b"), splits=splits(65, 1))
        for name, found in (("mnist", splits(196, 1)), ("music", splits(100, 88)), ("characters", stream)):
            monkeypatch.setattr(main, name, lambda *_, found=found, **__: found)
        return [dataclasses.replace(config, source=source, file=folder) for source in main.STEPS]
    return [config]


@pytest.mark.parametrize(
    ("module", "read"), list(dict.fromkeys((of.script, of.columns) for of in claimants.STATED.values()))
)
def test_statements_are_made_once_of_runs_that_the_defaults_have_with_seeds_that_can_decide_them(
    module, read, monkeypatch, tmp_path
):
    """Nothing is trained."""
    main, asked = import_module(module), {}

    def launched(parts, *_):
        asked.update(parts)
        raise script.Waiting  # which penalties hears, whose first part is launched before the others

    for name, caught in (("launch_all", launched), ("launch", lambda one, *_: launched({one.name: one}))):
        monkeypatch.setattr(main, name, caught, raising=False)
    monkeypatch.setattr(_cases, "launch_all", launched)
    monkeypatch.setattr(main.backend, "start", lambda: None)
    splits = {"train": Examples(np.full((20_000, 1), 3), *np.ones((2, 20_000), int))}
    reviews = Text((*SPECIAL, "film"), splits) if hasattr(main, "Reviews") else splits
    monkeypatch.setattr(main, "read", lambda *_, **__: reviews, raising=False)
    (tmp_path / "vectors.txt").write_text("the 0 1\nfilm 1 0\n")
    needed = [field for field in dataclasses.fields(main.Config) if field.default is dataclasses.MISSING]
    config = main.Config(**{field.name: tmp_path / f"{field.name}.txt" for field in needed})
    for one in several_data_sets(main, config, tmp_path, monkeypatch):
        with pytest.raises(script.Waiting):
            main.main(one)
    luck, columns = np.random.default_rng(0), [points.per_run(e.describe(), e.layout, ()) for e in asked.values()]
    for one, e in zip(columns, asked.values(), strict=True):
        one["experiment"] = np.full(len(one["seed"]), e.name)
    several = [
        table(**one, **{name: luck.integers(2, size=len(one["seed"])) for name in import_module(read).VALUES})
        for one in columns
    ]
    runs = xr.concat(several, "run")
    assert main.CLAIMS and len({claim.statement for claim in main.CLAIMS}) == len(main.CLAIMS)
    for claim in main.CLAIMS:
        values = claim.statistic(runs).values
        assert len(values) == len(seeds(config.seeds)) or claim.kind == "proportion" and len(values), claim
        assert claims.least(claim, 1 - claims.ERROR / len(main.CLAIMS)) <= len(seeds(config.seeds)), claim


def test_replication_takes_fresh_seeds_and_directories_and_counts_what_stays(tmp_path, capsys):
    seen = []

    def once(config):
        seen.append((seeds(config.seeds), config.out))
        turned = "holds" if len(seen) < 3 else "does not hold"
        return {"stays": "holds", "turns": turned, "open": "holds" if len(seen) > 1 else "undecided"}

    script.replicated(gradient_flow.Config(seeds=(1, 4), replicate=2, out=tmp_path / "x"), once)
    of_all = [seed for some, _ in seen for seed in some]
    assert len(set(of_all)) == len(of_all) == 6 and len({out for _, out in seen}) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 4 verdicts stay" in said and "1 turned" in said
    with pytest.raises(ConfigError, match="replicate is -1"):
        script.replicated(gradient_flow.Config(replicate=-1), once)


def test_of_verdicts_made_again_those_count_that_were_decided_and_undecided_did_not_stay():
    """The first is that of the lowest seeds on the widest instructions, in whatever order directories are found."""

    def made(of, instructions="AVX512", bits="0", settings="", **verdicts):
        return replicated.Made("x", settings, frozenset(of), instructions, bits, verdicts)

    first = made((0, 1), a="holds", b="does not hold", c="undecided")
    other_bits = made((0, 1), "AVX2", "1", a="holds", b="holds", c="holds")
    fresh = made((2, 3), a="holds", b="undecided", c="holds"), made((4, 5), a="holds", b="does not hold", c="undecided")
    overlapping, longer = made((1, 2), a="does not hold"), made((6, 7), settings="updates 9", a="does not hold")
    for of_all in ([first, other_bits, *fresh, overlapping, longer], [longer, *fresh, overlapping, other_bits, first]):
        (row,) = replicated.rows(of_all)
        assert list(row.values()) == ["x", "3", "2", "2", "3 of 4", "AVX2", "1 of 2", "1"]
    assert replicated.rows([first, longer, overlapping]) == []
    (row,) = replicated.rows([first, made((0, 1), "AVX2", a="holds", b="does not hold")])  # no second sample
    assert list(row.values()) == ["x", "3", "2", "0", "–", "AVX2: the same", "–", "0"]
    whole = replicated.total([row, replicated.rows([first, other_bits, *fresh])[0]])
    assert list(whole.values()) == ["all", "6", "4", "", "3 of 4 (75%)", "", "1 of 2 (50%)", "1"]
    assert replicated.total([row])["stayed"] == "–"


def test_commands_that_differ_in_seeds_and_place_alone_made_one_experiment(monkeypatch):
    def made(resumed=(), **asked):
        read = {"config": asked, "resumed_on": list(resumed), "instruction_set": "AVX2"}
        monkeypatch.setattr(replicated.manifest, "read", lambda _: read)
        monkeypatch.setattr(replicated, "load", lambda _: table(loss=np.zeros(2)))
        return replicated.made("x", [None], [claims.tested(HALF, np.ones(9), 0.95)])

    first = made(seeds=3, lr=1, replicate=2, out=None, smoke=False)
    fresh = made(seeds=[3, 4, 5], lr=1, replicate=2, out="y", smoke=False)
    assert first.settings == fresh.settings and not first.seeds & fresh.seeds
    assert first.verdicts == {"more than half": "holds"} and first.instructions == "AVX2"
    assert made([{"instruction_set": "AVX512"}], seeds=3).instructions == "AVX512"  # the last it was trained on
    for other in (dict(lr=2, smoke=False), dict(lr=1, smoke=True)):
        assert made(seeds=3, **other).settings != first.settings


# --- how many seeds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "n"), [(0.75, 24), (0.75, 40), (0.3, 40)])
def test_the_power_is_the_chance_of_the_outcomes_that_decide(share, n):
    """Of coins: summed over all numbers of heads."""
    seeds = list(range(100, 200))
    values = {seed: float(seed < 100 + round(100 * share)) for seed in seeds}
    told = [claims.tested(HALF, np.arange(n) < k, 0.99).verdict for k in range(n + 1)]
    exact = {what: sum(binom.pmf(k, n, share) for k in range(n + 1) if told[k] == what) for what in set(told)}
    holds, fails, verdicts = power.power(HALF, values, seeds, n, 0.99)
    assert holds == pytest.approx(exact["holds"], abs=0.07) and fails == pytest.approx(exact["does not hold"], abs=0.07)
    sets = [seeds[at : at + n] for at in range(0, 100 // n * n, n)]
    assert verdicts == [claims.tested(HALF, np.array([values[s] for s in of]), 0.99).verdict for of in sets]


def test_seeds_that_say_nothing_are_drawn_and_decide_nothing():
    """Of the seeds that differ there may be too few in a set, however many seeds there are."""
    differ = {seed: 1.0 for seed in range(0, 96, 4)}
    assert power.power(HALF, differ, range(96), 96, 0.99)[0] == 1.0
    assert power.power(HALF, differ, range(96), 7, 0.99)[:2] == (0.0, 0.0)


def test_runs_of_the_same_settings_and_instructions_and_other_seeds_are_taken_together(monkeypatch, capsys):
    made = {
        "a": ("", (0, 1), "AVX512"),
        "b": ("", (2, 3), "AVX512"),
        "c": ("", (3, 4), "AVX512"),
        "d": ("", (5, 6), "AVX2"),
        "e": ("lr 1", (7, 8), "AVX512"),
        "f": ("", (9,), "AVX512"),
    }

    def read(name, parts, found):
        settings, of_it, instructions = made[parts[0]]
        return replicated.Made(name, settings, frozenset(of_it), instructions, "", {})

    monkeypatch.setattr(claimants, "experiments", lambda _: {name: [name] for name in made})
    monkeypatch.setattr(claimants, "row_of", lambda _: "x")
    monkeypatch.setattr(
        claimants, "claims", lambda _: [HALF, Claim("elsewhere", "median", of("learned", gain=7.0), 0.0)]
    )
    monkeypatch.setattr(replicated, "made", read)
    assert power.pooled([])["x"][0] == ["a", "b", "f"]
    monkeypatch.setattr(claimants, "columns", lambda *parts: table(seed=np.arange(30), learned=np.arange(30) < 27))
    power.main(power.Config(seeds=(10, 24), markdown=True))
    said = capsys.readouterr().out
    assert "| more than half | 30 of 30 | holds |" in said and "| 1 holds |" in said and "elsewhere" not in said
    for refused in (power.Config(seeds=(0,)), power.Config(seeds=(True,))):
        with pytest.raises(ConfigError, match=f"seeds is {refused.seeds[0]}"):
            power.main(refused)
    monkeypatch.setattr(claimants, "experiments", lambda _: {})
    with pytest.raises(ConfigError, match="no run of which claims are made"):
        power.main(power.Config())


# --- the wall -------------------------------------------------------------------------------------------------


def test_the_units_slope_is_its_errors_and_its_wall_is_where_the_start_is_a_fixed_point():
    b = np.array([-4.0, -2.7, -2.5, 0.0, 1.0])
    near = (exploding.unit(b + 1e-6).error - exploding.unit(b - 1e-6).error) / 2e-6
    np.testing.assert_allclose(exploding.unit(b).slope, near, rtol=1e-5)
    around = exploding.wall() + np.linspace(-0.1, 0.1, 20_001)
    slopes = np.abs(exploding.unit(around).slope)
    assert abs(around[slopes.argmax()] - exploding.wall()) < 2e-3 and slopes.max() > 1000 * slopes[0]


def test_descent_is_thrown_off_the_wall_unless_its_slope_is_clipped():
    free, clipped = exploding.descent(np.inf), exploding.descent(10.0)
    assert np.abs(np.diff(free)).max() > 10 and np.abs(np.diff(clipped)).max() <= 10 * exploding.RATE + 1e-12
    assert abs(clipped[-1] - exploding.wall()) < 0.2 < abs(free[-1] - exploding.wall())


def test_a_clip_per_tensor_bounds_each_array_by_itself():
    grads = {"large": jnp.full((2, 3), 50.0), "small": jnp.full(4, 0.1)}
    after, _ = PerTensor(0.5).build().update(grads, PerTensor(0.5).build().init(grads))
    np.testing.assert_allclose(after["large"], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(after["small"], grads["small"])
