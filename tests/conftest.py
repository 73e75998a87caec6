"""Strict JAX, run-time shape checks, one compilation cache for all processes of a session, and a tiny experiment."""

import os
import tempfile

os.environ.setdefault("MPLBACKEND", "agg")
# Scripts that tests start compile the same programs again and again: they share this session's cache.
_cache = (
    tempfile.TemporaryDirectory(prefix="seqdyn-compiled-") if "JAX_COMPILATION_CACHE_DIR" not in os.environ else None
)
if _cache:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# Not config: there a wrong Literal must reach the sentence that says so.
_ARRAYS = (
    "norms averages theory nets.inits nets.activations nets.cells nets.memoryless nets.hard_concrete "
    "nets.bptt nets.stack nets.normalised nets.dropped "
    "data.batches data.synthetic data.tasks data.splits data.text data.scaling data.images data.wording data.augment "
    "data.banks data.waves "
    "learn.dropout learn.model learn.penalties learn.optim learn.stopping learn.train learn.verify "
    "measure.weights measure.units measure.jacobians measure.lyapunov measure.flossing measure.curvature "
    "measure.updates measure.probes runs.sweep"
).split()
install_import_hook([f"seqdyn.{name}" for name in _ARRAYS], "beartype.beartype")


def pytest_addoption(parser):
    parser.addoption("--attack", action="store_true", help="also run the long forms of the attacks")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def _double(request):
    """Laws of formulas hold in float64; a module about whole runs, which are float32, says `X64 = False`."""
    jax.config.update("jax_enable_x64", getattr(request.module, "X64", True))
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def imdb_dir():
    """A TFDS data directory that holds IMDB."""
    path = os.environ.get("SEQDYN_DATA")
    if path is None or not os.path.exists(os.path.join(path, "imdb_reviews")):
        pytest.skip("needs IMDB: set SEQDYN_DATA to a TFDS data directory that holds imdb_reviews")
    return path
