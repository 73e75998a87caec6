"""What does a trained network say of this sentence, and which word decides?

    say.py --run runs/architectures-… "I hate this boring movie"

Prints the probability that the text is of class 1 (of the most probable class, if there are more than two), and for
each word that was read the norm of its gradient, ‖∂p/∂x_t‖, as a bar: how much the answer changes with the word's
vector.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

import seqdyn
from seqdyn.runs.display import plain_console
from seqdyn.runs.script import script

BAR = 40
"""Columns of the largest gradient."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Who reads what."""

    text: Annotated[str, tyro.conf.Positional]
    """What is to be read."""
    run: Path
    """Run directory of networks that read words."""
    index: int = 0
    """Which of its runs."""
    best: bool = False
    """The parameters that validation chose, where early stopping kept them."""


def main(config: Config) -> None:
    """Prints the answer, then a line a word."""
    answer, words = seqdyn.explained(config.run, config.index, config.text, best=config.best)
    console = plain_console()
    if np.ndim(answer):
        console.print(f"class {int(np.argmax(answer))}: {np.max(answer):.3f}")
    else:
        console.print(f"{float(answer):.3f}")
    largest = max(word.gradient for word in words) or 1.0
    table = Table(box=None, show_header=False)
    for word in words:
        table.add_row(Text(word.word), f"{word.gradient:.2g}", "█" * round(BAR * word.gradient / largest))
    console.print(table)


if __name__ == "__main__":
    script(Config, main, __doc__)
