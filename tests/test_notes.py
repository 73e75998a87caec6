"""Each script for the lecture notes runs as its docstring says and prints what the notes print."""

import os
import re

import jax
import numpy as np
import pytest
from _processes import ROOT
from test_experiments import PNG, script

NOTES = ROOT / "experiments" / "notes"


def said(name, *arguments):
    """What a script printed, having ended well."""
    done, text = script(f"notes/{name}", *arguments)
    assert done.returncode == 0, done.stderr
    return text


def drawn(text):
    """The figure that a script names last is there."""
    path = ROOT / text.split()[-1]
    return path.read_bytes().startswith(PNG) and path.stat().st_size > 5_000


slow = pytest.mark.slow
SLOW = {"06_networks", "08_layers", "12_gates"}
PRINTED = {
    "01_sequences": ["[6]", "[3, 6]", "[3, 6, 2]", "[6, 3, 2]", "[2, 4]"],
    "02_one_hot": ["Rome   [1 0 0 0]   cosine to each: [1 0 0 0]", "France [0 0 0 1]", "table, True", "640,000"],
    "03_embedding": ["→ [10, 4]", "of that id: True", "only the rows [4 7 8]"],
    "05_sentence": ["[1, 5]", "[1, 5, 10]", "i hate this boring movie", "'<unk>'"],
    "06_networks": ["165 parameters", "33 parameters,    33 for 80 words; blind to order", "42 parameters"],
    "07_cell": ["w [4, 3]", "u [3, 3]", "b [3]", "h_1 [4, 64]", "b): True", "80 outputs, [4, 80, 64]", "[4, 5120]"],
    "08_layers": ["[4, 80, 64]", "[4, 64]"],
    "12_gates": ["rnn                24", "lstm               96", "gru_reset_before   72", "gru                75"],
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) if n in SLOW else n for n in PRINTED])
def test_what_the_notes_print_is_printed(name):
    text = said(name)
    assert all(wanted in text for wanted in PRINTED[name]), text
    # Where a script says by how much two ways differ, they are one; but the two GRUs are not.
    gaps = [float(gap) for gap in re.findall(r"(?:differ by|after 5 steps) (\d\S*e\S+)", text)]
    assert all(gap < 1e-5 for gap in gaps[:3]) and (name != "12_gates" or gaps[3] > 1e-3)
    assert "differs by" in text or name != "06_networks"


@slow
def test_powers_and_gradients_grow_or_die_and_clipping_is_one_factor(tmp_path):
    text = said("11_vanishing", "--out", tmp_path)
    reached = [float(ratio) for ratio in re.findall(r"‖∂L/∂h_T‖ (\S+);", text)]
    assert reached == sorted(reached) and reached[0] < 1e-20 and reached[-1] > 100 and drawn(text)
    begun = {name: float(ratio) for name, ratio in re.findall(r"(?m)^  (\w.*?) +(\d\S*e\S+)$", text)}
    assert len(begun) == 8 and begun["sigmoid"] == min(begun.values()) < 0.25**40  # φ' ≤ ¼
    assert all(
        begun[cure] > 100 * begun["tanh, U Gaussian, gain 0.7"]
        for cure in ("tanh, U orthogonal", "LSTM, forget bias 1")
    )


def test_vectors_are_read_in_every_format(tmp_path):
    words = ("rome", "paris", "italy", "france", "good", *(f"word{i}" for i in range(10)))
    rows = np.random.default_rng(0).normal(size=(len(words), 3))
    path = tmp_path / "v.txt"
    path.write_text("".join(f"{w} {' '.join(map(str, row))}\n" for w, row in zip(words, rows, strict=True)))
    text = said("04_vectors", "--vectors", path, "--out", tmp_path)
    assert text.count("the same vectors True") == 2 and "found [ True  True  True  True False]" in text and drawn(text)
    done, text = script("notes/04_vectors")
    assert done.returncode == 2 and "--vectors" in done.stderr and not text


@slow
def test_reviews_become_numbers(imdb_dir):
    text = said("09_imdb", "--data-dir", imdb_dir, "--limit", "200")
    assert "train 200 reviews" in text and "the 3" in text and "[200, 80]" in text and "160 and 40" in text


@slow
@pytest.mark.parametrize("whole", [False, True], ids=["chosen", "all for training"])
def test_cells_by_hand_and_layers_train(whole, imdb_dir, tmp_path):
    more = ["--all-for-training"] if whole else []
    given = ("--data-dir", imdb_dir, "--limit", "300", "--epochs", "1", "--out", tmp_path, *more)
    text = said("10_imdb_rnn", *given)
    assert "cells by hand: test accuracy at the last epoch" in text and "layers: test" in text and drawn(text)
    assert ("chosen on validation" in text) != whole


@slow
def test_a_polynomial_of_high_degree_fits_its_points_and_nothing_else(tmp_path):
    text = said("13_polynomials", "--out", tmp_path)
    errors = [tuple(map(float, pair)) for pair in re.findall(r"training error (\S+), test error (\S+)", text)]
    train, test = zip(*errors, strict=True)
    assert list(train) == sorted(train, reverse=True) and min(test) < 0.13 < 100 < test[-1] and drawn(text)


@slow
def test_early_stopping_is_drawn_where_validation_was_lowest(tmp_path):
    text = said("14_splits", "--epochs", "4", "--out", tmp_path)
    assert "600 (30% of class 1), 200 (30% of class 1), 200" in text and drawn(text)


@slow
def test_penalties_are_printed_as_numbers_and_as_weights(tmp_path):
    text = said("15_penalties", "--updates", "20", "--out", tmp_path)
    assert "L0 3, L1 3.5, L2 ½ Σ w² = 2.625" in text and drawn(text)
    counted, recorded = (float(re.search(p, text)[1]) for p in (r"l2 .*½ Σ w² +(\S+);", r"penalty_l2.*: (\S+)"))
    assert counted == pytest.approx(recorded, rel=0.02)


@slow
def test_dropout_keeps_the_mean_and_is_trained_with(tmp_path):
    text = said("16_dropout", "--epochs", "2", "--out", tmp_path)
    assert "10,000 masks 1.00" in text and text.count("means over 3 seeds") == 3 and drawn(text)


@slow
def test_both_generators_are_trained_and_draw(tmp_path):
    text = said("18_generators", "--updates", "6", "--out", tmp_path)
    assert "a digit [8, 8] → μ of z [8]" in text and "the critic's distance" in text and drawn(text)


@slow
def test_every_named_augmentation_is_trained_with(tmp_path, imdb_dir):
    """Of each kind one here; `test_augmentations_in_runs` trains with all that act in the step."""
    names = ["flip_vertical", "overlapping_windows", "insert_random"]
    given = ["--data-dir", imdb_dir]
    if os.environ.get("SEQDYN_AUDIO"):
        names, given = [*names, "background"], [*given, "--audio-dir", os.environ["SEQDYN_AUDIO"]]
    small = ("--examples", "40", "--reviews", "200", "--updates", "2", "--seeds", "1", "--out", tmp_path)
    text = said("17_augmentation", "--augment", *names, *given, *small)
    assert all(re.search(rf"{name} +test error without", text) for name in names) and drawn(text)
    for name, option in (("background", "--audio-dir"), ("insert", "--data-dir"), ("prayer", "'prayer'")):
        done, _ = script("notes/17_augmentation", "--augment", name, "--out", tmp_path / "new")
        assert done.returncode == 2 and option in done.stderr and not (tmp_path / "new").exists()


def test_the_snippet_of_the_readme_makes_a_gru_without_biases():
    page = (NOTES / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"(?s)```python\n(.*?)```", page)
    found = {"__name__": "__main__"}
    exec(code, found)
    cell = found["NotesGRU"](8).build(2)
    params = cell.init(jax.random.key(0))
    assert found["spec"].label == "NotesGRU" and not params.b.any() and params.u.shape == (8, 24)


def test_every_script_and_every_figure_is_in_the_table():
    page = (NOTES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\d\d_\w+\.py)", page)) == {path.name for path in NOTES.glob("*.py")}
    assert set(re.findall(r"\(figures/([^)]+)\)", page)) == {path.name for path in (NOTES / "figures").glob("*.png")}
    source = (ROOT / "tests" / "test_notes.py").read_text(encoding="utf-8")
    assert all(f'"{path.stem}"' in source for path in NOTES.glob("*.py"))
