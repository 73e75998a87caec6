"""The only impure loop: resume → chunk → record → probe → checkpoint, for every tile, with progress and signals.

Records are written before the checkpoint that covers them: a kill in between replays an identical chunk over the
same region. So what is on disk after any kill, and any number of resumes, ends as the uninterrupted run would.
"""

import contextlib
import hashlib
import itertools
import json
import time
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from seqdyn.backend import available, check_settings
from seqdyn.data.check import check_all
from seqdyn.data.vectors import load_vocabulary, save_vocabulary, word_list
from seqdyn.layout import Layout, Tile, layout
from seqdyn.learn import probe_config, train
from seqdyn.learn.config import Experiment
from seqdyn.learn.context import Variable
from seqdyn.measure import probes
from seqdyn.runs import axes, checkpoint, kept, lock, manifest, signals, starts, sweep
from seqdyn.runs.chunks import Chunk, Listeners
from seqdyn.runs.display import Display, plain_console
from seqdyn.runs.environment import check_threads
from seqdyn.runs.lanes import MOMENT, Lanes
from seqdyn.runs.lock import WHOLE, Shard, check_file_system, gate, held
from seqdyn.runs.records import VARIABLES, Store
from seqdyn.runs.signals import Interrupted, Stop
from seqdyn.runs.traced import check_traces
from seqdyn.runs.verified import verify_gradients
from seqdyn.types import ConfigError, Device

VOCABULARY = "vocabulary.txt"
CHECKPOINT_SECONDS = 20.0
"""Between checkpoints of a tile. Each costs about 50 ms; `kill -9` loses at most this much work."""


def run(
    experiment: Experiment,
    out: str | Path,
    data: Any = None,
    *,
    verify: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    config: dict[str, Any] | None = None,
    vocabulary: Sequence[str] | None = None,
    console: Console | None = None,
    shard: str | Shard = WHOLE,
    allow_version_drift: bool = False,
    init: Any = None,
    on_chunk: Callable[[Chunk], object] | Sequence[Callable[[Chunk], object]] | None = None,
) -> Path:
    """Trains every run of the experiment to its last update and returns its run directory, resuming what is there.

    `init` are parameters that every run starts from, as `restore` or `seqdyn.io.from_…` return them; seeds go on
    deciding data and dropout, and optimiser, schedule and early stopping begin as always. Running statistics of batch
    normalisation come along with the parameters. Where its embedding, its readout, its gates of l0 or the statistics
    are None, they begin as always; word vectors of a pretrained embedding yield to one that is given. Flossing acts on
    what is given. The manifest has a digest, and the parents where they are known; to go on needs no `init`. A mapping
    from the labels of the specs gives each its own: starts are an axis where specs differ in `name` alone.

    `on_chunk` is called with each `Chunk` of a tile once it is recorded, never twice at a time; it changes no bits.
    What it raises is raised here, after all that was trained is saved. Updates that are made again after a kill are
    told again.

    `data` are splits, as `data.check.check` has them; `config` (JSON) is kept in the manifest, `vocabulary` (the
    word of each id) in vocabulary.txt. A `shard`, as '0/2', trains its tiles only: see `complete`; of the processes
    that `jax.distributed` joins, each is a shard. Raises ConfigError if the data or `init` do not fit, and if `out`
    cannot be made or holds another experiment, one that began from other parameters or (but for
    `allow_version_drift`) was made by another seqdyn or jax; RuntimeError if the gradient at the run's own shapes is
    more than 1e-3 away from autodiff's, another process trains these tiles or the file system lacks what is needed;
    OSError if what was made cannot be written any more; Interrupted after a signal.
    """
    if not isinstance(experiment, Experiment):
        said = experiment.__name__ if isinstance(experiment, type) else type(experiment).__name__
        raise ConfigError(f"experiment is {said}; it must be an Experiment, as Experiment('mine', spec, updates=100).")
    mine = lock.shard(shard)
    available()  # else the first thing asked of JAX would end in its own assertion
    check_settings(experiment.specs[0].dtype == "float64")
    if mine == WHOLE:
        mine = Shard(jax.process_index(), jax.process_count())
    if not isinstance(console, Console | None):
        raise ConfigError(f"console is {console!r:.80}; it must be a rich.console.Console, or None for stderr.")
    given_out, console = manifest.directory(out), console or plain_console(stderr=True)
    out = given_out.absolute()  # also if somebody changes the working directory
    check_threads()
    if not isinstance(checkpoint_seconds, int | float | np.number) or not checkpoint_seconds >= 0:
        raise ConfigError(f"checkpoint_seconds is {checkpoint_seconds!r}; it must be a number of at least 0.")
    data = check_all(experiment.specs, data)
    experiment = manifest.going_on(out, experiment)
    words = _words(experiment, out, vocabulary)
    listeners = Listeners(on_chunk, out, experiment.layout)
    given = None if init is None else starts.fitted(experiment, init)
    check_traces(experiment, data)
    names = _recorded(experiment, data)
    new = not (out / manifest.NAME).exists()
    begun = None if given is None else starts.described(experiment, init, given)
    if why := manifest.sealed(out):
        with contextlib.closing(listeners):
            manifest.same(out, experiment, begun)
            if not trained(experiment.layout, out, mine):
                raise ConfigError(
                    f"{out} is not done, and nothing can be written in it ({why}); go on in a copy of it."
                )
        console.print(f"{out} is done; nothing can be written in it, and nothing need be.", soft_wrap=True)
        return given_out
    noted = manifest.open_run(out, experiment, config or {}, allow_version_drift, begun)
    with held(out, mine):
        check_file_system(out)
        if verify:
            try:
                verify_gradients(experiment, out, noted, data, console)
            except (ConfigError, RuntimeError):
                if new:
                    manifest.withdraw(out)
                raise
        if words is not None:
            save_vocabulary(out / VOCABULARY, words)
        start = starts.kept(out, noted, given) if "init" in noted else None
        try:
            _train_all(experiment, out, data, names, checkpoint_seconds, console, mine, start, listeners)
        finally:
            listeners.close()
    return given_out


def _words(experiment: Experiment, out: Path, vocabulary: Any) -> tuple[str, ...] | None:
    """The word of each id; ConfigError where they are others than a directory has."""
    if vocabulary is None:
        return None
    words = word_list(vocabulary, min((spec.vocabulary for spec in experiment.specs if spec.vocabulary), default=0))
    there = words
    if (out / VOCABULARY).exists():
        with contextlib.suppress(ConfigError):  # damaged, and written again
            there = load_vocabulary(out / VOCABULARY)
    if there != words:
        differ = (i for i, (a, b) in enumerate(itertools.zip_longest(there, words)) if a != b)
        raise ConfigError(f"{out} has another vocabulary, from id {next(differ)} on; choose another directory.")
    return words


def complete(out: str | Path) -> bool:
    """Have all tiles of a run directory, those of other shards included, done their last update?"""
    return trained(layout(manifest.read(out)["experiment"]), manifest.directory(out))


def trained(at: Layout, out: Path, mine: Shard = WHOLE) -> bool:
    """Have the tiles of a shard done their last update?"""
    tiles = [tile for tile in at.tiles if mine.has(tile.index)]
    return all(at.updates in checkpoint.steps(checkpoint.of_tile(out, tile.index)) for tile in tiles)


def _train_all(
    experiment: Experiment,
    out: Path,
    data: Any,
    names: list[str],
    checkpoint_seconds: float,
    console: Console,
    shard: Shard,
    start: Callable[[Any], Any] | None,
    listeners: Listeners,
) -> None:
    at = experiment.layout
    store = Store(out / "records.zarr", at)
    coordinates = axes.coordinates(experiment)
    own = axes.own_variables(experiment)
    with gate(out):
        store.create(names, coordinates, own)
        noted, digest = manifest.read(out), store.digest()
        if noted.get("records") != digest:
            manifest.write(out, noted | {"records": digest})
    mine, asked = [tile for tile in at.tiles if shard.has(tile.index)], kept.wanted(experiment)
    devices = jax.local_devices()[: max(1, len(mine))]
    with signals.awaited() as stop, Display(experiment, console, mine, manifest.first_run(out)) as display:
        work = _Work(
            experiment,
            store,
            coordinates,
            VARIABLES | own,
            out,
            checkpoint_seconds,
            stop,
            display,
            asked,
            start,
            listeners,
        )
        shared = Lanes(mine)
        with ThreadPoolExecutor(len(devices)) as pool:
            lanes = [pool.submit(_lane, shared, device, data, work) for device in devices]
            waiting = set(lanes)
            while waiting:  # in turns: a signal that reached another thread is handled when this one runs again
                done, waiting = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION)
                if not stop and any(lane.exception() for lane in done):
                    stop.ask()  # the other devices save and end, then the failure is raised
        for lane in lanes:
            lane.result()
        if stop.signum is not None:
            raise Interrupted(stop.signum, stop.seconds)


def default_out(experiment: Experiment, *others: Experiment) -> Path:
    """runs/<name of the first>-<digest of all>: the same command finds its directory again, longer or not."""
    described = [e.describe() | {"updates": 0} | dict.fromkeys(e.ruled) for e in (experiment, *others)]
    return Path("runs") / f"{experiment.name}-{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:8]}"


# --- one tile -----------------------------------------------------------------------------------------------


class _Work(NamedTuple):
    """What the lanes share; each writes only its own tiles' rows and checkpoints."""

    experiment: Experiment
    store: Store
    coordinates: dict[str, list[Any]]
    variables: dict[str, Variable]
    out: Path
    checkpoint_seconds: float
    stop: Stop
    display: Display
    kept: Sequence[int]
    """the updates whose states are kept, first ones first"""
    start: Callable[[Any], Any] | None
    """spec -> the parameters that its runs start from, by name; None: their seeds decide"""
    listeners: Listeners


def _lane(shared: Lanes, device: Device, data: Any, work: _Work) -> None:
    with jax.enable_x64(work.experiment.specs[0].dtype == "float64"):  # whatever on_chunk sets in the meantime
        data = jax.device_put(data, device)
        for tile in shared.tiles(lambda: bool(work.stop)):
            if tile is None:
                time.sleep(MOMENT)
            else:
                _train(tile, device, data, work)


def _train(tile: Tile, device: Device, data: Any, work: _Work) -> None:
    """Takes a tile from where it is to the end, or to the end of the chunk in which a stop is asked for."""
    experiment = work.experiment
    programs = sweep.programs(experiment.specs[tile.spec], sweep.width(experiment))
    runs = jax.device_put(sweep.tile_runs(experiment, tile), device)
    directory = checkpoint.of_tile(work.out, tile.index)
    checkpoint.sweep_up(directory)
    kept.sweep_up(kept.of_tile(work.out, tile.index))
    work.store.sweep_up(tile)
    marks = checkpoint.marks(runs)
    step, states = _resumed(tile, directory, device, work, marks)
    if states is None:
        given = None if work.start is None else jax.device_put(work.start(experiment.specs[tile.spec]), device)
        states = programs.init(runs, jax.device_put(sweep.real(experiment, tile), device), data, given)
        _keep(work, tile, 0, states, marks)
        states, metrics = _probe(tile, experiment, programs, runs, states, data)
        _record(work, tile, 0, metrics)
    work.display.at(tile, step, np.asarray(states.alive))
    saved_at = time.monotonic()
    stopping = bool(work.stop)
    while step < experiment.updates and not stopping:
        made = ~sweep.stopped(states)[:, None]
        states, metrics = _chunk(work, tile, programs, runs, states, data, step, marks)
        _record(work, tile, step, metrics | {"recorded": np.broadcast_to(made, metrics["finite"].shape)})
        before, step = step, step + metrics["finite"].shape[1]
        work.display.at(tile, step, np.asarray(states.alive), metrics)
        if step % experiment.probe_every == 0:
            states, metrics = _probe(tile, experiment, programs, runs, states, data)
            _record(work, tile, step // experiment.probe_every, metrics)
        raised = work.listeners.hear(tile, before, step)
        stopping = bool(work.stop) or raised is not None
        if stopping or step == experiment.updates or time.monotonic() - saved_at >= work.checkpoint_seconds:
            checkpoint.save(directory, step, states, marks)
            saved_at = time.monotonic()
        if raised is not None:
            raise raised


def _resumed(tile: Tile, directory: Path, device: Device, work: _Work, marks: Mapping[str, str]) -> tuple[int, Any]:
    """The newest whole checkpoint whose records are whole too, or (0, None): what is lost is then made again."""
    like = abstract(work.experiment, tile)
    step, states = checkpoint.latest(directory, like, device, of=marks) or (0, None)
    if states is None:
        return step, states
    others = kept.of_tile(work.out, tile.index)
    whole, what = min(
        (work.store.whole_until(tile, step), f"records of tile {tile.index} in {work.store.path}"),
        (kept.whole_until(others, work.kept, step), f"states in {others}"),
    )
    if whole < step:
        warnings.warn(
            f"{what} are damaged from update {max(whole, 0)} on: they are made again from the checkpoint before",
            stacklevel=2,
        )
        step, states = checkpoint.latest(directory, like, device, whole, marks) or (0, None)
    return step, states


def _record(work: _Work, tile: Tile, number: int, metrics: dict[str, Any]) -> None:
    """Writes metrics [run, …] of a tile from update, or probe, `number` on."""
    spec = work.experiment.specs[tile.spec]
    placed = {
        name: axes.align_to_axes(values, name, spec, work.coordinates, work.variables, work.store.layout.steps)
        for name, values in metrics.items()
    }
    work.store.write(tile, number, placed)


def _chunk(
    work: _Work, tile: Tile, programs: Any, runs: Any, states: Any, data: Any, step: int, marks: Mapping[str, str]
) -> tuple[Any, dict[str, Any]]:
    """One call of the compiled chunk, or where it is to be cut one to each update whose states are kept, or nothing at
    all where no run of the tile is running any more. The last chunk is cut where the updates end, and the first of a
    run that goes on from there begins there."""
    length, updates, asked = work.experiment.chunk, work.experiment.updates, work.kept
    cut = any(n % length for n in (step, updates, *((asked.step,) if isinstance(asked, range) else asked)))
    parts, end = [], min(step - step % length + length, updates)
    for stop in (*asked[bisect_right(asked, step) : bisect_left(asked, end)], end):
        if not np.asarray(states.running).any():
            shapes = programs.chunk.eval_shape(runs, states, data, stop - step)[1]
            states, metrics = states._replace(step=states.step + stop - step), jax.tree.map(train.nan_like, shapes)
        elif cut:
            states, metrics = sweep.part(programs, runs, states, data, length, stop)
        else:
            states, metrics = programs.chunk(runs, states, data, length)
        parts.append(metrics)
        step = stop
        _keep(work, tile, step, states, marks)
    return states, parts[0] if len(parts) == 1 else jax.tree.map(lambda *of: np.concatenate(of, axis=1), *parts)


def _keep(work: _Work, tile: Tile, step: int, states: Any, marks: Mapping[str, str]) -> None:
    """Keeps the states after `step` updates, of the runs with these marks, where that is asked for."""
    if step in work.kept:
        kept.save(kept.of_tile(work.out, tile.index), step, states, marks)


def _probe(
    tile: Tile, experiment: Experiment, programs: Any, runs: Any, states: Any, data: Any
) -> tuple[Any, dict[str, Any]]:
    """(the states, some of them stopped by what is seen; held-out metrics and what the probes record)"""
    metrics = programs.evaluate(runs, states, data)
    spec, config, after = experiment.specs[tile.spec], experiment.probe_config, states
    if spec.stop != "none":
        after, stopping = programs.update_early_stopping(runs, states, metrics)
        metrics |= stopping
    if config.probes:
        looked = sweep.measure(spec, sweep.width(experiment), config)(runs, states, data)
        metrics |= probes.finish(spec, config, looked, np.asarray(states.running))
    return after, metrics


# --- what surrounds it --------------------------------------------------------------------------------------


def abstract(experiment: Experiment, tile: Tile) -> Any:
    """The states of a tile as shapes and types."""
    shapes = axes.shapes(experiment.specs[tile.spec])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((experiment.tile, *leaf.shape), leaf.dtype), shapes)


def _recorded(experiment: Experiment, data: Any) -> list[str]:
    """Names of all variables that any spec records, the library's in the order of `VARIABLES`, then users'."""
    names = {"recorded"}
    own = experiment.probe_config._replace(probes=tuple(probe_config.own_probes(experiment.probes).values()))
    for tile in {tile.spec: tile for tile in experiment.layout.tiles}.values():
        programs = sweep.programs(experiment.specs[tile.spec], sweep.width(experiment))
        runs = sweep.tile_runs(experiment, tile)
        states = abstract(experiment, tile)
        names |= set(programs.chunk.eval_shape(runs, states, data, experiment.chunk)[1])
        seen = programs.evaluate.eval_shape(runs, states, data)
        names |= set(seen)
        if states.stopping is not None:
            names |= set(programs.update_early_stopping.eval_shape(runs, states, seen)[1])
        for program in sweep.probe_programs(experiment.specs[tile.spec], sweep.width(experiment), own):
            program.eval_shape(runs, states, data)  # what users' probes return is checked in a trace
    names |= {name for probe in experiment.probes for name in probes.made(probe).names}
    return [name for name in (*VARIABLES, *axes.own_variables(experiment)) if name in names]
