"""Proca, Dominé, Shanahan & Mediano 2025, 'Learning dynamics in linear recurrent neural networks' (ICML, PMLR 267).

Claim: y = Σ_t A_t x_t, whose A_t share their singular vectors and have the singular values s_α(t), is learned by
ŷ = W_y h_T, h_t = W_h h_{t−1} + W_x x_t, as if each α were a network of one unit: descent is a few closed equations.
Singular values that are larger, or occur later, are learned faster. Where s_α(t) ∝ λ^{T−t}, the recurrent mode goes to
b = λ: 1 for constant ones, λ for those that fade into the past, 1/λ for those that grow.
Setting: white x [T, D], T = 8, D = 3, 12 units, descent on the whole loss L = ½ Σ_t ‖A_t − W_y W_h^{T−t} W_x‖², from
weights aligned with the task, a = b = c = 0.1, and from small Gaussian ones. Ours to choose: λ = 0.8, all sizes, the
step η. With r_k = s_k − c b^k a at the delay k = T − t the closed equations, derived here, are
  Δa = η Σ_k r_k c b^k,  Δc = η Σ_k r_k a b^k,  Δb = η Σ_k r_k c a k b^{k−1}.
The network's b is its strength along a mode at delay 1 over that at delay 0.
Cost: 80 runs × 2,000 updates, a minute of processor time; `--paper` takes ten.
Expect: the claims. Aligned, run and closed equations stay within 3·10⁻⁶ of each other. From Gaussian weights modes are
learned in their order; b ends at λ, as it must where the task is fitted.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import linear_dynamics as analysis
from analysis import style
from analysis.claims import Claim, minus, of
from analysis.measured import show
from experiments import _measured
from experiments.reproduce import _cases
from seqdyn import backend, watch
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.runs.script import Seeds, launch_all, script, with_preset
from seqdyn.types import whole

SOURCE = "Proca et al. 2025"
RATE = 0.8
"""λ"""
STEPS = 8
"""T"""
TASKS = {
    "rates": {"constant, λ = 1": (1.0, 1.5), "late, λ = 0.8": (RATE, 1.5), "early, λ = 1.25": (1 / RATE, 1.5)},
    "sizes": {"‖s‖ = 1": (1.0, 1.0), "‖s‖ = 1.5": (1.0, 1.5), "‖s‖ = 2": (1.0, 2.0)},
}
"""Task -> mode -> (λ, ‖s‖ over the steps)."""
HALF = 0.5
"""A mode counts as learned when its strengths, along s, have come so far."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Seeds of two tasks from two beginnings."""

    seeds: Seeds = 20
    updates: int = 2000
    chunk: int = 50
    probe_every: int = 50
    tile: int = 10
    hidden: int = 12
    lr: float = 0.01


def values(task: str) -> np.ndarray:
    """s_α(t) at the delays T − t = 0 … T − 1: [modes, T]."""
    rates, sizes = np.asarray(list(TASKS[task].values())).T
    s = rates[:, None] ** np.arange(STEPS)
    return s * (sizes / np.linalg.norm(s, axis=1))[:, None]


@sd.part
class Impulses:
    """White inputs, exactly: one sequence for each step and input, √(T D) there and 0 elsewhere; always all of them."""

    of: str

    def build(self) -> Any:
        s = jnp.asarray(values(self.of), jnp.float32)
        modes, steps = s.shape
        xs = jnp.eye(steps * modes).reshape(steps * modes, steps, modes) * (steps * modes) ** 0.5
        ys = jnp.einsum("bti,it->bi", xs, s[:, ::-1])
        return sd.task(lambda key, batch: (jnp.swapaxes(xs, 0, 1), ys))


@sd.part
class Linear:
    """ŷ = W_y h_T, h_t = W_h h_{t−1} + W_x x_t."""

    hidden: int
    aligned: bool
    modes: int = 3
    small: float = 0.1
    """a, b and c of what is aligned; as large, in norm, are the columns of Gaussian weights."""

    def init(self, key: Any) -> Any:
        k_x, k_h, k_y = jax.random.split(key, 3)
        if self.aligned:
            basis = jax.random.orthogonal(k_x, self.hidden)
            read = self.small * basis[:, : self.modes]
            return {"x": read, "h": self.small * jnp.eye(self.hidden), "y": read.T}
        shapes = {"x": (self.hidden, self.modes), "h": (self.hidden,) * 2, "y": (self.modes, self.hidden)}
        keys = dict(zip(shapes, (k_x, k_h, k_y), strict=True))
        return {n: self.small * jax.random.normal(keys[n], shape) / self.hidden**0.5 for n, shape in shapes.items()}

    def loss(self, params: Any, batch: Any, key: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = h @ params["h"].T + x @ params["x"].T
            return h, h

        last, _ = watch.scan(step, jnp.zeros((batch.xs.shape[1], self.hidden)), batch.xs, name="h")
        return batch.mean(0.5 * jnp.sum((last @ params["y"].T - batch.ys) ** 2, axis=-1))


@sd.part
class Strengths:
    """The diagonal of W_y W_h^k W_x at every delay k: what each mode of the task has been learned to be."""

    modes: tuple[str, ...]

    @property
    def variables(self) -> dict[str, sd.Variable]:
        axes = {"direction": self.modes, "delay": tuple(range(STEPS))}
        return {"mode_strength": sd.Variable(("direction", "delay"), "singular values of the network's map", axes=axes)}

    def measure(self, look: sd.Look) -> dict[str, Any]:
        p: Any = look.params

        def step(w: Any, _: Any) -> Any:
            return p["h"] @ w, jnp.diagonal(p["y"] @ w)

        return {"mode_strength": jax.lax.scan(step, p["x"], None, length=STEPS)[1].T}


def closed(s: np.ndarray, small: float, lr: float, updates: int, every: int) -> np.ndarray:
    """c b^k a along descent on ½ Σ_k (s_k − c b^k a)², of modes s [*m, T]: [looks, *m, T], first before training."""
    k = np.arange(s.shape[-1])
    a, b, c = (np.full((*s.shape[:-1], 1), small) for _ in range(3))
    found = []
    for update in range(updates + 1):
        powers = b**k
        if update % every == 0:
            found.append(c * powers * a)
        r = s - c * powers * a
        steps = (np.sum(r * powers, -1, keepdims=True) * c, np.sum(r * powers, -1, keepdims=True) * a)
        slope = np.sum(r * k * b ** np.maximum(k - 1, 0), -1, keepdims=True) * a * c
        a, c, b = a + lr * steps[0], c + lr * steps[1], b + lr * slope
    return np.stack(found)


def experiment(c: Config, task: str, aligned: bool) -> Experiment:
    """Seeds of one task and beginning."""
    network = Linear(hidden=c.hidden, aligned=aligned)
    batch = STEPS * len(TASKS[task])
    spec = Spec(task=Impulses(of=task), steps=STEPS, batch=batch, holdout=batch, network=network, optimizer="sgd")
    probes = (Strengths(modes=tuple(TASKS[task])),)
    return _cases.case(c, f"linear_{task}", spec, grid(seeds=c.seeds, lr=c.lr), probes=probes, diagnostic=batch)


def found_in(c: Config, task: str, begun: str, ds: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(a row a seed and mode; the curves c a of every mode: quartiles over seeds, and the closed equations')"""
    s = values(task)
    strength = ds["mode_strength"].values.astype(float)  # [run, look, mode, delay]
    looks = ds["probe_step"].values
    theory = closed(s, Linear.small, c.lr, int(looks[-1]), c.probe_every)[: len(looks)]
    share = np.sum(strength * s, -1) / np.sum(s**2, -1)  # [run, look, mode]
    with np.errstate(divide="ignore", invalid="ignore"):
        b = strength[..., 1] / strength[..., 0]
    b_closed = theory[..., 1] / theory[..., 0]
    off = np.max(np.abs(strength - theory) / s.max(-1)[:, None], axis=(1, 3))  # [run, mode]
    rows, curves = [], []
    for m, mode in enumerate(TASKS[task]):
        for run, seed in enumerate(ds["seed"].values):
            done = share[run, :, m] >= HALF
            rows.append(
                {
                    "seed": int(seed),
                    "task": task,
                    "begun": begun,
                    "mode": mode,
                    "off": float(off[run, m]),
                    "b": float(b[run, -1, m]),
                    "learned_at": float(looks[done.argmax()]) if done.any() else float("inf"),
                }
            )
        curves.append(
            {
                "task": task,
                "begun": begun,
                "mode": mode,
                "update": looks.tolist(),
                "share": style.quartiles(share[:, :, m]).tolist(),
                "b": style.quartiles(b[:, :, m]).tolist(),
                "share_closed": (np.sum(theory * s, -1) / np.sum(s**2, -1))[:, m].tolist(),
                "b_closed": b_closed[:, m].tolist(),
                "rate": TASKS[task][mode][0],
            }
        )
    return rows, curves


def stated() -> list[Claim]:
    """The paper's statements."""
    constant, late, early = TASKS["rates"]
    small, _, large = TASKS["sizes"]

    def end(mode: str, rate: float) -> Any:
        return lambda runs: of("b", task="rates", begun="gaussian", mode=mode)(runs) - rate

    def at(task: str, mode: str) -> Any:
        return of("learned_at", task=task, begun="gaussian", mode=mode)

    return [
        Claim(
            "aligned: largest distance of run and closed equations, over s",
            "median",
            of("off", begun="aligned"),
            0.01,
            "below",
            SOURCE,
            paper="exact",
        ),
        *(
            Claim(f"{mode}: b − λ at the end", "median", end(mode, TASKS["rates"][mode][0]), 0.05, "within", paper="0")
            for mode in (constant, late, early)
        ),
        Claim(
            "later is faster: updates of the early mode less those of the late one",
            "difference",
            minus(at("rates", early), at("rates", late)),
            0,
            source=SOURCE,
            paper="> 0",
        ),
        Claim(
            "larger is faster: updates of ‖s‖ = 1 less those of ‖s‖ = 2",
            "difference",
            minus(at("sizes", small), at("sizes", large)),
            0,
            source=SOURCE,
            paper="> 0",
        ),
    ]


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the paper against it."""
    config = with_preset(config, smoke=_cases.TINY | dict(hidden=4), paper=dict(seeds=100))
    whole("hidden", config.hidden, max(map(len, TASKS.values())))  # a unit a mode
    backend.start()
    wanted = {f"{t}/{b}": experiment(config, t, b == "aligned") for t in TASKS for b in ("aligned", "gaussian")}
    done = launch_all(wanted, config)
    rows, curves = [], []
    for name, out in done.items():
        task, begun = name.split("/")
        more, drawn = found_in(config, task, begun, load(out))
        rows, curves = rows + more, curves + drawn
    kept = next(iter(done.values())).parents[1] / "linear_dynamics.json"
    _measured.keep(kept, {"rows": rows, "curves": curves})
    show(kept, stated(), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
