"""The shape of the library: imports from below only, few modules that touch the world, docstrings, no long module."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "seqdyn"
ORDER = """
types layout documented names files parts building described grids backend norms averages theory
nets.inits nets.activations nets.cells nets.statistics nets.from_step nets.ranges nets.diagonal nets.minimal nets.lru
nets.indrnn nets.slstm nets.without_biases nets.memoryless nets.levels nets.hard_concrete
nets.exponents nets.bptt nets.segments nets.stack nets.normalised nets.dropped nets.wrappers nets.conventions
numbers fields
watch.seen watch.step watch.loss watch.flax watch.linen watch.nnx watch.probed watch.torch_layers
data.arrays data.losses data.batches data.sampled data.synthetic data.tasks data.text data.check data.splits data.extras
data.scaling data.packaged data.images data.wording data.augment data.cache data.vectors data.banks data.datasets
data.waves data.audio
learn.precision learn.context learn.terms learn.own_cells learn.probe_config learn.rules learn.optim
learn.dropout learn.network learn.fitted learn.spec learn.layers learn.model
learn.start learn.penalties learn.objective learn.stopping
learn.train learn.verify
measure.view measure.weights measure.units measure.graded measure.jacobians measure.lyapunov
measure.newton measure.lag_signal measure.flossing
measure.curvature measure.updates measure.probes measure.broken measure.full
learn.validate learn.config learn.extended
runs.sweep runs.lock runs.environment runs.manifest runs.checkpoint runs.points runs.stacked runs.sound runs.records
runs.several runs.axes runs.added runs.lag_map runs.display runs.signals
io.parents io.stacks io.safetensors io.torch io.keras io.flax io.onnx
runs.starts runs.kept runs.chunks mirrors runs.launchers runs.slurm runs.traced runs.verified runs.lanes runs.run
runs.restore runs.use runs.again runs.replay runs.probe runs.extend runs.why runs.usual runs.script runs.elsewhere why
watch.torch_calls watch.torch
""".split()
"""The floors of the library, bottom-up, and the modules of each."""
WORLDLY = {
    "backend",
    "files",
    "io.keras",
    "io.onnx",
    "io.safetensors",
    "data.banks",
    "data.cache",
    "data.vectors",
    "data.datasets",
    "runs.added",
    "runs.lock",
    "runs.kept",
    "runs.launchers",
    "runs.environment",
    "runs.elsewhere",
    "runs.slurm",
    "runs.manifest",
    "runs.checkpoint",
    "runs.records",
    "runs.run",
    "runs.several",
    "runs.starts",
    "mirrors",
    "why",
}
"""The modules that may touch files, processes and the network."""


def dotted(path):
    """'nets.bptt' of seqdyn/nets/bptt.py, '' of the package itself."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


PATHS = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name: ast.parse(path.read_text()) for name, path in PATHS.items()}
every_module = pytest.mark.parametrize("name", MODULES)


def imported(tree):
    """Dotted names of everything a module imports, at any depth: 'seqdyn.nets.bptt.unroll', 'numpy'."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def siblings(tree):
    """The modules of the library that a module imports."""
    names = {name.removeprefix("seqdyn.") for name in imported(tree) if name.startswith("seqdyn.")}
    return {part for name in names for part in (name, name.rpartition(".")[0]) if part in ORDER}


def test_the_order_names_every_module_once():
    assert sorted(ORDER) == sorted(name for name, path in PATHS.items() if path.name != "__init__.py")


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_from_below(name):
    above = siblings(MODULES[name]) - set(ORDER[: ORDER.index(name)])
    assert not above, f"seqdyn.{name} imports {', '.join(sorted(above))}, which stand above it"


def test_imports_are_seen_where_they_are():
    """The law above is not kept by seeing nothing."""
    below = "types parts norms nets.bptt data.augment data.check data.tasks learn.context learn.spec"
    below += " learn.start learn.dropout learn.own_cells nets.statistics"
    below += " learn.network learn.model learn.objective learn.penalties learn.precision learn.optim learn.stopping"
    assert siblings(MODULES["learn.train"]) == set(below.split())
    assert len({sibling for tree in MODULES.values() for sibling in siblings(tree)}) > 15


def test_nothing_of_the_library_is_imported_for_types_alone():
    """Not even so may its modules import each other in a circle; only what takes long to import is. (A package's
    own `__init__` names so what it offers and imports when it is asked for.)"""
    found = set()
    for name in ORDER:
        for node in ast.walk(MODULES[name]):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                found |= imported(node)
    assert found == {"xarray", "pandas", "optax"}


WORLD_IMPORTS = {"zarr", "orbax", "subprocess", "shutil", "tempfile", "urllib", "socket", "requests", "glob", "io"}
WORLD_CALLS = {"open", "print", "input", "Path", "exec", "eval"}
WORLD_METHODS = {"read_text", "write_text", "read_bytes", "write_bytes", "unlink", "rmdir", "mkdir", "tofile", "savez"}


def touches(tree):
    """What in a module reaches outside the process, as source."""
    nodes = list(ast.walk(tree))
    calls = {ast.unparse(node.func): node for node in nodes if isinstance(node, ast.Call)}
    found = {name for name in imported(tree) if name.split(".")[0] in WORLD_IMPORTS}
    found |= {name for name in calls if name in WORLD_CALLS or name.split(".")[-1] in WORLD_METHODS}
    found |= {
        ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ"
    }
    return found


@every_module
def test_only_a_few_modules_touch_the_world(name):
    # One reads and completes XLA_FLAGS, which may name a file; one says whether a path is one, and opens nothing; one
    # asks how wide the terminal is, and says for a moment that it is wide enough.
    allowed = {
        "backend": {"os.environ", "Path", "Path(text).read_text"},
        "types": {"Path"},
        "runs.script": {"shutil", "os.environ"},
    }.get(name, set())
    if name in WORLDLY:
        assert touches(MODULES[name]), f"{name} touches nothing and need not be in the list"
    else:
        assert touches(MODULES[name]) <= allowed


@every_module
def test_every_public_name_says_what_it_is(name):
    tree = MODULES[name]
    assert ast.get_docstring(tree)
    silent = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            silent += [] if ast.get_docstring(node) else [node.name]
            members = node.body if isinstance(node, ast.ClassDef) else []
            silent += [
                f"{node.name}.{member.name}"
                for member in members
                if isinstance(member, ast.FunctionDef) and member.name[0] != "_" and not ast.get_docstring(member)
            ]
    assert not silent


@every_module
def test_no_module_is_longer_than_a_sitting(name):
    assert len(PATHS[name].read_text().splitlines()) <= 400


def test_only_backend_jits():
    """Whatever else jits would run the compiler's faulty fusions."""
    for name, tree in MODULES.items():
        jits = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) == "jax.jit"]
        assert bool(jits) == (name == "backend"), name
