"""How an experiment script meets its user: a typed command line, one sentence for what is wrong, an exit code."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from unittest import mock

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from seqdyn.backend import check_settings, compile_quickly
from seqdyn.data.check import check
from seqdyn.learn.config import Experiment
from seqdyn.parts import is_many
from seqdyn.runs import chunks, launchers, manifest, signals, slurm, starts
from seqdyn.runs.checkpoint import digest
from seqdyn.runs.chunks import Chunk
from seqdyn.runs.display import plain_console, table
from seqdyn.runs.lock import WHOLE, Shard, shard
from seqdyn.runs.restore import restore
from seqdyn.runs.run import CHECKPOINT_SECONDS, complete, default_out, run, trained
from seqdyn.runs.signals import Interrupted
from seqdyn.runs.usual import Usual, check_options
from seqdyn.types import ConfigError, whole

LIVE: list[Callable[[Sequence[Path]], str]] = []
"""What `--live` calls: run directories -> the address of their page. `analysis.live` puts its own here, since the
library imports nothing of the analyses."""
NARROWEST = 40
"""Columns of a command line's help and of what is said of a wrong one."""
MOST = 1_000_000
"""Seeds of a setting."""


def _seeds(arguments: list[str]) -> int | tuple[int, ...]:
    """'5' -> 5; '3:6' -> 3, 4, 5; '3,5,8' -> these. What they may be is the grid's to say."""
    (text,), chosen = arguments, ()
    try:
        if ":" in text:
            first, end = map(int, text.split(":"))
            chosen = tuple(range(first, min(end, first + MOST + 1)))
        elif "," in text:
            chosen = tuple(int(one) for one in text.strip("()[] ").removesuffix(",").split(","))
        elif (count := int(text)) <= MOST:
            return count
    except ValueError:
        pass
    fit = all(0 <= seed < 2**31 for seed in chosen)
    if not 0 < len(chosen) <= MOST or len(set(chosen)) < len(chosen) or not fit:
        raise ValueError(
            f"seeds is {text!r}; it must be how many, from 0 on (5), a range (3:6 is 3, 4, 5) or a list of different "
            f"ones (3,5,8), of at most {MOST:,}, each below 2³¹."
        )
    return chosen


def seeds(which: Any) -> list[int]:
    """The seeds that `Seeds` means.

    >>> seeds(3), seeds((5, 8))
    ([0, 1, 2], [5, 8])
    """
    return list(map(int, which)) if is_many(which) else list(range(int(which)))


RunDir = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR", help="A run directory.")]
RUN_DIR: Any = RunDir
"""The only argument of a command that reads one; what is annotated is no type to a type checker."""
Seeds = Annotated[
    int | tuple[int, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|A:B|A,B,C",
        instance_from_str=_seeds,
        is_instance=lambda value: isinstance(value, int | tuple),
        str_from_instance=lambda value: [",".join(map(str, value)) + "," if isinstance(value, tuple) else str(value)],
    ),
]
"""How many seeds, from 0 on, or which: a range A:B without its end, or a list."""


@dataclass(frozen=True, kw_only=True)
class Options(Usual):
    """What every script's config has."""

    out: Path | None = None
    """Run directory; by default runs/<name>-<digest of the settings>, so the same command finds it again."""
    smoke: bool = False
    """Tiny sizes: seconds, along the same path, compiled without optimisations; options that differ from their default
    win over it."""
    verify: bool = True
    """Hold the gradient at these shapes against autodiff before training."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    """Seconds between checkpoints; `kill -9` loses at most this much work, other signals none."""
    shard: str = "0/1"
    """i/n: train only every n-th tile, from the i-th on; n such commands, at once or one by one, make the whole."""
    launcher: Literal["none", "local", "slurm"] = "none"
    """Who trains: this process; `workers` processes here, each a shard; or as many jobs of a Slurm array."""
    workers: int = launchers.WORKERS
    """Shards of a launcher; more than there are tiles have nothing to do."""
    slurm: tuple[str, ...] = ()
    """Parameters of submitit, as timeout_min=600 slurm_partition=gpu gpus_per_node=1."""
    allow_version_drift: bool = False
    """Go on in a directory that another version of seqdyn or jax began; the manifest notes it."""
    keep: str = ""
    """Updates whose states are kept for good, to look back: log (0, 1, 2, 4, …), n (every n), or a list a,b,c."""
    live: bool = False
    """Serve the page to explore on this machine while training, and print its address."""
    init: str = ""
    """Start every run from the newest parameters of another, RUN_DIR:RUN, or from kept ones, RUN_DIR:RUN:UPDATES."""


@dataclass(frozen=True, kw_only=True)
class Presets(Options):
    """What the config of a script has whose full setting takes far longer."""

    paper: bool = False
    """The full setting, which takes far longer: options that stand at their default take their values in it."""


@dataclass(frozen=True, kw_only=True)
class Claiming(Options):
    """What the config of a script has that states claims."""

    replicate: int = 0
    """So many times more, each with as many fresh seeds, in a directory beside it: which verdicts stay?"""


C = TypeVar("C")
S = TypeVar("S")
R = TypeVar("R", bound=Claiming)


class Waiting(Exception):
    """This shard is done and others are not, so there is nothing to draw yet."""


def script(config: type[C], main: Callable[[C], object], description: str | None) -> None:
    """Runs an experiment script: the command line from a typed config, and an exit code that says what happened.

    0 done; 2 wrong input, also a file where the directory must be, one sentence on stderr; 1 any other failure with a
    reason, one sentence; 128 + n after signal n, when the same command goes on from where it was.
    """
    _fill_closed()
    with _heard():
        _script(config, main, description)


def _script(config: type[C], main: Callable[[C], object], description: str | None) -> None:
    # tyro joins lines; what begins as 'Cost:' does is a paragraph of its own.
    description = re.sub(r"(?<!\n)\n(?=[A-Z]\w+( \(.*\))?:)", "\n\n", description or "")
    narrow = shutil.get_terminal_size().columns < NARROWEST  # below 10 tyro takes all memory and never ends
    with mock.patch.dict(os.environ, {"COLUMNS": str(NARROWEST)} if narrow else {}):
        chosen = tyro.cli(config, description=description)
    console = plain_console(stderr=True)
    for noisy in ("absl", "asyncio"):  # Orbax logs, with tracebacks, what it raises as well
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        check_options(chosen)
        if isinstance(chosen, Options):
            check_settings()
            if chosen.smoke:
                compile_quickly()
            _spread(chosen)
        with signals.fatal():
            main(chosen)
    except (Waiting, slurm.Queued) as done:
        console.print(str(done), soft_wrap=True)
    except ConfigError as error:
        console.print(str(error), style="red", soft_wrap=True)
        sys.exit(2)
    except Interrupted as stopped:
        name = signal.Signals(stopped.signum).name
        how = f"at the end of a chunk and saved, {stopped.seconds:.1f} s later" if stopped.seconds else "at once"
        console.print(f"{name}: stopped {how}; the same command goes on from here.", soft_wrap=True)
        sys.exit(128 + stopped.signum)
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError, MemoryError) as error:
        if chunks.from_listener(error):  # the user's own
            raise
        console.print(f"{type(error).__name__}: {error}", style="red", soft_wrap=True)
        sys.exit(2 if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError) else 1)


def _fill_closed() -> None:
    """Where stdin, stdout or stderr is closed (`2>&-`), no file takes its place: else the next that is opened would, a
    record perhaps, and what libraries and signals have to say would be written into it."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, this one


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Whatever is said reaches a terminal or file of any encoding, what that lacks as its number; and where nobody
    reads any more (`--help | head -1`) the script ends without a word, as one that SIGPIPE ends."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has no encoding
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # closed before we began
                sys.stdout.flush()
    except BrokenPipeError:
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of the text goes nowhere
        sys.exit(128 + signal.SIGPIPE)


def with_preset(config: S, smoke: Mapping[str, Any], paper: Mapping[str, Any] | None = None) -> S:
    """The config, which has a field `smoke` and may have `paper`, with the changes of the one that was asked for, where
    it still stands at its default. Raises ConfigError if both were."""
    given: Any = config
    paperlike = getattr(given, "paper", False)
    if given.smoke and paperlike:
        raise ConfigError("smoke and paper are both True; ask for one of the two.")
    wanted = smoke if given.smoke else (paper or {}) if paperlike else {}
    untouched = {f.name for f in dataclasses.fields(given) if getattr(given, f.name) == f.default}
    return dataclasses.replace(given, **{name: value for name, value in wanted.items() if name in untouched})


def replicated(config: R, once: Callable[[R], Mapping[str, str]]) -> None:
    """Runs `once`, config -> {statement: verdict}, and again with fresh seeds as often as the config says; then prints
    what became of each verdict, and the share of those that were decided and stay.

    Raises ConfigError for what is no number of times.
    """
    if config.replicate < 0:
        raise ConfigError(f"replicate is {config.replicate}; it must be at least 0.")
    first, base = seeds(config.seeds), config.out and config.out.resolve()
    found = [once(config)]
    for k in range(1, config.replicate + 1):
        fresh = tuple(k * (max(first) + 1) + seed for seed in first)
        out = base and base.with_name(f"{base.name}-replicate-{k}")
        found.append(once(dataclasses.replace(config, seeds=fresh, out=out)))  # type: ignore[call-arg]
    if not config.replicate:
        return
    console = plain_console()
    names = ["first", *(f"fresh {k}" for k in range(1, len(found)))]
    rows = [{"claim": it} | {name: of.get(it, "–") for name, of in zip(names, found, strict=True)} for it in found[0]]
    console.print(table(rows, collapse_padding=True))
    again = [(was, of.get(it)) for of in found[1:] for it, was in found[0].items() if was != "undecided"]
    stay, turned = sum(was == now for was, now in again), sum(now not in (was, "undecided") for was, now in again)
    console.print(
        f"{stay} of {len(again)} verdicts stay, of those that were decided, in {config.replicate} fresh sets of seeds; "
        f"{turned} turned into their opposite.",
        soft_wrap=True,
    )


def _spread(chosen: Options) -> None:
    """Has workers here train the shards; what is left for this process is to draw."""
    whole("workers", chosen.workers)
    if shard(chosen.shard) != WHOLE and chosen.launcher != "none":
        raise ConfigError(
            f"shard is {chosen.shard!r}; it must be left out with --launcher {chosen.launcher}, whose workers are its "
            "shards."
        )
    if chosen.slurm and chosen.launcher != "slurm":
        raise ConfigError(f"slurm is {list(chosen.slurm)}; it must be left out, or go with --launcher slurm.")
    if chosen.workers != launchers.WORKERS and chosen.launcher == "none":
        raise ConfigError(f"workers is {chosen.workers}; it must be left out, or go with --launcher local or slurm.")
    if chosen.launcher == "local":
        launchers.check_local(chosen.workers)
        launchers.local(launchers.commands(chosen.workers))


def _to_jobs(out: Path, parts: Mapping[str, Experiment], config: Options, data: Mapping[str, Any]) -> None:
    """Has Slurm train what is missing, or says what became of the jobs that should have."""

    def done(mine: Shard) -> bool:
        return all(trained(experiment.layout, out / name, mine) for name, experiment in parts.items())

    if config.launcher == "slurm":
        for name, experiment in parts.items():  # what a job would refuse is refused here
            for spec in experiment.specs:
                check(spec, data.get(name))
            manifest.check_place(out / name)
        slurm.spread(out, done, config.workers, config.slurm)
    else:
        for line in slurm.job_states(out, done, shard(config.shard)):
            plain_console(stderr=True).print(line, soft_wrap=True)


def fingerprint(data: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each part of a data set, for `Experiment.settings`: resuming on other data is then refused."""
    return {name: digest(part) for name, part in data.items()}


def launch(experiment: Experiment, config: Options, data: Any = None, vocabulary: Sequence[str] | None = None) -> Path:
    """`seqdyn.run` as the options say; the whole config goes into the manifest."""
    return launch_all({"": experiment}, config, {"": data}, vocabulary)[""]


def _keeping(experiment: Experiment, keep: str) -> Experiment:
    """With what `Options.keep` says, which the experiment checks."""
    if not keep:
        return experiment
    each = [int(one) if one.strip().isdecimal() else one for one in keep.strip().removesuffix(",").split(",")]
    return dataclasses.replace(experiment, keep=each if len(each) > 1 else each[0])


def _began(out: Path, init: str) -> bool:
    """Has a directory begun with the same `init`, whose parameters it keeps, whatever has become of their source?"""
    return (out / manifest.NAME).exists() and manifest.read(out)["config"].get("init") == init


def _start(init: str) -> Any:
    """The parameters that `Options.init` names; ConfigError for what names none."""
    if not init:
        return None
    named = re.fullmatch(r"(.+?):(\d+)(?::(\d+))?", init)
    if named is None:
        raise ConfigError(f"init is {init!r}; it must be RUN_DIR:RUN or RUN_DIR:RUN:UPDATES, as runs/mine:3.")
    path, run_, step = named.groups()
    return restore(path, int(run_), None if step is None else int(step))


def _serving(config: Options, paths: Sequence[Path]) -> list[Callable[[Chunk], None]]:
    """What hears the first chunk and has the page served then, where `Options.live` asks for it."""
    if not config.live or shard(config.shard).index:
        return []
    if config.launcher == "slurm":
        raise ConfigError("live is True, and its page would be of the job's machine; use python -m analysis.live DIR.")
    if not LIVE:
        raise ConfigError("live is True; it must be False in a script that does not import analysis.live.")
    served: list[str] = []

    def serve(new: Chunk) -> None:
        if not served:
            served.append(LIVE[-1](paths))
            plain_console(stderr=True).print(f"Explore it while it trains: {served[0]}", soft_wrap=True)

    return [serve]


def launch_all(
    parts: Mapping[str, Experiment],
    config: Options,
    data: Mapping[str, Any] | None = None,
    vocabulary: Sequence[str] | None = None,
) -> dict[str, Path]:
    """`launch` of several experiments in one run directory, each in a folder of its name ("": the directory itself) and
    on the `data` of its name. Raises `Waiting`, after the last, if any lacks what other shards have yet to train, and
    `slurm.Queued` where jobs have it."""
    if not parts:
        raise ConfigError("nothing is to be trained; an option that lists what to train must have one value or more.")
    parts = {name: _keeping(experiment, config.keep) for name, experiment in parts.items()}
    out = manifest.directory(config.out or default_out(*parts.values()))
    if config.init and config.out is None:
        out = out.with_name(f"{out.name}-from-{hashlib.sha256(config.init.encode()).hexdigest()[:8]}")
    new = [name for name in parts if not _began(out / name, config.init)]
    serving = _serving(config, [out / name for name in parts])
    start = _start(config.init) if new else None
    if start is not None:
        for name in new:  # what does not fit one of them is said before any is trained
            starts.fitted(parts[name], start)
    _to_jobs(out, parts, config, data or {})
    done = {name: out / name for name in parts}
    noted = json.loads(json.dumps(dataclasses.asdict(config), default=str), parse_constant=str)  # JSON has no inf
    for name, experiment in parts.items():
        run(
            experiment,
            done[name],
            (data or {}).get(name),
            vocabulary=vocabulary,
            verify=config.verify,
            checkpoint_seconds=config.checkpoint_seconds,
            config=noted,
            shard=shard(config.shard),
            allow_version_drift=config.allow_version_drift,
            init=start if name in new else None,
            on_chunk=serving,
        )
    for part in done.values():  # when all are trained: the other shards may have ended meanwhile
        if not complete(part):
            raise Waiting(f"{part}: this shard is done; run any of the commands again when the others are, to draw.")
    return done
