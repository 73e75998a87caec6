"""An LSTM that PyTorch has trained goes on here, at several rates, and the best of them goes back.

    python experiments/own/from_torch.py OUT [--smoke]

It must say which of 20 numbers, two of which are marked, add up to the target; guessing costs 0.167. The first look of
every run is PyTorch's network.
"""

from pathlib import Path

import torch  # type: ignore
import tyro

import seqdyn as sd


def sample_batch(steps: int, batch: int = 32) -> tuple:
    """Numbers from U[0, 1], two of them marked, one in each half, and their sum: `Spec("adding")` in PyTorch."""
    values, marks = torch.rand(steps, batch), torch.zeros(steps, batch)
    for first, last in ((0, steps // 2), (steps // 2, steps)):
        marks[torch.randint(first, last, (batch,)), torch.arange(batch)] = 1.0
    return torch.stack([values, marks], -1), (values * marks).sum(0)


class Net(torch.nn.Module):
    """Its parts have the names that `sd.io.to_torch` gives; from_torch finds any."""

    def __init__(self, hidden: int):
        super().__init__()
        self.rnn, self.readout = torch.nn.LSTM(2, hidden), torch.nn.Linear(hidden, 1)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        return self.readout(self.rnn(xs)[0][-1])[:, 0]


def main(out: Path, smoke: bool = False) -> None:
    """Trains there, then here, and prints the test losses of both frameworks on the way."""
    steps, hidden, before, updates = (10, 8, 20, 20) if smoke else (20, 32, 500, 1000)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Net(hidden)
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(before):
        xs, ys = sample_batch(steps)
        loss = torch.mean((net(xs) - ys) ** 2)
        adam.zero_grad()
        loss.backward()
        adam.step()

    spec = sd.Spec("adding", steps=steps, cell="lstm", hidden=(hidden,))
    runs = sd.grid(spec, seeds=2, lr=[1e-3, 5e-3])
    sd.run(sd.Experiment("from_torch", runs, updates=updates), out, init=sd.io.from_torch(net, spec))
    ds = sd.load(out)
    best = int(ds.test_loss.isel(probe=-1).values.argmin())
    net.load_state_dict(sd.io.to_torch(sd.trained(out, run=best)))
    with torch.no_grad():
        xs, ys = sample_batch(steps, 1000)
        back = float(torch.mean((net(xs) - ys) ** 2))
    first, last = (float(ds.test_loss[best].isel(probe=i)) for i in (0, -1))
    print(f"test loss {first:.4f} as it came, {last:.4f} after {updates} updates at lr {float(ds.lr[best]):g}", end="")
    print(f", {back:.4f} in PyTorch again")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.PositionalRequiredArgs,))
