"""One self-contained HTML page of a run directory: what was measured, figures, tables, and how it was made.

Every module that draws an experiment has one form: `summary` (what was measured, a row a setting), `table` (the same
for the reader), `figures` (each a `Drawn`, made when it is asked for), `text` (paragraphs) and `show`, which publishes
them and returns the files.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from analysis import explore, style
from analysis import live as live  # whoever draws reports has `--live`
from seqdyn.files import in_one_step, make_folder, writing
from seqdyn.runs import manifest
from seqdyn.runs.display import plain_console, table
from seqdyn.types import ConfigError

NAME = "report.html"
Drawn = tuple[str, Figure, str]
"""The name of its file, a figure, its caption."""
Tables = Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
"""(caption, rows that share their keys)."""


def parts(out: Path, script: str, *names: str) -> dict[str, Path]:
    """The run directories in that of a script which trains several, by their names; ConfigError if there are none of
    it, or not those `names`."""
    found = {path.parent.name: path.parent for path in sorted(out.glob(f"*/{manifest.NAME}"))}
    found = {name: at for name, at in found.items() if manifest.read(at)["experiment"]["name"].startswith(f"{script}_")}
    if not found or not {*names} <= {*found}:
        raise ConfigError(f"{out} lacks run directories of experiments/{script}.py; give the directory that it made.")
    return found


_MARK = "<!DOCTYPE html>\n<!-- seqdyn: analysis.report -->\n"
_PAGE = (
    _MARK
    + """<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
figure { margin: 2.5rem 0; } img { width: 100%; height: auto; }
figcaption, table, pre { font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; } caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid #ddd; white-space: nowrap;
         font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
{% macro grid(rows, caption) %}<div class="wide"><table><caption>{{ caption }}</caption>
<tr>{% for name in rows[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row.values() %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</table></div>{% endmacro -%}
<h1>{{ title }}</h1>
{% if explored %}<p><a href="{{ explored }}">Explore these runs</a>: every lag at every update, one page.</p>
{% endif -%}
{% for text in paragraphs %}<p>{{ text }}</p>
{% endfor %}
{% for figure in figures %}<figure><img src="{{ figure.source }}" alt="{{ figure.name }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
{% for caption, rows in tables %}{% if rows %}{{ grid(rows, caption) }}{% endif %}
{% endfor %}
<h2>How it was made</h2>
{% if verified %}{{ grid(verified, "Gradient at these shapes, ours against autodiff of a plain scan") }}
{% elif experiment %}<p>The gradient was not held against autodiff here.</p>{% endif %}
{{ grid(environment, "Made on") }}
{% if config %}{{ grid(config, "Settings of the command") }}{% endif %}
{% if experiment %}<details><summary>The experiment in full</summary><pre class="wide">{{ experiment }}</pre></details>
{% endif -%}
</body>
</html>
"""
)


def write(
    out: str | Path,
    title: str,
    paragraphs: Sequence[str],
    figures: Sequence[tuple[Path, str]],
    tables: Tables = (),
    into: Path | None = None,
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Writes report.html into the run directory (or another folder) in one step and returns its path.

    `figures` are (PNG with an SVG beside it, caption). `made` has 'versions' and 'config' of what was not trained and
    so has no manifest. The page needs nothing but itself, and the same run directory and figures give the same bytes.
    """
    out = Path(out)
    made = manifest.read(out) if made is None else {"experiment": {}, "verified": {}} | dict(made)
    shown = ("format", "experiment", "config", "verified", "versions")
    environment = made["versions"] | {k: v for k, v in made.items() if k not in shown}
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_PAGE)
    html = page.render(
        title=title,
        explored=explore.NAME if (into or out).joinpath(explore.NAME).exists() else "",
        paragraphs=paragraphs,
        figures=[{"name": path.stem, "source": _inline(path), "caption": caption} for path, caption in figures],
        tables=tables,
        verified=[{"cell": k, "largest relative difference": f"{v:.1e}"} for k, v in made["verified"].items()],
        environment=[{"": k, "value": v} for k, v in environment.items()],
        config=[{"": k, "value": json.dumps(v, ensure_ascii=False)} for k, v in made["config"].items()],
        experiment=_lines(made["experiment"]),
    )
    into = into or out
    with in_one_step(into / NAME) as partial:
        partial.write_text(html, encoding="utf-8", errors="backslashreplace")  # a path need not be text
    return into / NAME


def _saved(figures: Iterable[Drawn], folder: Path) -> list[tuple[Path, str]]:
    """(file, caption) of figures that are made one after the other, in the one look."""
    with style.look():
        return [(style.save(figure, folder / "figures" / name), caption) for name, figure, caption in figures]


def check_folder(into: Path, what: str) -> None:
    """ConfigError for a file, a run directory, among whose files `what` must not lie, and a folder with a page or
    figures that are not ours, in whose place it would be put."""
    if (into / manifest.NAME).exists() or (into.exists() and not into.is_dir()):
        raise ConfigError(f"out is {into}; it must be a folder for {what}, and no run directory.")
    page, figures = into / NAME, into / "figures"
    ours = page.is_file() and page.read_bytes().startswith(_MARK.encode())
    if not ours and (page.exists() or (figures.is_dir() and any(figures.iterdir()))):
        there = page if page.exists() else figures
        raise ConfigError(f"out is {into}, which has {there.name} of something else; choose another folder for {what}.")


def publish(
    out: str | Path,
    title: str,
    text: Sequence[str],
    figures: Iterable[Drawn],
    tables: Tables,
    into: Path | None = None,
    printed: Sequence[Sequence[Mapping[str, str]]] | None = None,
    made: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Saves figures, writes the page, and that of `explore` beside it in a run directory; prints the first table (or
    those of `printed`) and where all lies; returns the figures' files and the page. ConfigError, before anything is
    drawn, for a folder that cannot be written in."""
    folder = into or Path(out)
    cure = "take another folder" if into else "python -m analysis.gradient_flow RUN_DIR --out FOLDER draws elsewhere"
    with writing(folder, cure):
        make_folder(folder / "figures")
    drawn = _saved(figures, folder)
    explored = [explore.write([out], Path(out) / explore.NAME)] if into is None else []
    page = write(out, title, text, drawn, tables, into, made)
    *before, last = printed or [tables[0][1]]
    for rows in before:
        show(rows, [])
    files = [path for path, _ in drawn]
    show(last, [*files, *explored, page])
    return [*files, page]


def show(rows: Sequence[Mapping[str, str]], paths: Sequence[Path]) -> list[Path]:
    """Prints a table and where the files lie, which it returns."""
    console = plain_console()
    narrow = [{name.replace(" ", "\n"): value for name, value in row.items()} for row in rows]
    console.print(table(narrow, collapse_padding=True))
    for path in paths:
        console.print(str(path), soft_wrap=True)
    return list(paths)


def _inline(png: Path) -> str:
    """The smaller of a figure's two files, as a data URI: as an image, an SVG's ids cannot meet another's."""
    files = {"image/svg+xml": png.with_suffix(".svg").read_bytes(), "image/png": png.read_bytes()}
    kind = min(files, key=lambda k: len(files[k]))
    return f"data:{kind};base64,{base64.b64encode(files[kind]).decode()}"


def _lines(experiment: Mapping[str, Any]) -> str:
    """JSON with one line a field, two levels deep: a grid of numbers is not one number a line."""
    lines = []
    for key, value in experiment.items():
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if parts is None:
            lines.append(f"{key}: {json.dumps(value)}")
        else:
            lines += [f"{key}.{k}: {json.dumps(v)}" for k, v in parts]
    return "\n".join(lines)
