"""What the READMEs say is there and runs: links, figures, commands, snippets; and the first of them stays short."""

import importlib
import importlib.util
import re
import shlex
import sys
import textwrap
import types
from pathlib import Path

import jax
import pytest
import tyro
from test_layers import ORDER

X64 = False
ROOT = Path(__file__).parents[1]
PAGES = (
    [ROOT / "seqdyn" / "GLOSSARY.md"]
    + sorted(
        page
        for folder in ("", "analysis", "experiments", "seqdyn", "tests")
        for page in (ROOT / folder).glob("README.md")
    )
    + sorted(page for folder in ("experiments", "seqdyn") for page in (ROOT / folder).glob("*/README.md"))
)
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(text):
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?s)```.*?```", "", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", TEXT[page]):
        path, _, anchor = "".join(target).partition("#")
        if path.startswith("http"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), path
        assert not anchor or anchor in anchors(TEXT[there]), f"{path}#{anchor}"


BLOCK = re.compile(r"(?ms)^(<!-- not run: .+? -->\n+)?```python\n(.*?)^```")
"""What stands above it says why one is not run."""
ARRAYS = """
import jax, jax.numpy as jnp, numpy as np
from seqdyn import compiled, watch
from flax import linen as nn, nnx
rng = np.random.default_rng(0)
params = {"w": jnp.ones((3, 8)) / 3, "u": jnp.eye(8) / 2, "v": jnp.ones((8, 1))}
xs, y = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((5, 32, 3), (32, 1)))
"""
BEFORE = {
    "README.md": {
        0: ARRAYS,
        4: """
            import torch
            net = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(2, 4), "out": torch.nn.Linear(4, 1)})
        """,
        5: "import shutil; shutil.copytree('runs/lion', 'runs/gradient_flow-…')",
    },
    "seqdyn/watch/README.md": {
        0: ARRAYS,
        1: "x = xs.swapaxes(0, 1)",
        3: "import equinox as eqx; key = jax.random.key(0); cell = eqx.nn.GRUCell(3, 64, key=key)",
        4: "import haiku as hk",
        5: """
            import torch
            class Model(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.lstm, self.out = torch.nn.LSTM(3, 8, batch_first=True), torch.nn.Linear(8, 1)
                def forward(self, x):
                    return self.out(self.lstm(x)[0][:, -1])
            model = Model()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            batches = [(torch.ones(2, 5, 3), torch.ones(2, 1))] * 2
        """,
    },
    "seqdyn/measure/README.md": {
        0: "import seqdyn; spec = seqdyn.Spec('adding', steps=10)",
        1: "import jax; key = jax.random.key(0); xs = jax.random.normal(key, (20, 8, 3))",
    },
    "seqdyn/runs/README.md": {
        0: """
            import shutil, numpy as np, seqdyn as sd
            from seqdyn.data.text import labelled_text
            tiny = dict(batch=4, hidden=(3,))
            spec = sd.Spec("adding", steps=5, cell="lstm", holdout=4, **tiny)
            sd.run(sd.Experiment("a", spec, sd.grid(seeds=4), updates=2), "runs/a", verify=False)
            for out in ("b", "gradient_flow-…"):
                shutil.copytree("runs/a", f"runs/{out}")
            runs = sd.grid(spec, seeds=4)
            texts = ["a fine film", "dull, dull"] * 4
            parts = ("train", "validation", "test")
            text = labelled_text(dict.fromkeys(parts, (texts, np.array([1, 0] * 4))), length=4)
            words = sd.Spec("labelled", steps=4, vocabulary=len(text.vocabulary), embedding=2, **tiny)
            mine = sd.Experiment("words", words, sd.grid(seeds=3), updates=2)
            sd.run(mine, "runs/mine", text.splits, vocabulary=text.vocabulary, verify=False)
            letters = ["<pad>", "<start>", "<unk>", *sorted(set("to be or not"))]
            stream = np.array([letters.index(c) for c in "to be or not " * 20])
            spec = sd.Spec("stream", steps=4, vocabulary=len(letters), classes=len(letters), readout="every", **tiny)
            data = dict.fromkeys(parts, stream)
            sd.run(sd.Experiment("stream", spec, updates=2), "runs/stream", data, vocabulary=letters, verify=False)
        """,
    },
}
"""By page and block: what its reader has, files, data and models, smaller than theirs."""
AFTER = {
    "experiments/own/README.md": {
        11: """
            from pathlib import Path
            main(Config(out=Path("runs/mine"), biases=(0.0, 1.0), verify=False))
        """
    }
}
"""What the reader of a script then does."""
SMALLER = (
    ("updates=200)", "updates=4)"),
    ("updates=2000)", "updates=4)"),
    ("updates=100)", "updates=4)"),
    ("updates=5000", "updates=4"),
    ("step=1024", "step=2"),
    ("1020, 1030", "1, 3"),
    ("(0, 64, 4096)", "(0, 4)"),
    ("[0, 250, 500]", "[0, 1, 3]"),
    ("updates=1000, chunk=100, probe_every=200)", "updates=4, chunk=2, probe_every=2)"),
    ("steps=50, cell", "steps=5, cell"),
    ("Adding(steps=50)", "Adding(steps=5)"),
    ("steps=200, cell", "steps=5, cell"),
    ("hidden=(64,)", "hidden=(4,)"),
    ("hidden=(32,)", "hidden=(4,)"),
)
"""Numbers that only cost time."""
FOREIGN = ("torch", "equinox", "haiku")
VERIFIED = ("experiments/own/README.md",)
"""Pages of parts whose gradients nobody else holds against autodiff's."""


WRITTEN = [str(page.relative_to(ROOT)) for page in PAGES if BLOCK.search(TEXT[page])]
LONG = ("README.md", "experiments/own/README.md", "seqdyn/runs/README.md", "seqdyn/watch/README.md")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in WRITTEN])
def test_every_snippet_runs(name, tmp_path, monkeypatch):
    """In their order, in one module; frameworks that are not here are left out, and said."""
    monkeypatch.chdir(tmp_path)
    page = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", page)
    if name not in VERIFIED:
        monkeypatch.setattr("seqdyn.runs.verified.gradient_error", lambda *_: 2e-7)
    missing = set()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for k, (not_run, code) in enumerate(BLOCK.findall(TEXT[ROOT / name])):
            for old, new in SMALLER:
                code = code.replace(old, new)
            around = [textwrap.dedent(when.get(name, {}).get(k, "")) for when in (BEFORE, AFTER)]
            absent = {f for f in FOREIGN if f"import {f}" in around[0] and not importlib.util.find_spec(f)}
            missing |= absent
            if not (not_run or absent):
                exec(compile("\n".join((around[0], code, around[1])), f"{name}, block {k}", "exec"), page.__dict__)
    if missing:
        pytest.skip(f"all but what needs {', '.join(missing)} ran")


def commands(text):
    """(script or module, its arguments) of what a shell is given, in blocks, between backticks and in tables."""
    said = re.findall(r"(?s)```(?:ba)?sh\n(.*?)```", text)
    prose = re.sub(r"(?s)```.*?```", "", text)
    lines = [line for block in said for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:uv run )?python [^`…]*)`", prose.replace("\n", " "))
    for head, folder, rows in re.findall(r"(?m)^(.*)`uv run python ([\w/]+)/….*\n\|.*\n((?:\|.*\n)+)", prose):
        cells = [row.split("|")[head.count("|")] for row in rows.splitlines()]
        lines += [f"python {folder}/{given}" for cell in cells for given in re.findall(r"^ `([^`]+)`", cell)]
    lines += [f"python experiments/{given}" for given in re.findall(r"(?m)^##+ `([\w/]+\.py[^`]*)`", prose)]
    for line in lines:
        words = shlex.split(line, comments=True)
        if "python" in words:
            module, *given = words[words.index("python") + 1 :]
            yield (given[0], given[1:]) if module == "-m" else (module, given)


@every_page
def test_every_command_names_a_script_and_options_that_it_has(page, capsys):
    for module, given in commands(TEXT[page]):
        module = module.replace("X.py", "gradient_flow.py")
        path = ROOT / (module if module.endswith(".py") else f"{module.replace('.', '/')}.py")
        assert path.exists(), module
        loaded = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        config = getattr(loaded, "Config", tyro.conf.Positional[Path] if hasattr(loaded, "show") else None)
        if config:
            try:
                tyro.cli(config, args=given)
            except SystemExit:
                pytest.fail(f"{module} {given}: {capsys.readouterr().err}")


def test_every_figure_that_is_kept_is_shown_with_its_command():
    gallery = ROOT / "analysis" / "README.md"
    kept = {path.name for path in (ROOT / "analysis" / "figures").glob("*.png")}
    assert kept == set(re.findall(r"src=\"figures/([^\"]+)\"", TEXT[gallery]))
    for command in re.findall(r"(?m)^## `([\w/]+\.py)", TEXT[gallery]):
        assert (ROOT / "experiments" / command).exists(), command


FORM = ["summary", "table", "figures", "text", "show"]
FORMS = {"exploding": ["figures", "show"], "theory_check": ["table", "show"], "throughput": ["table", "show"]}
FORMS |= {"costs": ["table", "text", "show"]}
"""Those of another form, as the page says."""


def test_what_draws_an_experiment_has_the_one_form_and_returns_its_files():
    scripts = {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
    drawn = [path for path in (ROOT / "analysis").glob("*.py") if path.stem in scripts]
    for path in drawn:
        functions = re.findall(r"(?m)^def (\w+)\(", path.read_text())
        assert set(FORMS.get(path.stem, FORM)) <= set(functions), path.stem
        assert re.search(r"\ndef show\((?s:.*?)\) -> list\[Path\]:", path.read_text()), path.stem
    assert len(drawn) > 15


def test_the_map_has_every_module_in_the_order_of_imports():
    table = TEXT[ROOT / "seqdyn" / "README.md"].partition("| module |")[2].partition("\n\n")[0]
    cells = [row.split(" | ")[0] for row in table.splitlines()[2:]]
    named = [name.replace("/", ".") for cell in cells for name in re.findall(r"`([\w/]+)\.py`", cell)]
    assert named == ORDER


def test_the_first_page_is_read_in_one_go():
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= 200


def test_the_citation_has_the_version_of_the_package():
    cited = re.findall(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited == re.findall(r'(?m)^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
