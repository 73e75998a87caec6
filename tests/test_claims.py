"""Which seeds decide, and what their runs say."""

import pytest
import tyro

from experiments import gating, gradient_flow
from seqdyn.runs.script import seeds


@pytest.mark.parametrize(
    ("text", "meant"), [("3", [0, 1, 2]), ("3:6", [3, 4, 5]), ("3,5,8", [3, 5, 8]), ("(8, 5)", [8, 5]), ("7,", [7])]
)
def test_seeds_are_how_many_a_range_or_a_list(text, meant):
    chosen = tyro.cli(gradient_flow.Config, args=["--seeds", text])
    assert seeds(chosen.seeds) == meant
    assert gradient_flow.experiment(chosen).hypers.seed[: len(meant)].tolist() == meant
    shown = tyro.cli(gradient_flow.Config, args=[], default=chosen)  # --help and errors print it in the form it takes
    assert shown.seeds == chosen.seeds


@pytest.mark.parametrize("text", ["3:3", "6:3", "3,3", "a", "1.5", "3:", "", "1:2:3", "1,,2"])
def test_seeds_that_are_none_are_refused_in_a_sentence(text, capsys):
    with pytest.raises(SystemExit) as refused:
        tyro.cli(gating.Config, args=["--seeds", text])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert refused.value.code == 2 and f"seeds is {text!r}; it must be" in said
