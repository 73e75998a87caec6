"""What depends on the machine: devices, the one `compiled()`, and the barrier the CPU compiler needs."""

import math
import os
from collections.abc import Callable
from typing import Any

import jax

from seqdyn.types import Device


def start(devices: int | None = None, precision: str = "highest") -> list[Device]:
    """Sets the process up for training and returns its devices. Call it before anything is computed.

    On a CPU every core becomes one device (a run takes one core; two runs on two devices beat one run on two
    cores), so Eigen's own thread pool is switched off. `precision` is `jax_default_matmul_precision`: TF32 and
    bfloat16 products break laws that hold to 1e-6.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if "xla_force_host_platform_device_count" not in flags:
        jax.config.update("jax_num_cpu_devices", devices or _cores())
    # The QR of a scan's step under OpenBLAS's own threads takes up to 300 times as long where cores are shared.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    jax.config.update("jax_default_matmul_precision", precision)
    return jax.devices()[:devices]


def _cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compiled(function: Callable[..., Any], **jit_options: Any) -> Any:
    """`jax.jit`, as everything that trains or measures must be jitted.

    XLA's CPU fusion emitters give silently wrong numbers for concatenate → dot inside a loop at some shapes
    (jaxlib 0.8.3 to 0.10.2, AVX-512), so they are off; the option works on the outermost jit only.
    """
    if jax.default_backend() == "cpu":
        jit_options["compiler_options"] = {"xla_cpu_use_fusion_emitters": False}
    return jax.jit(function, **jit_options)


def each(function: Callable[[Any], Any], matrices: Any) -> Any:
    """`function` of every matrix of a batch [*b, n, k], on a CPU of one after the other.

    There jaxlib (0.10.2) deals a batch's factorisations to the threads that run the devices' programs, and waits: two
    devices that factorise at once wait for each other for ever.
    """
    batch = matrices.shape[:-2]
    if jax.default_backend() != "cpu" or math.prod(batch) == 1:
        return function(matrices)
    found = jax.lax.map(function, matrices.reshape(-1, *matrices.shape[-2:]))
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)


def fence(tree: Any) -> Any:
    """The identity. On a CPU it also stops XLA from fusing across it.

    There, fusion recomputes shared operands and stops vectorising inside loops: a gate without fences takes six
    times as long. An accelerator wants the fusion.
    """
    return jax.lax.optimization_barrier(tree) if jax.default_backend() == "cpu" else tree
