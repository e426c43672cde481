"""Losses in bare torch, as one would write them for one energy: the floor of each row."""

import math

import problems as at
import torch


def gradient(energy, x):
    inside = x.detach().requires_grad_()
    return torch.autograd.grad(energy(inside).sum(), inside)[0]


def langevin(energy, x, num_steps):
    for _ in range(num_steps):
        noise = (2 * at.LANGEVIN_STEP) ** 0.5 * torch.randn_like(x)
        x = x - at.LANGEVIN_STEP * gradient(energy, x) + noise
    return x


def energy_discrepancy(energy, x, num_samples, *, with_base=False):
    scale = math.sqrt(at.VARIANCE)
    y = x + scale * torch.randn_like(x)
    rows = torch.cat([x[None], y + scale * torch.randn(num_samples, *x.shape)])
    return _discrepancy(energy, rows, with_base=with_base)


def energy_discrepancy_of_bits(energy, x, num_samples):
    """Every bit is drawn anew with probability 1 - 1/e, twice."""
    share = 1 - math.exp(-1)

    def perturb(x, *shape):
        coins = torch.rand(*shape, *x.shape)
        return torch.where(coins < share / 2, 1 - x, x)

    return _discrepancy(energy, torch.cat([x[None], perturb(perturb(x), num_samples)]))


def _discrepancy(energy, rows, *, with_base=False):
    flat = rows.reshape(-1, rows.shape[-1])
    potential = energy(flat)
    if with_base:
        potential = potential + flat.square().sum(-1) / 2
    potential = potential.reshape(rows.shape[:2])
    losses = torch.logsumexp(potential[0] - potential, 0) - math.log(len(rows) - 1)
    return losses.mean()


def contrastive_divergence(energy, x):
    both = energy(torch.cat([x, langevin(energy, x, 10)]))
    return both[: len(x)].mean() - both[len(x) :].mean()


class PersistentContrastiveDivergence:
    """Chains of a buffer, of which some are taken and put back."""

    def __init__(self, size):
        self.stored = torch.randn(8 * size.batch, size.num_dims)

    def __call__(self, energy, x):
        taken = torch.randperm(len(self.stored))[: len(x)]
        self.stored[taken] = moved = langevin(energy, self.stored[taken], 10)
        both = energy(torch.cat([x, moved]))
        return both[: len(x)].mean() - both[len(x) :].mean()


def _score(energy, x):
    return -torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]


def sliced_score_matching(energy, x):
    x = x.clone().requires_grad_()
    score, signs = _score(energy, x), 2 * torch.randint_like(x, 2) - 1
    (product,) = torch.autograd.grad((score * signs).sum(), x, create_graph=True)
    return ((product * signs).sum(-1) + score.square().sum(-1) / 2).mean()


def exact_score_matching(energy, x):
    x = x.clone().requires_grad_()
    score = _score(energy, x)
    trace = sum(
        torch.autograd.grad(score[:, i].sum(), x, create_graph=True)[0][:, i]
        for i in range(x.shape[1])
    )
    return (trace + score.square().sum(-1) / 2).mean()


def denoising_score_matching(energy, x):
    noise = torch.randn_like(x)
    score = _score(energy, (x + 0.1 * noise).requires_grad_())
    return (score + noise / 0.1).square().sum(-1).mean() / 2


def kale(energy, x):
    energies = energy(torch.cat([x, torch.randn(1000, x.shape[1])]))
    partition = torch.logsumexp(-energies[len(x) :], 0) - math.log(1000)
    return energies[: len(x)].mean() + partition


def noise_contrastive(energy, x):
    energies = energy(torch.cat([x, torch.randn_like(x)]))
    positive, negative = energies.chunk(2)
    return torch.nn.functional.softplus(positive).mean() + (
        torch.nn.functional.softplus(-negative).mean()
    )


LOSSES = {
    **{
        f"energy discrepancy, {m}": lambda energy, x, m=m, **options: energy_discrepancy(
            energy, x, m, **options
        )
        for m in (4, 16, 64)
    },
    "bits": energy_discrepancy_of_bits,
    "CD-10": contrastive_divergence,
    "score matching, exact": exact_score_matching,
    "score matching, sliced": sliced_score_matching,
    "score matching, denoising": denoising_score_matching,
    "KALE": kale,
    "noise-contrastive": noise_contrastive,
}
