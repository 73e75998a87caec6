"""How far back does the gradient of an LSTM of PyTorch reach while it learns to add? Its own loop, with two lines more.

    python experiments/own/torch_adding.py OUT [--smoke]

It must say which of 20 numbers, two of which are marked, add up to the target; guessing costs 0.167. The records are
those of any run: `seqdyn.load(OUT)`, `python -m analysis.gradient_flow OUT`.
"""

from pathlib import Path

import torch  # type: ignore
import tyro

from seqdyn.watch import torch as watch


def sample_batch(steps: int, batch: int = 32) -> tuple:
    """Numbers from U[0, 1], two of them marked, one in each half, and their sum."""
    values, marks = torch.rand(steps, batch), torch.zeros(steps, batch)
    for first, last in ((0, steps // 2), (steps // 2, steps)):
        marks[torch.randint(first, last, (batch,)), torch.arange(batch)] = 1.0
    return torch.stack([values, marks], -1), (values * marks).sum(0)


def main(out: Path, smoke: bool = False) -> None:
    """Trains, then prints what share of the gradient at the last step arrives at the first."""
    steps, updates, hidden = (10, 20, 8) if smoke else (20, 1000, 64)
    torch.set_num_threads(1)  # its threads wait for each other where others use the cores, too
    torch.set_flush_denormal(True)  # what has vanished would take it many times as long
    torch.manual_seed(0)
    lstm, readout = torch.nn.LSTM(2, hidden), torch.nn.Linear(hidden, 1)
    adam = torch.optim.Adam([*lstm.parameters(), *readout.parameters()], 5e-3)
    look = watch.module(
        lstm, every=updates // 20, path=out, updates=updates, task="adding", optimizer="adam", lr=5e-3, seed=0
    )
    for _ in range(updates):
        xs, ys = sample_batch(steps)
        loss = torch.mean((readout(lstm(xs)[0][-1])[:, 0] - ys) ** 2)
        adam.zero_grad()
        loss.backward()
        look.step(loss)
        adam.step()
    with torch.no_grad():
        xs, ys = sample_batch(steps, 1000)
        test = torch.mean((readout(lstm(xs)[0][-1])[:, 0] - ys) ** 2)
    look.test(test)
    look.close()
    rms = look.seen[0].rms
    print(f"test loss {float(test):.4f}; ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ {float(rms[0] / rms[-1]):.1e} after {updates} updates")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.PositionalRequiredArgs,))
