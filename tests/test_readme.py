"""What the READMEs say is there: links, figures, scripts; and the first of them stays short."""

import re
from pathlib import Path

import pytest
from test_layers import ORDER

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page for folder in ("", "analysis", "experiments", "seqdyn", "tests") for page in (ROOT / folder).glob("README.md")
) + sorted(page for folder in ("experiments", "seqdyn") for page in (ROOT / folder).glob("*/README.md"))
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT).parent))


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


@every_page
def test_every_script_of_a_command_is_there(page):
    named = re.findall(r"python (\w[\w/]*\.py)", TEXT[page])
    for table in re.findall(r"(?m)^\| `uv run python ([\w/]+)/….*\n\|.*\n((?:\|.*\n)+)", TEXT[page]):
        named += [f"{table[0]}/{name}" for name in re.findall(r"(?m)^\| `(\w+\.py)", table[1])]
    assert all((ROOT / name).exists() for name in named if Path(name).stem != "X"), named


@every_page
def test_every_snippet_is_python(page):
    for snippet in re.findall(r"(?s)```python\n(.*?)```", TEXT[page]):
        compile(snippet, str(page), "exec")


def test_every_figure_that_is_kept_is_shown_with_its_command():
    gallery = ROOT / "analysis" / "README.md"
    kept = {path.name for path in (ROOT / "analysis" / "figures").glob("*.png")}
    assert kept == set(re.findall(r"src=\"figures/([^\"]+)\"", TEXT[gallery]))
    for command in re.findall(r"(?m)^## `([\w/]+\.py)", TEXT[gallery]):
        assert (ROOT / "experiments" / command).exists(), command


def test_the_map_has_every_module_in_the_order_of_imports():
    table = TEXT[ROOT / "seqdyn" / "README.md"].partition("| module |")[2].partition("\n\n")[0]
    cells = [row.split(" | ")[0] for row in table.splitlines()[2:]]
    named = [name.replace("/", ".") for cell in cells for name in re.findall(r"`([\w/]+)\.py`", cell)]
    assert named == ORDER


def test_the_first_page_is_read_in_one_go():
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= 200
