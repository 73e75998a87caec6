"""Strict JAX, run-time shape checks, one compilation cache for all processes of a session, and a tiny experiment."""

import ctypes
import functools
import gc
import os
import resource
import sys
import tempfile
from importlib.metadata import version

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("NUMBA_OPT", "0")  # librosa compiles fifty functions where it is new, for a few small arrays
# Tests compile far more than they compute. LLVM's optimiser is two thirds of that: it is off, in scripts that tests
# start as well, but for modules that say `OPTIMISED = True`. JAX_DISABLE_MOST_OPTIMIZATIONS=0 switches it on for all.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_flags = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_parallel_codegen_split_count=1"]
# Half the compilation of what is under a plain `jax.jit` or under none; `seqdyn.compiled` has them off as well. jaxlib
# 0.11 has no such flag.
if "xla_cpu_use_fusion_emitters" not in _flags[0] and tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    _flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(_flags).strip()
# Scripts that tests start compile the same programs again and again: they share this session's cache.
_cache = (
    tempfile.TemporaryDirectory(prefix="seqdyn-compiled-") if "JAX_COMPILATION_CACHE_DIR" not in os.environ else None
)
if _cache:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
if _cache and os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # then each would compile what it imports: three seconds
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(_cache.name, "bytecode")

gc.set_threshold(20_000, 20, 50)  # a trace makes many objects and few cycles

import _processes  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_enable_compilation_cache", False)  # of the tests' own process: few are compiled twice
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# Not config: there a wrong Literal must reach the sentence that says so.
_ARRAYS = (
    "norms averages theory nets.inits nets.activations nets.cells nets.memoryless nets.hard_concrete "
    "nets.exponents nets.bptt nets.segments nets.stack nets.normalised nets.dropped nets.wrappers nets.without_biases "
    "nets.diagonal watch.seen watch.step "
    "data.losses data.batches data.synthetic data.tasks data.splits data.text data.scaling data.images data.wording "
    "data.augment data.banks data.waves building data.sampled nets.from_step "
    "learn.context learn.terms learn.probe_config learn.own_cells learn.rules learn.fitted "
    "learn.dropout learn.layers learn.model learn.penalties learn.objective learn.optim learn.stopping learn.train "
    "learn.verify "
    "measure.weights measure.units measure.jacobians measure.newton measure.lag_signal measure.lyapunov "
    "measure.flossing measure.curvature measure.updates measure.probes runs.sweep"
).split()
install_import_hook([f"seqdyn.{name}" for name in _ARRAYS], "_shapes.checked")


def pytest_addoption(parser):
    parser.addoption("--attack", action="store_true", help="also run the long forms of the attacks")


LARGE, ROOM = 1100 << 20, 300 << 20
"""Bytes that a worker may hold after a test before its programs are dropped, and beyond what stays when they are."""
_stays = [0]
_peak = [0, "at start"]
"""Most kilobytes that the process has had, and the test after which it was so."""
_used = []
"""What each worker said at its end."""


def pytest_collection_finish():
    gc.freeze()  # what was imported is searched for cycles no more: half a second each time that all is searched


def pytest_sessionfinish(session):
    _processes.stop()
    own, started = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = [round(r.ru_utime + r.ru_stime) for r in (own, started)]
    said = f"{own.ru_maxrss / 2**20:.1f} GiB at most ({_peak[1]}), {seconds[0]} s of processor time, {seconds[1]} s of "
    said += "processes"
    getattr(session.config, "workeroutput", {})["used"] = said


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _used.append(f"{node.gateway.id}: {getattr(node, 'workeroutput', {}).get('used', 'lost')}")


def pytest_terminal_summary(terminalreporter):
    for used in sorted(_used):
        terminalreporter.write_line(used)


@pytest.fixture
def key():
    return jax.random.key(0)


_devices = jax.local_devices


@pytest.fixture(autouse=True, scope="module")
def _setting(request):
    """Laws of formulas hold in float64; a module about whole runs, which are float32, says `X64 = False`. One whose
    laws a compiler might break says `OPTIMISED = True`. JAX compiles a program for each device anew: tiles are trained
    on one of the two, but in a module that says `DEVICES = 2`.
    """
    count = getattr(request.module, "DEVICES", 1)
    jax.local_devices = lambda *args, **kwargs: _devices(*args, **kwargs)[:count]
    quick, optimised = jax.config.read("jax_disable_most_optimizations"), getattr(request.module, "OPTIMISED", False)
    jax.config.update("jax_enable_x64", getattr(request.module, "X64", True))
    jax.config.update("jax_disable_most_optimizations", quick and not optimised)
    if optimised:  # which is no part of the key under which JAX keeps a program
        _drop_programs()
    yield
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_disable_most_optimizations", quick)
    if optimised:
        _drop_programs()


@pytest.fixture(autouse=True)
def _lean(request):
    """Programs are dropped where a module's have made the process large."""
    yield
    if (most := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) > _peak[0]:
        _peak[:] = most, request.node.nodeid
    if _resident() > max(LARGE, _stays[0] + ROOM):
        _drop_programs()
        _stays[0] = _resident()


def _resident():
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _drop_programs():
    for module in [m for name, m in sys.modules.items() if name.startswith(("seqdyn.runs.", "experiments."))]:
        for kept in vars(module).values():
            if type(kept) is functools._lru_cache_wrapper:
                kept.cache_clear()
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed, a gigabyte of it


@pytest.fixture(scope="session")
def imdb_dir():
    """A TFDS data directory that holds IMDB."""
    path = os.environ.get("SEQDYN_DATA")
    if path is None or not os.path.exists(os.path.join(path, "imdb_reviews")):
        pytest.skip("needs IMDB: set SEQDYN_DATA to a TFDS data directory that holds imdb_reviews")
    return path
