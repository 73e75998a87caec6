"""Notes: VAE and GAN, which draw digits row by row. See a digit [8, 8] become 8 numbers and a digit again, the two
terms of the ELBO, and the distance that the critic sees while the generator learns.

    python experiments/notes/18_generators.py

Can another network learn from what they draw? `experiments/synthetic.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import seqdyn as sd
from analysis import style
from experiments import _generative as generative
from experiments._gan import GAN, Players
from experiments._vae import VAE
from seqdyn.data.packaged import digits
from seqdyn.runs.script import script

KIND = generative.Kind(steps=8, features=8, classes=10, trials=16)
"""Eight rows of eight pixels, each a share of 16 dots, of ten classes."""


@dataclass(frozen=True)
class Config:
    """How long."""

    updates: int = 900
    """Of the VAE, and of the GAN's critic, which has three for each of its generator."""
    out: Path = Path("runs/notes/generators")
    """Other settings need another directory."""


def main(c: Config) -> None:
    """Trains both, prints what they learned, draws real and drawn digits."""
    data, sizes = digits(), dict(features=8, classes=10, trials=16)
    vae, gan = VAE(**sizes, latent=8, history=0.0), GAN(**sizes, noise=8)
    updates = 3 * max(1, c.updates // 3)
    drawn = {"real": data["train"]}
    for name, network, optimizer in (("VAE", vae, "adam"), ("GAN", gan, Players(critic=3))):
        runs = sd.grid(KIND.spec(network, optimizer=optimizer), seeds=1, lr=2e-3)
        one = sd.Experiment(name, runs, updates=updates, chunk=updates // 3, probe_every=updates, probes=())
        out = sd.run(one, c.out / name, {k: data[k] for k in ("train", "validation")}, verify=False)
        params, ds = sd.restore(out, 0), sd.load(out).isel(run=0)
        scale = generative.scaling(KIND, data["train"])
        drawn[name] = generative.synthesise(KIND, network, params, scale, data["train"], 40, seed=0)
        if name == "VAE":
            batch = generative.batch_of(KIND, data["validation"].take(slice(1)))
            mean, _ = vae.encode(params, batch)
            print("VAE: a digit", list(batch.xs[:, 0].shape), "→ μ of z", list(mean[0].shape), "→ a digit", [8, 8])
            for when, at in (("first", 0), ("last", -1)):
                log_density, kl = float(ds["log_density"][at]), float(ds["kl"][at])
                print(
                    f"  {when} update: log p(x | z) {log_density:.0f} − KL {kl:.1f} = ELBO {log_density - kl:.0f} nats"
                )
        else:
            print("GAN: noise [8, 8] → a digit [8, 8]")
            thirds = np.array_split(ds["distance"].values, 3)
            print("  the critic's distance E D(x) − E D(x̃), by thirds:", *(f"{third.mean():.2f}" for third in thirds))

    with style.look():
        fig, axes = style.panels(1, 3, 0.64)
        for ax, (name, of) in zip(axes[0], drawn.items(), strict=True):  # a column a class
            apart = np.pad(of.xs, ((0, 0), (1, 1), (1, 1)))
            columns = [np.concatenate(apart[of.ys == y][:4], axis=0) for y in range(10)]
            ax.imshow(np.pad(np.concatenate(columns, axis=1), ((0, 0), (4, 4))), cmap="gray_r", vmin=0, vmax=1)
            ax.set_axis_off()
            ax.set_title(name)
        print(style.save(fig, c.out / "figures" / "generators"))


if __name__ == "__main__":
    script(Config, main, __doc__)
