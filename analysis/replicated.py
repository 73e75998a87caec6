"""Which verdicts of an experiment stay: with fresh seeds, and with the same on another instruction set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqdyn.runs import manifest
from seqdyn.runs.display import plain_console, table
from seqdyn.runs.environment import ISA
from seqdyn.runs.records import load
from seqdyn.runs.script import Claiming, seeds

if TYPE_CHECKING:
    from analysis.claims import Verdict

IDLE = {field.name for field in fields(Claiming)} - {"smoke", "init"} | {"seeds"}
"""Options of a command that change no experiment but its seeds."""


class Made(NamedTuple):
    """An experiment of which claims were tested."""

    script: str
    settings: str
    """All that was asked for but the seeds."""
    seeds: frozenset[int]
    instructions: str
    bits: str
    """A digest of all losses along training: narrow networks have the same on several instruction sets."""
    verdicts: Mapping[str, str]
    """Statement -> verdict."""


def made(script: str, parts: Sequence[Path], found: Sequence["Verdict"]) -> Made:
    """As the manifest of the first part has it."""
    read = manifest.read(parts[0])
    asked: dict[str, Any] = read["config"]
    settings = repr(sorted((name, value) for name, value in asked.items() if name not in IDLE))
    which = frozenset(seeds(asked["seeds"])) if "seeds" in asked else frozenset()
    last = read["resumed_on"][-1] if read["resumed_on"] else read
    told = {v.claim.statement: v.verdict for v in found}
    losses = hashlib.sha256(b"".join(load(part)["loss"].values.tobytes() for part in parts))
    return Made(script, settings, which, last["instruction_set"], losses.hexdigest(), told)


def rows(of_all: Sequence[Made]) -> list[dict[str, str]]:
    """A row an experiment that was made more than once: the first is that of the lowest seeds on the widest
    instructions; of its verdicts that were decided, how many are the same with disjoint seeds, and with the same seeds
    on other instructions, where those gave other bits. What became undecided did not stay."""
    groups: dict[tuple[str, str], list[Made]] = {}
    for one in of_all:
        groups.setdefault((one.script, one.settings), []).append(one)
    found = []
    for (script, _), several in groups.items():
        first, *others = sorted(several, key=lambda one: (min(one.seeds, default=0), -_width(one.instructions)))
        fresh = [one for one in others if not one.seeds & first.seeds]
        again = [one for one in others if one.seeds == first.seeds and one.instructions != first.instructions]
        same = [one for one in again if one.bits != first.bits]
        if fresh or again:
            decided = {it: was for it, was in first.verdicts.items() if was != "undecided"}
            found.append(
                {
                    "script": script,
                    "claims": str(len(first.verdicts)),
                    "decided": str(len(decided)),
                    "fresh sets": str(len(fresh)),
                    "stayed": _stayed(decided, fresh),
                    "other bits": ", ".join(_named(one, first) for one in again) or "–",
                    "stayed there": _stayed(decided, same),
                    "turned": str(sum(_turned(decided, one) for one in fresh + same)),
                }
            )
    return found


def _width(instructions: str) -> int:
    return list(ISA).index(instructions) if instructions in ISA else -1


def _named(one: Made, first: Made) -> str:
    return one.instructions + (": the same" if one.bits == first.bits else "")


def _stayed(decided: Mapping[str, str], again: Sequence[Made]) -> str:
    stay = sum(one.verdicts.get(it) == was for one in again for it, was in decided.items())
    return f"{stay} of {len(again) * len(decided)}" if again else "–"


def _turned(decided: Mapping[str, str], one: Made) -> int:
    return sum(one.verdicts.get(it, "undecided") not in (was, "undecided") for it, was in decided.items())


def total(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The row of all scripts together."""

    def all_of(name: str) -> str:
        pairs = [[*map(int, row[name].split(" of "))] for row in found if row[name] != "–"]
        sums = [sum(of) for of in zip(*pairs, strict=True)]
        return " of ".join(map(str, sums)) + (f" ({sums[0] / sums[1]:.0%})" if len(sums) == 2 and sums[1] else "")

    counted = ("claims", "decided", "stayed", "stayed there", "turned")
    return {name: all_of(name) or "–" if name in counted else "" for name in found[0]} | {"script": "all"}


def show(of_all: Sequence[Made], markdown: bool = False) -> None:
    """Prints `rows`, if there are any, and of several their sum."""
    found = rows(of_all)
    if found:
        found += [total(found)] if len(found) > 1 else []
        printed(
            found,
            "Made again: of the verdicts that the first seeds decided, how many are the same in fresh sets of as many "
            "seeds, and with the first seeds and other bits; turned: into their opposite.",
            markdown,
        )


def printed(found: Sequence[Mapping[str, str]], caption: str, markdown: bool) -> None:
    """A table, for a terminal or for a README."""
    console = plain_console()
    if markdown:
        lines = [list(found[0]), ["---"] * len(found[0]), *([*row.values()] for row in found)]
        for line in lines:
            console.print(f"| {' | '.join(line)} |", soft_wrap=True, markup=False)
    else:
        console.print(table(found, collapse_padding=True))
    console.print(caption, soft_wrap=True)
