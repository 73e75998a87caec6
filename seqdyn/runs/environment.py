"""What else a run's numbers depend on: versions, processor, settings of JAX and XLA, the revision of the code."""

import os
import platform
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from seqdyn.backend import flags
from seqdyn.data.sampled import LENGTHS
from seqdyn.described import reads, sources
from seqdyn.learn.config import Experiment
from seqdyn.runs.sweep import width
from seqdyn.types import ConfigError

DRAWS = (
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
)
"""Settings of JAX that decide what is drawn: with another value the same seed has other data and parameters."""
ROUNDING = (
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_exec_time_optimization_effort",
    "jax_optimization_level",
    "jax_remat3",
    "jax_scan3",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
)
"""Settings of JAX that decide which operations are compiled, and so the last bits."""
BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS")
"""Variables of the library that factorises matrices on a CPU."""
ISA = {
    "SSE4_2": "sse4_2",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX_FP16": "amx_fp16",
}
"""The levels of `--xla_cpu_max_isa`, lowest first, and the flag of /proc/cpuinfo that says a processor has one."""


def environment(experiment: Experiment) -> dict[str, Any]:
    """All that the manifest notes of where a run is made."""
    packages = ("seqdyn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "zarr")
    cpu = _cpuinfo()
    code, read = (of((*experiment.specs, *experiment.probes)) for of in (sources, reads))
    return {
        "versions": {name: version(name) for name in packages},
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "instruction_set": instruction_set(cpu, flags()),
        "width": width(experiment),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "draws": _settings(DRAWS) | ({"lengths": LENGTHS} if any(spec.shortest for spec in experiment.specs) else {}),
        "settings": _settings(ROUNDING) | {name: os.environ.get(name) for name in BLAS},
        "xla_flags": deciding(flags(), jax.default_backend()),
        "git": revision(),
    } | {name: of for name, of in {"sources": code, "reads": read}.items() if of}


def _settings(names: tuple[str, ...]) -> dict[str, Any]:
    # Another version of JAX has others; an enumeration is noted by its value.
    found = {name: jax.config.values.get(name) for name in names}
    return {name: getattr(value, "value", value) for name, value in found.items()}


def check_threads() -> None:
    """Raises ConfigError for a setting of the calling thread alone, by a `with` of JAX: training's threads do not see
    it."""
    names = (*DRAWS, *ROUNDING, "jax_default_matmul_precision")
    here = _settings(names)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(_settings, names).result()
    for name in names:
        if here[name] != there[name]:
            raise ConfigError(
                f"{name} is {here[name]} in this thread and {there[name]} in others; it must be set for all, by "
                f"jax.config.update({name!r}, …)."
            )


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; nothing where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def instruction_set(cpu: dict[str, str], xla: dict[str, str]) -> str:
    """The widest instructions that XLA may use: the processor's, at most `--xla_cpu_max_isa`.

    Where they are not known (no Linux, no x86) the architecture's name stands for them, with what ARM's vectors are.
    """
    has = cpu.get("flags", cpu.get("Features", "")).split()
    levels = [name for name, flag in ISA.items() if flag in has]
    if not levels:
        return " ".join([platform.machine(), *(name for name in ("asimd", "sve", "sve2") if name in has)])
    most = xla.get("xla_cpu_max_isa", "").upper()
    order = list(ISA)
    return min(levels[-1], most if most in order else levels[-1], key=order.index)


def deciding(xla: dict[str, str], backend: str) -> dict[str, str]:
    """The flags of XLA that may change bits on this backend: all but those of other backends, those that only say how
    many devices there are or what is written down, and the instruction set, noted on its own."""
    idle = ("xla_force_host_platform_device_count", "xla_dump_", "xla_cpu_max_isa")
    others = tuple(f"xla_{name}_" for name in ("cpu", "gpu", "tpu") if name != backend)
    return {name: value for name, value in sorted(xla.items()) if not name.startswith(idle + others)}


def revision() -> str | None:
    """The git revision of seqdyn's own checkout, with '+' if it was changed since; None where the code is installed, or
    lies in somebody else's repository."""
    root = Path(__file__).resolve().parents[2]
    # Within a hook git's own variables name the repository that calls it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*command: str) -> str:
        call = ["git", "--no-optional-locks", "-C", str(root), *command]
        return subprocess.run(call, capture_output=True, check=True, timeout=10, env=env).stdout.decode().strip()

    try:
        if tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] != "seqdyn":
            return None
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        git("ls-files", "--error-unmatch", "pyproject.toml", str(Path(__file__).resolve().relative_to(root)))
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None
