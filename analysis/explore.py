"""One page to explore run directories, finished or still training: opens from a file, without network or server.

    python -m analysis.explore DIR… [--out FILE]

Beside a map of log₂ ‖∂L/∂h_t‖ over lag and update stand the curve over lags at one update, loss, clip scale, horizon
and spectral radius; runs are picked, and panels made, by any coordinate. The page holds single records, none averaged:
of up to `POINTS` updates and lags, half of them evenly spaced, half on a log axis; of fewer where the page would be
larger than `LARGEST`. A log₂ norm is rounded to 1/128 (coarser where one lies beyond ±255), all else to the 11 bits of
a float16, with the range of a float32.
"""

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from jaxtyping import Float, Int

from analysis import lags
from analysis.learned import criterion, learned_at, statuses
from seqdyn.files import in_one_step, writing
from seqdyn.runs import manifest
from seqdyn.runs.records import VARIABLES
from seqdyn.runs.script import script
from seqdyn.runs.several import load
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

NAME = "explore.html"
LARGEST = 2_000_000
"""Bytes of a page."""
POINTS = 100
"""Updates, and lags, of a map."""
CURVE = 300
"""Updates of a curve against updates."""
BLOCK = 64
"""Runs read at once."""
MAPS = {"adjoint_norm": "‖∂L/∂hₜ‖", "carried_norm": "‖∂L/∂hₜ‖ from step t + 1", "adjoint_norm_c": "‖∂L/∂cₜ‖"}
SERIES = {
    "loss": "training loss",
    "clip_scale": "clip scale",
    "grad_norm": "gradient norm",
    "clipped": "share clipped",
    "spectral_radius": "spectral radius",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
}
MISSING, ZERO, INFINITE = -(2**15), -(2**15) + 1, 2**15 - 1
"""Codes of a log₂ norm that is no number."""
_MARK = "<!DOCTYPE html>\n<!-- seqdyn: analysis.explore -->\n"
_HERE = Path(__file__).parent
_PAGE = (
    _MARK
    + """<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; style-src {style}; \
script-src {script}; connect-src {connect}">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<script type="application/json" id="data">{data}</script>
<script>{js}</script>
</body>
</html>
"""
)


# --- what is shown --------------------------------------------------------------------------------------------


def spread(n: int, most: int) -> Int[np.ndarray, " some"]:
    """Up to `most` of 0 … n − 1, the ends among them: half evenly spaced, half on a log axis."""
    if n <= most:
        return np.arange(n)
    even = np.linspace(0, n - 1, most // 2)
    return np.unique(np.concatenate([even, np.geomspace(1, n, most - most // 2) - 1]).round().astype(int))


def logs(norms: Float[np.ndarray, " *s"], digits: int) -> Int[np.ndarray, " *s"]:
    """log₂ of norms in units of 2^−digits, as int16; `MISSING`, `ZERO`, `INFINITE` of what has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(np.ldexp(np.log2(np.asarray(norms, np.float64)), digits))
    codes = np.clip(np.where(np.isfinite(steps), steps, 0), ZERO + 1, INFINITE - 1)
    kinds = [np.isnan(norms), norms == 0, np.isinf(norms)]
    return np.select(kinds, [MISSING, ZERO, INFINITE], codes).astype(np.int16)


def rounded(values: Float[np.ndarray, " *s"]) -> Float[np.ndarray, " *s"]:
    """float32 with the 11 bits of a float16's mantissa."""
    with np.errstate(over="ignore"):
        mantissa, exponent = np.frexp(np.asarray(values, np.float32))
        return np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent).astype(np.float32)


def packed(numbers: np.ndarray) -> str:
    """Bytes by their place in a number, deflated, in base 64: small differences leave long runs of zeros."""
    little = np.ascontiguousarray(numbers).astype(numbers.dtype.newbyteorder("<"))
    planes = little.reshape(-1, 1).view(np.uint8).T
    return base64.b64encode(zlib.compress(planes.tobytes())).decode()


def packed_logs(codes: Int[np.ndarray, " *s lag"]) -> str:
    """`packed` differences from one lag to the next, modulo 2¹⁶."""
    return packed(np.diff(codes.view(np.uint16), axis=-1, prepend=np.uint16(0)))


def payload(paths: Sequence[Path]) -> dict[str, Any]:
    """What a page of these directories holds, thinned until it fits."""
    ds = load(paths[0] if len(paths) == 1 else paths)
    read = _read(ds)
    said = _said(ds, paths)
    most, room = POINTS, LARGEST - _shell() - 1000
    while True:
        found = said | _thinned(read, most)
        size = len(_json(found))
        if size <= room or most <= 8:
            return found
        most = max(8, min(most - 2, int(most * np.sqrt(0.95 * room / size))))


@dataclass
class _Read:
    """What is read of the records, at as many updates as a page shows at most."""

    steps: Int[np.ndarray, " step"]
    lags: Int[np.ndarray, " lag"]
    maps: dict[str, Float[np.ndarray, "run layer step lag"]]
    series: dict[str, tuple[Int[np.ndarray, " point"], Float[np.ndarray, "run layer point"]]]


def _read(ds: "xr.Dataset") -> _Read:
    made = ds["recorded"].values.any(axis=0)
    until = max(1, int(made.sum()))
    counts = ds["adjoint_count"].isel(step=slice(0, until), time=-1).values if "adjoint_count" in ds else None
    measured = np.flatnonzero(~np.isnan(counts).all(axis=0)) if counts is not None else np.arange(0)
    steps = measured[spread(len(measured), POINTS)]
    every = ds["lag"].values[::-1].astype(int)
    kept = spread(len(every), POINTS)
    blocks = [slice(i, i + BLOCK) for i in range(0, ds.sizes["run"], BLOCK)]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in MAPS if name in ds and len(steps)}
    reaches = []
    for part in (ds.isel(run=runs, step=steps) for runs in blocks):
        there = part["adjoint_count"].load() > 0 if parts else None
        for name, found in parts.items():
            norms = part[name].where(there).transpose("run", "layer", "step", "time").values
            found.append(norms[..., ::-1][..., kept])
            if name == "adjoint_norm":
                reaches.append(lags.horizon(lags.by_lag(ds, norms)))
    maps = {name: np.concatenate(found) for name, found in parts.items()}
    series = {"horizon": (steps, np.concatenate(reaches))} if reaches else {}
    points = spread(until, CURVE)
    for name in SERIES:
        if name not in ds:
            continue
        of = ds[name]
        if "step" in of.dims:
            found, at = of.isel(step=points).values[:, None], points
        else:
            at = ds["probe_step"].values.astype(int)
            rows = spread(len(at), CURVE)
            at, of = at[rows], of.isel(probe=rows)
            values = of.transpose("run", "layer", "probe", ...).values if "layer" in of.dims else of.values[:, None]
            with np.errstate(invalid="ignore"):
                found = np.fmax.reduce(values, axis=-1) if values.ndim == 4 else values  # over gates
        if not np.isnan(found).all():
            series[name] = at, found
    return _Read(steps, every[kept], maps, series)


def _thinned(read: _Read, most: int) -> dict[str, Any]:
    s, g = spread(len(read.steps), most), spread(len(read.lags), most)
    maps = {}
    for name, norms in read.maps.items():
        norms = norms[:, :, s][..., g]
        runs = np.flatnonzero(~np.isnan(norms).all(axis=(1, 2, 3)))
        there = norms[np.isfinite(norms) & (norms > 0)]
        widest = float(np.abs(np.log2(there, dtype=np.float64)).max(initial=1)) if there.size else 1.0
        digits = min(7, int(np.floor(np.log2((INFINITE - 2) / widest))))
        if len(runs):
            maps[name] = {"name": MAPS[name], "units": VARIABLES[name].units, "runs": runs.tolist(), "digits": digits}
            maps[name]["data"] = packed_logs(logs(norms[runs], digits))
    series = {}
    for name, (at, values) in read.series.items():
        p = s if name == "horizon" else spread(len(at), most * CURVE // POINTS)
        series[name] = {
            "name": SERIES.get(name, "horizon"),
            "units": VARIABLES[name].units if name in VARIABLES else "steps",
            "at": at[p].tolist(),
            "layers": values.shape[1],
            "data": packed(rounded(values[..., p])),
        }
    return {"steps": read.steps[s].tolist(), "lags": read.lags[g].tolist(), "maps": maps, "series": series}


def _said(ds: "xr.Dataset", paths: Sequence[Path]) -> dict[str, Any]:
    """What runs are, and what became of them."""
    met, status = [], []
    for path in paths:
        one = load(path)
        of = criterion(manifest.described(path))
        known = of.metric in one and "test_loss" in one
        met += learned_at(one, of).tolist() if known else [np.nan] * one.sizes["run"]
        status += statuses(one, of).tolist() if known else [""] * one.sizes["run"]
    gone = lags.diverged(ds)
    made = ds["recorded"].values.sum(axis=1)
    numbers = [np.where(gone.any(axis=1), gone.argmax(axis=1), -1), np.nan_to_num(np.asarray(met), nan=-1).astype(int)]
    layers = ds["layer"].values.tolist()
    names = ", ".join(dict.fromkeys(str(Path(p).resolve().name) for p in paths))
    share = float(made.mean() / ds.sizes["step"])
    return {
        "title": names,
        "about": f"{ds.sizes['run']} runs; task {_some(ds, 'task')}; T = {_some(ds, 'steps')}; "
        f"{ds.sizes['step']:,} updates, {share:.0%} of them made",
        "runs": ds.sizes["run"],
        "updates": ds.sizes["step"],
        "layers": [name if isinstance(name, str) else f"layer {name}" for name in layers],
        "coordinates": _coordinates(ds),
        "broke": numbers[0].tolist(),
        "learned": numbers[1].tolist(),
        "made": made.tolist(),
        "status": status,
    }


def _some(ds: "xr.Dataset", name: str) -> str:
    return ", ".join(map(lags.text, lags.axis(ds, name))) if name in ds.coords else "–"


def _coordinates(ds: "xr.Dataset") -> list[dict[str, Any]]:
    """Coordinates of the runs that tell some apart, each as its values and the index of one in each run; of those that
    tell the same runs apart the first."""
    found, known = [], set()
    first = ("label", "gain", "clip", "experiment")
    names = [str(name) for name, of in ds.coords.items() if of.dims == ("run",)]
    for name in sorted(names, key=lambda n: (first.index(n) if n in first else len(first), n in ("seed", "run_there"))):
        values = list(map(_short, lags.axis(ds, name)))
        index = [values.index(_short(v)) for v in ds[name].values.tolist()]
        order: dict[int, int] = {}
        alike = tuple(order.setdefault(i, len(order)) for i in index)
        if len(order) > 1 and (name == "run" or alike not in known):
            known.add(alike)
            found.append({"name": name, "values": values, "of": index})
    return sorted(found, key=lambda of: (of["name"] in ("run", "run_there"), of["name"] == "seed"))


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return "–" if value != value else short if float(short) == value else repr(value)


# --- the page -------------------------------------------------------------------------------------------------


def _json(data: Any) -> str:
    """JSON in ASCII that ends no script."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _parts() -> dict[str, str]:
    return {kind: (_HERE / f"explore.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}


def _shell() -> int:
    return len(_PAGE) + sum(len(text.encode()) for text in _parts().values())


def page(data: dict[str, Any]) -> str:
    """The page of a `payload`: the same bytes of the same records. One with a `version` asks its server, and nobody
    else, now and then for the newest."""
    parts = _parts()
    digests = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in parts.items()
    }
    title = html.escape(f"{data['title']}: gradients through time")
    connect = "'self'" if "version" in data else "'none'"
    return _PAGE.format(
        connect=connect, style=digests["css"], script=digests["js"], title=title, data=_json(data), **parts
    )


def write(paths: Sequence[str | Path], file: str | Path) -> Path:
    """Writes the page of these run directories in one step and returns its path. Raises ConfigError where the file is
    there and no such page, or has no folder, or one that cannot be written in, and as `load`."""
    file, paths = Path(file), [Path(path) for path in paths]
    for path in paths:
        manifest.read(path)
    if file.exists() != file.is_file() or not file.parent.is_dir():
        raise ConfigError(f"out is {file}; it must be a file, in a folder that is there.")
    if file.exists() and not file.read_bytes().startswith(_MARK.encode()):
        raise ConfigError(f"out is {file}, which is there and no page of this command; take another name.")
    text = page(payload(paths))
    with writing(file.parent, "--out FILE puts the page elsewhere"), in_one_step(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # a path need not be text
    return file


@dataclass(frozen=True)
class Config:
    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories; several stand side by side, told apart by `experiment`."""
    out: Path | None = None
    """The page; by default explore.html in the directory, or here of several."""


def main(config: Config) -> None:
    if not config.dirs:
        raise ConfigError("dirs is empty; it must be one run directory or more.")
    default = config.dirs[0] / NAME if len(config.dirs) == 1 else Path(NAME)
    print(write(config.dirs, config.out or default))


if __name__ == "__main__":
    script(Config, main, __doc__)
