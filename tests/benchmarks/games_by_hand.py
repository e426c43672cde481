"""Losses of two networks in bare torch: an energy with a critic, or with a generator."""

from functools import cache

import torch
from losses_by_hand import langevin
from torch.distributions import Independent, Normal


@cache
def normal(num_dims):
    """A base as a distribution, for both sides alike."""
    return Independent(Normal(torch.zeros(num_dims), 1.0, validate_args=False), 1)


def f_ebm(energy, critic, x, *, bound=20.0):
    """KL, on a standard normal base, with draws that start at the data."""
    base = normal(x.shape[1])

    def potential(x):
        return energy(x) - base.log_prob(x)

    both = torch.cat([x, langevin(potential, x, 10)])
    energies, critics = energy(both), critic(both)
    _, negative = (energies + critics).detach().clamp(-bound, bound).chunk(2)
    ratio = negative.exp()
    covariance = len(x) / (len(x) - 1) * (ratio - ratio.mean())
    potentials = (energies - base.log_prob(both)).chunk(2)
    critics = critics.chunk(2)
    of_energy = potentials[0] + (covariance - ratio) * potentials[1]
    return (of_energy - critics[0] + ratio * critics[1]).mean()


def bidirectional_bounds(energy, generator, x):
    """The penalty's gradient goes through the energy alone; the Jacobian is square."""
    z = torch.randn_like(x).requires_grad_()
    value = generator(z)
    rows = [_gradient(value[:, i], z) for i in range(value.shape[1])]
    jacobian = torch.stack(rows, 1)
    log_det = torch.linalg.slogdet(jacobian)[1]
    log_density_slope = torch.autograd.grad(log_det.sum(), z, retain_graph=True)[0] + z
    inside = value.detach().requires_grad_()
    potential = energy(inside)
    gradient = _gradient(potential, inside)
    slope = log_density_slope - (jacobian.detach() * gradient[..., None]).sum(1)
    generated = (gradient.detach() * value).sum(-1) - log_det
    return (energy(x) - potential + slope.square().sum(-1) / 2 + generated).mean()


def _gradient(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


GAMES = {"f-EBM": f_ebm, "bidirectional bounds": bidirectional_bounds}
