"""Train one locally connected layer on a genome of 500,000 positions (under a minute).

    python examples/snp.py [--figure FILE]

Genotypes are one-hot over 4 channels. Windows are 8 positions long and do not overlap, as in EIR's
genomics models. The layer is a view and one batched product, so windows are not copied. The trait
is simulated from 6 positions, and the trained weights show which. 320 people are enough to find
these positions, but not to predict the trait of others.
"""

import argparse
import time

import numpy as np
import torch
from lcmulti_torch import LocallyConnected1d
from torch import nn

POSITIONS, WINDOW, PEOPLE, CAUSES, BATCH = 500_000, 8, 320, 6, 32


def cohort(rng):
    """Genotypes 0, 1, 2 (3 is missing) as ``(N, positions)``, a trait, and what causes it."""
    frequency = rng.uniform(0.1, 0.5, POSITIONS).astype("float32")
    genotypes = np.empty((PEOPLE, POSITIONS), "uint8")
    # One at a time, because the random numbers of all would take a gigabyte.
    for person in genotypes:
        person[:] = (rng.random((2, POSITIONS), "float32") < frequency).sum(0)
        person[rng.integers(0, POSITIONS, POSITIONS // 200)] = 3
    causes = np.sort(rng.choice(POSITIONS, CAUSES, replace=False))
    effects = rng.choice([-1.0, 1.0], CAUSES)
    dosage = np.where(genotypes[:, causes] == 3, 1, genotypes[:, causes]).astype(float)
    trait = (dosage - dosage.mean(0)) @ effects
    return genotypes, (trait / trait.std()).astype("float32"), causes


def one_hot(genotypes, mean):
    """``(N, 4, positions)`` less the mean, channels first."""
    x = np.empty((len(genotypes), 4, POSITIONS), "float32")
    for allele in range(4):
        np.subtract(genotypes == allele, mean[allele], out=x[:, allele])
    return torch.from_numpy(x)


class Genome(nn.Module):
    """One locally connected layer, and a sum over all its outputs."""

    def __init__(self):
        super().__init__()
        self.local = LocallyConnected1d(4, 1, WINDOW, POSITIONS, stride=WINDOW, bias=False)
        nn.init.zeros_(self.local.weight)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.local(x).sum((1, 2)) + self.bias


def draw(strength, causes, losses, path):
    """Draw the weights along the genome, and the loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    where = np.arange(len(strength)) * WINDOW
    left.plot(where, strength, ".", markersize=2, alpha=0.4, rasterized=True, color="grey")
    left.plot(
        causes, strength[causes // WINDOW], "v", color="#c44e52", label="what causes the trait"
    )
    left.set(xlabel="position", ylabel="size of a window's weights")
    left.legend(loc="upper right")
    right.plot(losses)
    right.set(xlabel="step", ylabel="mean squared error", ylim=(0, None))
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="FILE")
    path = parser.parse_args().figure
    torch.manual_seed(0)
    genotypes, trait, causes = cohort(np.random.default_rng(0))
    model = Genome()
    print(f"{sum(p.numel() for p in model.parameters()):,} weights")
    mean = np.stack([(genotypes == allele).mean(0, dtype="float32") for allele in range(4)])
    optimizer = torch.optim.SGD(model.parameters(), 2e-5)
    losses = []
    start = time.perf_counter()
    for _ in range(2):
        for some in np.random.default_rng(1).permutation(PEOPLE).reshape(-1, BATCH):
            optimizer.zero_grad()
            error = model(one_hot(genotypes[some], mean)) - torch.from_numpy(trait[some])
            loss = error.square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    seconds = (time.perf_counter() - start) / len(losses)
    strength = model.local.weight.detach().square().sum((1, 2, 3)).sqrt().numpy()
    places = np.sort((strength[:, None] > strength[causes // WINDOW]).sum(0) + 1)
    print(f"{seconds:.2f} s a step of {BATCH} people; loss {losses[0]:.2f} to {losses[-1]:.2f}")
    print(f"places of the {CAUSES} causes among {len(strength):,} windows, largest weights first:")
    print(", ".join(f"{place:,}" for place in places))
    if path:
        draw(strength, causes, losses, path)
    return np.median(places) / len(strength)


if __name__ == "__main__":
    assert main() < 0.05
