import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from helpers.objectives.score_matching import *  # noqa: F403
from jax import lax, random

import pyro_ebm.numpyro as ebm

EXACT, KEY = ebm.ScoreMatching(), random.key(1)


class Convolutional(eqx.Module):
    kernel: jax.Array
    weight: jax.Array

    def __call__(self, x):
        hidden = lax.conv_general_dilated(x, self.kernel, (1, 1), "SAME")
        return jax.nn.softplus(hidden).reshape(len(x), -1) @ self.weight


def loss_by_hessians(potential, x):
    """Exact losses from the full Hessian of each value by itself."""

    def loss(row):
        def energy(flat_row):
            return potential(flat_row.reshape((1, *row.shape)))[0]

        gradient = jax.grad(energy)(row.ravel())
        return 0.5 * (gradient**2).sum() - jnp.trace(jax.hessian(energy)(row.ravel()))

    return jax.vmap(loss)(x)


def test_exact_loss_is_that_of_full_hessians():
    x, weight = random.normal(KEY, (3, 1, 2, 3)), random.normal(random.key(2), (24,))
    net = Convolutional(random.normal(random.key(4), (4, 1, 3, 3)), weight)

    def total(loss):
        def of_net(net):
            return loss(ebm.EnergyBased(net, event_shape=(1, 2, 3))).sum()

        return jax.tree.leaves(jax.jit(jax.value_and_grad(of_net))(net))

    found = total(lambda prior: EXACT.loss(KEY, prior, x).value)
    expected = total(lambda prior: loss_by_hessians(prior.potential, x))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10, rtol=1e-10)


def test_support_of_fewer_dimensions_than_its_values():
    prior = ebm.EnergyBased(lambda x: x[:, 0] ** 2, dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])))
    x, bijection = prior.base.sample(KEY, (3,)), dist.biject_to(prior.support)

    def potential(u):
        simplex = bijection(u)
        return prior.potential(simplex) - bijection.log_abs_det_jacobian(u, simplex)

    expected = jax.jit(lambda x: loss_by_hessians(potential, bijection.inv(x)))(x)
    found = jax.jit(lambda x: EXACT.loss(KEY, prior, x).value)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
