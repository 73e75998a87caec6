"""‖∂L/∂h_t‖ over lag and update as a few lines of text, for a terminal."""

import numpy as np
from jaxtyping import Float

ROWS, COLUMNS = 8, 40
DECADES = 10.0
"""What is this far below the largest norm is drawn as the smallest."""
SHADES, ASCII = "·░▒▓█", ".:+#@"
"""From small to large; a blank is what is not made yet, or was not recorded."""


class LagMap:
    """Rows are lags, 0 at the bottom; columns are equal parts of the updates. A cell is the median over runs of one
    record: that of its row's lag and of the newest update in its column."""

    def __init__(self, title: str, updates: int, steps: int, shades: str = SHADES) -> None:
        """`steps` is T, of `updates` updates in all."""
        self._title, self._updates, self._shades = title, updates, shades
        self._columns = min(COLUMNS, updates)
        self._lags = np.unique(np.linspace(0, steps - 1, min(ROWS, steps)).round().astype(int))
        self._cells = np.full((len(self._lags), self._columns), np.nan)

    def put(self, step: int, norms: Float[np.ndarray, "run update time"]) -> None:
        """The norms of updates that end with update number `step` (so many are done), the last time at lag 0."""
        done = np.arange(step - norms.shape[1], step)
        column = done * self._columns // self._updates
        newest = np.flatnonzero(np.diff(column, append=column[-1] + 1))
        some = norms[:, newest][:, :, norms.shape[2] - 1 - self._lags].astype(float)
        there = np.ma.masked_invalid(some)  # a run that ended has no records any more
        self._cells[:, column[newest]] = np.ma.median(there, axis=0).filled(np.nan).T

    def lines(self) -> list[str]:
        """Title, rows, updates, shades; none before something was put."""
        if np.isnan(self._cells).all():
            return []
        with np.errstate(divide="ignore"):
            logs = np.log10(self._cells)
        there = logs[np.isfinite(logs)]
        highest = there.max() if there.size else 0.0
        lowest = max(there.min(initial=highest - 1), highest - DECADES)
        edges = np.linspace(lowest, highest, len(self._shades) + 1)[1:-1]
        drawn = np.array([*self._shades, " "])[np.where(np.isnan(logs), -1, np.searchsorted(edges, logs, "right"))]
        wide = max(len(f"lag {self._lags[-1]}"), 5)
        named = [f"lag {self._lags[-1]}", *map(str, self._lags[-2:0:-1]), "0"][: len(self._lags)]
        rows = [f"{name:>{wide}} {''.join(row)}" for name, row in zip(named, drawn[::-1], strict=True)]
        left = f"{'update 0':>{max(wide + 2, 8)}}"
        below = f"{left} {self._updates:>{max(0, wide + self._columns - len(left))},}"
        scale = " ".join([self._shades[0], *(f"{10**e:.1g} {s}" for e, s in zip(edges, self._shades[1:], strict=True))])
        return [self._title, *rows, below, f"{' ' * wide} {scale}"]
