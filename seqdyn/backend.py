"""What depends on the machine: devices, the one `compiled()`, and the barrier the CPU compiler needs."""

import contextlib
import hashlib
import itertools
import math
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax

from seqdyn.types import ConfigError, Device

_OFF = {
    "jax_enable_x64": "the dtype is not 'float64'",
    "jax_debug_nans": "a run that meets NaN is data",
    "jax_debug_infs": "infinity is a number here, as a clip threshold",
    "jax_check_tracer_leaks": "hand-written derivatives are taken for leaks",
    "jax_disable_jit": "training compiles, and an update without would take seconds",
    "jax_no_tracing": "training compiles",
    "jax_no_execution": "training computes",
    "jax_custom_vjp3": "the hand-written backward pass is not one of these",
}
"""Settings of JAX under which training cannot be what it says."""


def start(devices: int | None = None, precision: str = "highest") -> list[Device]:
    """Sets the process up for training and returns its devices. Call it before anything is computed.

    On a CPU every core becomes one device (a run takes one core; two runs on two devices beat one run on two
    cores), so Eigen's own thread pool is switched off. `precision` is `jax_default_matmul_precision`: TF32 and
    bfloat16 products break laws that hold to 1e-6 (on an H100 TF32 takes 14% off an LSTM's step at T 250, B 64, H 64).

    On a GPU, XLA chooses among its products by timing them, anew in each process, and scatters with atomic additions;
    both are forbidden here, so that a run killed and resumed has its own bits (an update takes a tenth longer, where an
    embedding is trained twice as long). An XLA_FLAGS that names one of these flags is left as it is.

    Compiled programs are kept for the next process, which has the same bits of them: see `_keep_programs`.

    A ConfigError that nobody catches then ends the process with its sentence and the line that asked for it. Raises
    ConfigError if JAX has no such device, or has computed already on another number of them.
    """
    if not isinstance(sys.excepthook, _Told):
        sys.excepthook = _Told(sys.excepthook)
    given = flags()
    wanted = {"xla_cpu_multi_thread_eigen": "false", "xla_gpu_deterministic_ops": "true"}
    added = [f"--{name}={value}" for name, value in wanted.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([_flag_text(), *added]).strip()
    if "xla_force_host_platform_device_count" not in given:
        try:
            jax.config.update("jax_num_cpu_devices", devices or cores())
        except RuntimeError:
            raise ConfigError("JAX has computed already; backend.start() must be called before anything is.") from None
    # The QR of a scan's step under OpenBLAS's own threads takes up to 300 times as long where cores are shared.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    jax.config.update("jax_default_matmul_precision", precision)
    _keep_programs()
    return available()[:devices]


def available() -> list[Device]:
    """JAX's devices. Raises ConfigError if JAX has none of the kind that it was told to use."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # a backend that is not known, or known and without a device
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.values["jax_platforms"]
        reason = str(error).partition("\n")[0].rstrip(".") or "no such device"
        raise ConfigError(
            f"jax_platforms is {asked!r}; it must name a device that JAX finds here ({reason})."
        ) from None


def compile_quickly() -> None:
    """Leaves out most of what makes a compiled program fast: for sizes at which compiling is what takes the time.

    JAX_DISABLE_MOST_OPTIMIZATIONS, where it is set, has the last word.
    """
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
        jax.config.update("jax_disable_most_optimizations", True)


def _flag_text() -> str:
    """XLA_FLAGS, or what stands in the file that it names."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    if not text or text.startswith("-"):
        return text
    try:
        return " ".join(Path(text).read_text(encoding="utf-8").split("\n"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"XLA_FLAGS is {text!r}; it must be flags, or a file of flags ({error}).") from None


def flags() -> dict[str, str]:
    """The flags of XLA by name; '' for one without a value. ConfigError if they cannot be read."""
    try:
        words = shlex.split(_flag_text())
    except ValueError as error:
        raise ConfigError(f"XLA_FLAGS is {_flag_text()!r}; its quotes must match ({error}).") from None
    return {name: value for name, _, value in (word.lstrip("-").partition("=") for word in words)}


def check_settings(double: bool = False) -> None:
    """Raises ConfigError if JAX is set in a way that training, in float64 if `double`, cannot obey.

    Whoever sets up or measures without training is free to.
    """
    if double and not jax.config.values["jax_enable_x64"]:
        raise ConfigError("jax_enable_x64 is False; it must be True (JAX_ENABLE_X64=1): the dtype is 'float64'.")
    for name, why in _OFF.items():
        if jax.config.values.get(name) and not (double and name == "jax_enable_x64"):
            raise ConfigError(f"{name} is True; it must be False ({name.upper()}=0): {why}.")
    for name in ("", "_host_to_device", "_device_to_device", "_device_to_host"):
        value = jax.config.values.get(f"jax_transfer_guard{name}")
        if value is not None and str(value).startswith("disallow"):
            raise ConfigError(f"jax_transfer_guard{name} is {value}; it must be allow or log: training moves arrays.")


class _Told(NamedTuple):
    """A ConfigError as its sentence, after the caller's line that met it; anything else as it was told `before`."""

    before: Callable[..., Any]

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConfigError):
            return self.before(kind, error, trace)
        package = str(Path(__file__).parent)
        lines = [f for f in traceback.extract_tb(trace) if not f.filename.startswith(package)]
        where = f"{lines[-1].filename}, line {lines[-1].lineno}: " if lines else ""
        sys.stderr.write(f"{where}{error}\n")


def _keep_programs() -> None:
    """Sets JAX's compilation cache to ~/.cache/seqdyn (of XDG_CACHE_HOME, if it is set), where nobody has set it.

    A folder for each kind of processor: several machines may share a home, and JAX does not ask which of them compiled.
    JAX_COMPILATION_CACHE_DIR names another folder; empty, none.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = named if named.is_absolute() else Path.home() / ".cache"  # as its specification has it
        folder = base / "seqdyn" / f"programs-{_processor()}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # nowhere to write, no home
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """Of its name and instructions eight digits."""
    said = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        said += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compiled(function: Callable[..., Any], **jit_options: Any) -> Any:
    """`jax.jit`, as everything that trains or measures must be jitted.

    XLA's CPU fusion emitters give silently wrong numbers for concatenate → dot inside a loop at some shapes
    (jaxlib 0.8.3 to 0.10.2, AVX-512), so they are off; the option works on the outermost jit only. jaxlib 0.11.2 has no
    such option: there the law of tests/test_bptt.py over shapes holds as it is, in 0.10.2 it fails without the option.
    """
    if jax.default_backend() == "cpu" and jax.__version_info__ < (0, 11):
        jit_options["compiler_options"] = {"xla_cpu_use_fusion_emitters": False}
    return jax.jit(function, **jit_options)


def traced_once(function: Callable[..., Any]) -> Any:
    """`function` as a part of compiled programs, which trace it once for all arguments of one shape."""
    return jax.jit(function)


def map_matrices(function: Callable[[Any], Any], matrices: Any) -> Any:
    """`function` of every matrix of a batch [*b, n, k], on a CPU of one after the other.

    There jaxlib (0.10.2) deals a batch's factorisations to the threads that run the devices' programs, and waits: two
    devices that factorise at once wait for each other for ever.
    """
    batch = matrices.shape[:-2]
    if jax.default_backend() != "cpu" or math.prod(batch) == 1:
        return function(matrices)
    found = jax.lax.map(function, matrices.reshape(-1, *matrices.shape[-2:]))
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)


def side_by_side(*parts: Any) -> Any:
    """Arrays [*b, n_i] side by side in the last axis: `jnp.concatenate`, on a CPU as a sum of padded parts.

    It has the same bits (x + −0 is x, for every x) and speed. XLA's own emitter of concatenations makes of its rows one
    vector, of which LLVM takes parts that do not begin on a whole vector a little before where they are, silently, in a
    loop at four rows of five doubles. `compiled` does without that emitter; this is for those who jit for themselves.
    """
    if jax.default_backend() != "cpu":
        return jax.numpy.concatenate(parts, axis=-1)
    width, start, total = sum(part.shape[-1] for part in parts), 0, None
    for part in parts:
        around = (start, width - start - part.shape[-1], 0)
        padded = jax.lax.pad(part, jax.numpy.array(-0.0, part.dtype), [(0, 0, 0)] * (part.ndim - 1) + [around])
        total, start = padded if total is None else total + padded, start + part.shape[-1]
    return total


def split_at_widths(x: Any, *widths: int) -> list[Any]:
    """What `side_by_side` put together. Slices: the derivative of `jnp.split` is a concatenation."""
    ends = list(itertools.accumulate(widths))
    return [x[..., end - width : end] for end, width in zip(ends, widths, strict=True)]


def optimization_barrier(tree: Any) -> Any:
    """The identity. On a CPU it also stops XLA from simplifying across it.

    XLA (jaxlib 0.10.2) takes fences away before it fuses, so it fuses as it would without: where it is made to heed
    them, an LSTM's backward pass takes a quarter longer. What they keep apart until then is worth up to 9% of a step
    of a GRU and 3% of one of an LSTM (T 100, B 32, H 100), and at larger sizes nothing. On an H100 those of an LSTM
    would cost 15 to 23% of a step.
    """
    return jax.lax.optimization_barrier(tree) if jax.default_backend() == "cpu" else tree


def unrolled() -> int:
    """Time steps in one turn of a compiled loop over them.

    On an accelerator a step is a few kernels that wait for each other, and a turn adds its own. Four steps a turn take
    an LSTM's training step on an H100 from 2.1 to 1.2 ms alone, from 3.7 to 2.7 as 24 runs (T 100, B 32, H 64) and from
    11.1 to 9.3 (T 250, B 64, H 64), for half as much again of program and, in the last, of memory. A CPU loses by it.
    """
    return 1 if jax.default_backend() == "cpu" else 4


def device_axes() -> frozenset[str]:
    """The axes along which what is traced lies on several devices, as in `jax.shard_map` and `jax.pmap`."""
    mesh = jax.sharding.get_abstract_mesh()
    return frozenset(axis for axis in mesh.manual_axes if mesh.shape[axis] > 1)
