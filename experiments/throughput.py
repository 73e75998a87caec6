"""How fast is a training step beside JAX's autodiff, Flax and PyTorch, and what do watching and each probe cost?

Method: forward, backward and Adam in float32, read out at the last step, on batches that stay in memory. A run takes
one core, so what is in JAX has one device, chunks of steps in `lax.scan`, and the library's own `compiled`:
    ours      `unroll`, nothing watched
    watch     `unroll`, norms of the adjoint and of its part from the next step, read and reduced as training does
    segments  watch in segments of about √T steps, which are made again on the way back: see `nets.segments`
    autodiff  JAX's gradient of a plain scan of the same cell
    flax      JAX's gradient of `flax.linen.RNN`
    bfloat16  ours, computing in it, and ours in float64, in a process of its own: see `learn.precision`
    torch-1   PyTorch's fused RNN, LSTM or GRU on one thread, the fair comparison; torch-2 has two
    alone     the runs of a small grid one after another; ours is then all of them at once, a tile on each device
    probes    one look of each instrument at one run, on 8 sequences; ours is then one update of that run
    looks     torch-1 while `watch.torch` looks at one update in 50, beside torch-1 without, on one core
With --accelerator, on a GPU or TPU, and nothing else: whole training of a tile of 1 run (ours), 24 and 288 at once, 24
on every device, and cuDNN's layer by PyTorch, all a run and step, the gradients read in all but cuDNN's.
PyTorch and JAX fight over threads, so they have processes of their own; one block of steps is timed at a time, the
contenders in turn, and compared by the ratio of medians. PyTorch flushes denormals (up to ten times slower without).
Before the clock starts our gradient is held against autodiff's at that shape: a fast wrong answer cannot win.
Cost: about ten minutes on two cores with nothing else on them.
Expect: autodiff / ours at least 1.2 in the geometric mean and nowhere below 0.95, watch / ours at most 1.03, alone /
ours near the number of cores; for figures see README.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

from analysis import throughput as analysis
from experiments import _measured, _timing
from seqdyn import backend, norms
from seqdyn.data.tasks import Batch
from seqdyn.fields import CellName, Dtype
from seqdyn.learn import precision, verify
from seqdyn.learn.config import Spec, grid
from seqdyn.learn.probe_config import ProbeConfig, ProbeName
from seqdyn.learn.train import read
from seqdyn.measure import probes
from seqdyn.nets import cells
from seqdyn.nets.bptt import Backprop, Tap, taps, unroll
from seqdyn.nets.segments import in_segments
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.runs import sweep
from seqdyn.runs.script import script
from seqdyn.types import Array, ConfigError, Tree

Sizes = Literal["80,128,100,64", "250,64,128,64", "100,32,2,100", "400,16,2,128", "1000,8,1,256"]
Contender = Literal[
    "watch", "segments", "autodiff", "flax", "bfloat16", "float64", "torch-1", "torch-2", "alone", "probes", "looks"
]
READ = ("watch", "segments")
"""Contenders that read the adjoints."""
WATCHED = [(steps, 32, hidden) for steps in (50, 100) for hidden in (32, 64, 128)]
"""Time, batch and hidden of what PyTorch trains while it is looked at."""
BATCHES = 4  # taken in turn: data that are constants of the loop over steps would be prepared before it


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Once):
    """Who meets ours, where, and how often."""

    smoke: bool = False
    """Tiny sizes: seconds, along the same path."""
    rounds: int = 7
    """Timed blocks of each contender."""
    cells: tuple[Literal["rnn", "lstm", "gru"], ...] = ("rnn", "lstm", "gru")
    """The rnn's activation is tanh."""
    shapes: tuple[Sizes, ...] = get_args(Sizes)
    """T,B,D,H: time, batch, input, hidden."""
    contenders: tuple[Contender, ...] = get_args(Contender)
    """Beside ours; torch-n only where PyTorch is installed."""
    accelerator: bool = False
    """Measure tiles of 1, 24 and 288 runs on the accelerator of this machine instead."""


Contest = tuple[float | dict[str, int] | None, dict[str, tuple[Callable[[], Any], int]]]
"""How far our gradient is from autodiff's (or a probe's bytes in the records), and {contender: (a call that is timed,
training steps in it)}."""


def in_jax(contenders: tuple[str, ...], name: str, steps: int, batch: int, inputs: int, hidden: int) -> Contest:
    """ours, watch, autodiff and flax, or ours in another type than float32, on one device."""
    kind = contenders[0] if contenders[0] in get_args(Dtype) else "float32"
    jax.config.update("jax_enable_x64", kind == "float64")
    backend.start(1)
    k_xs, k_ys, k_params = jax.random.split(jax.random.key(0), 3)
    data = Batch(jax.random.normal(k_xs, (BATCHES, steps, batch, inputs)), jax.random.normal(k_ys, (BATCHES, batch)))
    cell = precision.computing(kind, getattr(cells, name)(inputs, hidden, dtype=precision.trained(kind)))
    theirs = {"rnn": linen.SimpleCell, "lstm": linen.OptimizedLSTMCell, "gru": linen.GRUCell}[name]
    flax = linen.RNN(theirs(hidden), time_major=True, return_carry=True)
    adam = optax.adam(1e-3)
    segment = min((n for n in range(1, steps + 1) if steps % n == 0), key=lambda n: abs(n - steps**0.5))
    chunk = 4 if steps * batch * hidden > 1.5e6 else 10  # the longest step takes 0.2 s

    def gradient(contender: str, params: Tree, at: Batch) -> tuple[Tree, Tap]:
        def loss(params: Tree, watch: Tap) -> Array:
            if contender == "flax":
                h = jax.tree.leaves(flax.apply(params[0], at.xs))[-2]  # of ([c,] h), hs
            else:
                by = {"autodiff": unroll_autodiff, "segments": in_segments(segment)}.get(contender, unroll)
                computed, xs = precision.computed(kind, (params[0], at.xs))
                h = by(cell, computed, cell.initial_carry((batch,)), xs, Backprop(), watch)[1].h.astype(
                    precision.trained(kind)
                )
            return jnp.mean(jnp.square(h @ params[1] - at.ys))

        watch = taps(cell, steps, (batch,), ranged=True) if contender in READ else Tap()
        return jax.grad(loss, argnums=(0, 1))(params, watch)

    def train(contender: str, state: Tree, data: Batch) -> Any:
        def update(state: Tree, n: Array) -> tuple[Tree, Any]:
            params, opt = state
            at = jax.tree.map(lambda leaf: leaf[n % BATCHES], data)
            grads, readings = gradient(contender, params, at)
            updates, opt = adam.update(grads, opt)
            metrics = read(Spec(), at, (readings,)) if contender in READ else None
            return (optax.apply_updates(params, updates), opt), metrics

        return jax.lax.scan(update, state, jnp.arange(chunk))

    def apart(params: Tree, at: Batch) -> Array:
        pairs = zip(*(jax.tree.leaves(gradient(c, params, at)[0]) for c in ("ours", "autodiff")), strict=True)
        return jnp.stack([norms.tree_norm(a - b) / norms.tree_norm(b) for a, b in pairs]).max()

    def call(contender: str) -> Callable[[], Any]:
        program, params = backend.compiled(partial(train, contender)), own
        if contender == "flax":
            params = flax.init(k_params, data.xs[0]), own[1]
        state = params, adam.init(params)
        return lambda: jax.block_until_ready(program(state, data))

    own = cell.init(k_params), jnp.full(hidden, hidden**-0.5)
    calls = {c: (call(c), chunk) for c in contenders}
    if kind != "float32":
        return None, calls
    return float(backend.compiled(apart)(own, jax.tree.map(lambda leaf: leaf[0], data))), calls


def in_torch(
    threads: int, name: str, steps: int, batch: int, inputs: int, hidden: int, device: str = "cpu", after: Any = None
) -> Contest:
    """torch-n, or cudnn, with U orthogonal like ours, so that its gradients vanish no sooner. `after(net)` is told the
    loss of every update."""
    import torch  # type: ignore

    torch.set_flush_denormal(True)  # before there are other threads: they inherit it
    torch.set_num_threads(threads)
    net = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name](inputs, hidden)
    readout = torch.nn.Linear(hidden, 1)
    for u in net.weight_hh_l0.detach().split(hidden):
        torch.nn.init.orthogonal_(u)
    net, readout = net.to(device), readout.to(device)
    adam = torch.optim.Adam([*net.parameters(), *readout.parameters()], 1e-3)
    xs, ys = torch.randn(BATCHES, steps, batch, inputs, device=device), torch.randn(BATCHES, batch, device=device)
    tell = after(net) if after else lambda loss: None

    def run() -> None:
        for x, y in zip(xs, ys, strict=True):
            adam.zero_grad()
            loss = (readout(net(x)[0][-1])[:, 0] - y).square().mean()
            loss.backward()
            adam.step()
            tell(loss)
        if device != "cpu":
            torch.cuda.synchronize()

    return None, {"cudnn" if device == "cuda" else f"torch-{threads}": (run, BATCHES)}


def in_looks(name: str, steps: int, batch: int, hidden: int) -> Contest:
    """torch-1, and the same (looks) while one update in 50 is looked at, both on one core."""
    from seqdyn.watch import torch as watch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def hundred(after: Any) -> tuple[Callable[[], Any], int]:
        run, updates = in_torch(1, name, steps, batch, 2, hidden, after=after)[1]["torch-1"]
        return lambda: [run() for _ in range(100 // updates)], 100

    return None, {"torch-1": hundred(None), "looks": hundred(lambda net: watch.module(net, every=50).step)}


def in_tiles(name: CellName, steps: int, batch: int, hidden: int, runs: int) -> Contest:
    """A grid of the adding problem in tiles on all devices (ours), and its runs one after another (alone)."""
    devices, updates = backend.start(), 50
    spec = Spec("adding", steps, batch, hidden=(hidden,), cell=name)
    points, programs = grid(spec, seeds=runs).arrays(), sweep.programs(spec, 1)

    shares = [points.at(slice(i, None, len(devices))) for i in range(len(devices))]
    tiles = [_timing.chunk(programs, of, updates, device) for of, device in zip(shares, devices, strict=True)]
    alone = [_timing.chunk(programs, points.at(slice(i, i + 1)), updates, devices[0]) for i in range(runs)]
    pool, n = ThreadPoolExecutor(len(devices)), runs * updates
    return None, {"ours": (lambda: list(pool.map(lambda t: t(), tiles)), n), "alone": (lambda: [r() for r in alone], n)}


def in_accelerator(runs: int, everywhere: bool, name: CellName, steps: int, batch: int, hidden: int) -> Contest:
    """Training of so many runs at once, as `sweep.width` has it on an accelerator: on one device, or on every one."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the contenders, each a process, share its memory
    devices, updates = backend.start()[: None if everywhere else 1], 20
    spec = Spec("adding", steps, batch, hidden=(hidden,), cell=name)
    points, programs = grid(spec, seeds=runs).arrays(), sweep.programs(spec, runs)
    tiles = [_timing.chunk(programs, points, updates, device) for device in devices]
    pool = ThreadPoolExecutor(len(devices))
    called = "ours" if runs == 1 else f"{runs} on all" if everywhere else f"{runs} runs"
    return None, {called: (lambda: list(pool.map(lambda tile: tile(), tiles)), len(devices) * runs * updates)}


def on_accelerator(cells: tuple[CellName, ...], rounds: int, seconds: float, smoke: bool) -> list[dict[str, Any]]:
    """A row of each cell."""
    sizes, many = ((6, 2, 4), 4) if smoke else ((100, 16, 32), 288)
    some = max(2, many // 12)
    kinds = {"ours": (1, False), f"{some} runs": (some, False), f"{many} runs": (many, False)}
    kinds |= {f"{some} on all": (some, True)}
    pipes = {called: worker(partial(in_accelerator, *kind), seconds) for called, kind in kinds.items()}
    rows = [measure(pipes, rounds, cell, *sizes) for cell in cells]
    if find_spec("torch"):
        import torch  # type: ignore

        if torch.cuda.is_available():
            of_torch = {"cudnn": worker(partial(in_torch, 1, device="cuda"), seconds)}
            for row in rows:
                row["ms"] |= measure(of_torch, rounds, row["cell"], *sizes[:2], 2, sizes[2])["ms"]
    return rows


def in_probes(name: CellName, steps: int, batch: int, hidden: int, sequences: int) -> Contest:
    """A run's update (ours) and one look of every probe at it, on the device and on the host."""
    backend.start(1)
    spec = Spec("adding", steps, batch, hidden=(hidden,), cell=name)
    runs, programs, updates = grid(spec).arrays(), sweep.programs(spec, 1), 20
    states = programs.init(runs, jnp.ones(1, bool), None)
    alive = np.ones(1, bool)

    def call(probe: ProbeName) -> Callable[[], dict[str, np.ndarray]]:
        looking = ProbeConfig((probe,), sequences, "holdout", 8)
        look = sweep.measure(spec, 1, looking)
        return lambda: probes.finish(spec, looking, jax.block_until_ready(look(runs, states, None)), alive)

    looks = {probe: call(probe) for probe in get_args(ProbeName)}
    kept = {probe: sum(4 * v.size for v in look().values()) for probe, look in looks.items()}  # float32 on disk
    update = (lambda: jax.block_until_ready(programs.chunk(runs, states, None, updates)), updates)
    return kept, {"ours": update} | {probe: (look, 1) for probe, look in looks.items()}


def worker(contest: Callable[..., Contest], seconds: float) -> Any:
    """A pipe to a new process, which ends when this one does: see `ask`. It is forked from one that has imported this
    script, which takes seconds, and computed nothing."""
    ours, theirs = Pipe()
    get_context("forkserver").Process(target=_serve, args=(theirs, contest, seconds), daemon=True).start()
    theirs.close()
    return ours


def ask(pipe: Any, *request: Any) -> Any:
    """cell, *sizes sets the contest up: how far gradients are apart. A contender's name: its milliseconds a step."""
    try:
        pipe.send(request)
        return pipe.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"the process that was asked for {request} ended; see above.") from None


def _serve(pipe: Any, contest: Callable[..., Contest], seconds: float) -> None:
    timed: dict[str, tuple[Callable[[], Any], int]] = {}
    with contextlib.suppress(EOFError, BrokenPipeError):
        while request := pipe.recv():
            if len(request) == 1:
                pipe.send(clock(*timed[request[0]], seconds))
            else:
                apart, timed = contest(*request)
                for call, _ in timed.values():
                    call()  # compiles
                pipe.send(apart)


def clock(call: Callable[[], Any], steps: int, seconds: float) -> float:
    """Milliseconds a step, in a block of at least so many seconds."""
    start, calls, spent = time.perf_counter(), 0, 0.0
    while spent < seconds:
        call()
        calls, spent = calls + 1, time.perf_counter() - start
    return 1e3 * spent / (calls * steps)


def measure(pipes: dict[str, Any], rounds: int, cell: str, *sizes: int) -> dict[str, Any]:
    """One block of each contender in turn, round by round; RuntimeError if our gradient is wrong."""
    found = [ask(pipe, cell, *sizes) for pipe in dict.fromkeys(pipes.values())][0]
    apart = found if isinstance(found, float) else None
    if apart is not None and not apart < verify.TOLERANCE:
        raise RuntimeError(f"the gradient of {cell} at {sizes} is {apart:.1e} away from autodiff's; nothing was timed.")
    blocks = [{name: ask(pipe, name) for name, pipe in pipes.items()} for _ in range(rounds)]
    row = {"cell": cell, "sizes": sizes, "apart": apart, "ms": {n: [block[n] for block in blocks] for n in pipes}}
    print(cell, *sizes, *(f"{name} {min(ms):.3g}" for name, ms in row["ms"].items()), file=sys.stderr)
    return row | ({"bytes": found} if isinstance(found, dict) else {})


def machine() -> dict[str, Any]:
    """What the numbers belong to, and how busy it was before."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(": ")[1] for line in lines if "model name" in line), "unknown")
    packages = filter(find_spec, ("jax", "jaxlib", "flax", "optax", "numpy", "torch"))
    versions = {"python": sys.version.split()[0]} | {name: version(name) for name in packages}
    return {"model": model, "cores": os.cpu_count(), "load": os.getloadavg()[0], "versions": versions}


def main(config: Config) -> None:
    """Measures, keeps every timing, draws the tables."""
    if config.rounds < 1:
        raise ConfigError(f"rounds is {config.rounds}; it must be at least 1.")
    if config.accelerator and not config.smoke and jax.default_backend() == "cpu":
        raise ConfigError("accelerator is True, and JAX finds a CPU alone; it must find a GPU or a TPU.")
    full = config.shapes, (50, 16, 32, 32), (100, 32, 64, 8), WATCHED, config.rounds, 0.5
    tiny = ("6,3,2,4",), (6, 2, 4, 4), (6, 2, 4, 2), [(6, 2, 4)], 2, 0.01
    shapes, small, looked, watched, rounds, seconds = tiny if config.smoke else full
    kept, settings = _measured.place("throughput", config)
    found: dict[str, Any] = {
        "config": settings,
        "machine": machine(),
        "shapes": [],
        "grid": [],
        "probes": [],
        "looks": [],
    }
    if config.accelerator:
        found["grid"] = on_accelerator(config.cells, rounds, seconds, config.smoke)
        _measured.keep(kept, found)
        analysis.show(kept.parent)
        return
    chosen = [c for c in config.contenders if find_spec("torch") or ("torch" not in c and c != "looks")]
    if len(chosen) < len(config.contenders):
        print("PyTorch is not installed: its contenders are left out.", file=sys.stderr)
    jaxen = ("ours", *(c for c in chosen if c in (*READ, "autodiff", "flax")))
    pipes: dict[str, Any] = dict.fromkeys(jaxen, worker(partial(in_jax, jaxen), seconds))
    pipes |= {c: worker(partial(in_jax, (c,)), seconds) for c in chosen if c in get_args(Dtype)}
    pipes |= {c: worker(partial(in_torch, int(c[-1])), seconds) for c in chosen if "torch" in c}
    if len(pipes) > 1:
        found["shapes"] = [measure(pipes, rounds, c, *map(int, s.split(","))) for s in shapes for c in config.cells]
    if "alone" in chosen:
        pipes = dict.fromkeys(["ours", "alone"], worker(in_tiles, seconds))
        found["grid"] = [measure(pipes, rounds, c, *small) for c in config.cells]
    if "probes" in chosen:
        pipes = dict.fromkeys(["ours", *get_args(ProbeName)], worker(in_probes, seconds))
        found["probes"] = [measure(pipes, rounds, c, *looked) for c in config.cells]
    if "looks" in chosen:
        pipes = dict.fromkeys(["torch-1", "looks"], worker(in_looks, seconds))
        found["looks"] = [measure(pipes, rounds, c, *sizes) for sizes in watched for c in config.cells]
    _measured.keep(kept, found)
    analysis.show(kept.parent)


if __name__ == "__main__":
    script(Config, main, __doc__)
