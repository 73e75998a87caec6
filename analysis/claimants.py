"""Which script claims something of a run directory, of which values of its runs, and what the script costs."""

import contextlib
import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis import outcomes
from seqdyn.runs import manifest
from seqdyn.runs.display import plain_console
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr


class Claimant(NamedTuple):
    """Where the claims of an experiment are."""

    script: str
    """The module whose `CLAIMS` they are."""
    columns: str = "analysis.outcomes"
    """The module whose `columns` reads what they are about, one value a run."""
    panels: bool = False
    """Do its parts lie two levels down, <panel>/<case>, as those of reproductions do?"""


def _reproduced(name: str, columns: str = "analysis.reproduced") -> Claimant:
    return Claimant(f"experiments.reproduce.{name}", columns, panels=True)


STATED = {
    "gradient_flow": Claimant("experiments.gradient_flow"),
    "exploding": Claimant("experiments.exploding"),
    "minimal_cells": Claimant("experiments.minimal_cells"),
    "gating": Claimant("experiments.gating"),
    "clipping": Claimant("experiments.clipping"),
    "initialisations": Claimant("experiments.initialisations"),
    "activations": Claimant("experiments.activations"),
    "normalisation": Claimant("experiments.normalisation"),
    "regularisation": Claimant("experiments.regularisation"),
    "schedules": Claimant("experiments.schedules"),
    "cure": Claimant("experiments.cures"),
    "causes": Claimant("experiments.causes"),
    "dropout": Claimant("experiments.dropout", "analysis.dropout"),
    "imdb_gradients": Claimant("experiments.imdb_gradients", "analysis.judged"),
    "imdb_accuracy": Claimant("experiments.imdb_accuracy", "analysis.imdb_accuracy"),
    "pretrained": Claimant("experiments.pretrained", "analysis.judged"),
    "architectures": Claimant("experiments.architectures", "analysis.judged"),
    "forget_bias": _reproduced("forget_bias"),
    "flossing": _reproduced("flossing", "analysis.flossing"),
    "adding": _reproduced("adding"),
    "copy": _reproduced("copy_memory"),
    "flat": _reproduced("flat_gradients"),
    "temporal_order": _reproduced("temporal_order"),
    "edge_of_chaos": Claimant("experiments.edge_of_chaos", "analysis.chaos_plane"),
    "edge_of_stability": Claimant("experiments.edge_of_stability", "analysis.stability_sharpness"),
    "jacobian_spectra": Claimant("experiments.jacobian_spectra", "analysis.jacobian_windows"),
    "capacity": Claimant("experiments.capacity", "analysis.capacity"),
    "penalties": Claimant("experiments.penalties", "analysis.penalty_pairs"),
    "augmentation": Claimant("experiments.augmentation", "analysis.augmentation"),
    "overfitting": Claimant("experiments.overfitting", "analysis.overfitting"),
    "sequences_pixels": Claimant("experiments.sequences", "analysis.sequences"),
    "sequences_music": Claimant("experiments.sequences", "analysis.sequences"),
    "sequences_characters": Claimant("experiments.sequences", "analysis.sequences"),
}
"""How the name of an experiment begins -> the script that claims something of it."""
FOLDERS = ("experiments", "experiments.reproduce")
"""Where scripts are."""


def experiments(roots: Sequence[Path]) -> dict[Path, list[Path]]:
    """Directory of a command -> its parts, of all experiments in these directories and below that state claims. Of a
    manifest that cannot be read it prints why: the others can be."""
    found: dict[Path, list[Path]] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"{root} is no directory; give run directories, or those above them.")
        for made in sorted(root.rglob(manifest.NAME)):
            part = made.parent
            try:
                if not manifest.extends(part) and script_of(part):
                    found.setdefault(top(part), []).append(part)
            except ConfigError as unread:
                plain_console().print(str(unread), soft_wrap=True)
    return found


def top(part: Path) -> Path:
    """The directory of the command: that above, where the parts of a script have folders of their own, or two above,
    where cases have folders in those of their panels."""
    made, stated = manifest.read(part), of(part)
    if stated and stated.panels:
        return part.parent.parent

    def beside(other: Path) -> bool:
        """Is it another part of the same command?"""
        if other != part and (other / manifest.NAME).exists():
            with contextlib.suppress(ConfigError):  # damaged
                return script_of(other) == script_of(part) and _asked(manifest.read(other)) == _asked(made)
        return False

    apart = made["experiment"]["name"] not in STATED or beside(part.parent)
    return part.parent if apart or any(map(beside, part.parent.iterdir())) else part


def _asked(made: dict[str, Any]) -> dict[str, Any]:
    """The options of a command, but for `verify`: where all parts have the same shapes, one is verified for all."""
    return {name: value for name, value in made["config"].items() if name != "verify"}


def of(part: Path) -> Claimant | None:
    """Of a run directory; None if nothing is claimed of it, as of runs that no script has made."""
    made = manifest.read(part)
    name = made["experiment"]["name"]
    if "smoke" not in made["config"]:
        return None
    return next((of for start, of in STATED.items() if name == start or name.startswith(f"{start}_")), None)


def script_of(part: Path) -> str | None:
    """The script whose claims are made of a run directory; None if none are."""
    found = of(part)
    return found and found.script


def row_of(part: Path) -> str:
    """What tables call the experiment of a run directory: its script, or its own name where the script states claims of
    several."""
    script, name = str(script_of(part)), manifest.read(part)["experiment"]["name"]
    several = [one for one, of in STATED.items() if of.script == script]
    return name if len(several) > 1 else script.removeprefix("experiments.")


def claims(part: Path) -> Sequence[Any]:
    """What the script of a run directory states; nothing if it is none of `STATED`."""
    found = of(part)
    return import_module(found.script).CLAIMS if found else ()


def columns(*parts: Path) -> "xr.Dataset":
    """What the claims of these parts of an experiment are about, one value a run."""
    found = of(parts[0])
    return import_module(found.columns if found else outcomes.__name__).columns(*parts)


def script_beside(file: Path) -> str | None:
    """The script without runs that wrote a table of claims: it has named what it measured, which lies beside."""
    beside = [one.stem for one in sorted(file.parent.iterdir()) if one.stem.isidentifier()]
    return next((name for one in beside for folder in FOLDERS if find_spec(name := f"{folder}.{one}")), None)


def cost(script: str | None) -> str:
    """What a script says that it costs: the paragraph of its docstring; nothing if it says nothing."""
    if script is None:
        return ""
    found = re.search(r"^(Cost: .*?)$(?=\n[A-Z]\w+[^\n:]*:|\n\n|\Z)", import_module(script).__doc__ or "", re.M | re.S)
    return " ".join(found[1].split()) if found else ""
