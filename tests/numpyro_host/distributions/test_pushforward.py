import equinox as eqx
import flowjax.distributions as flowjax
import jax
import jax.numpy as jnp
import paramax
import pytest
from flowjax.bijections import Chain, LeakyTanh, TriangularAffine
from flowjax.experimental.numpyro import distribution_to_numpyro
from flowjax.flows import coupling_flow
from helpers.distributions.pushforward import *  # noqa: F403
from helpers.distributions.pushforward import check_flow, square
from helpers.hosts.numpyro import normal
from jax import random

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def test_new_parameters_compile_nothing_anew():
    traces = []

    class Stretch(eqx.Module):
        factor: jax.Array

        def __call__(self, z):
            traces.append(1)
            return self.factor * z

    def draw(factor):
        base = ebm.Pushforward(normal((1,)), Stretch(factor), event_shape=(1,))
        return ebm.EnergyBased(square, base).sample(KEY, (3,))

    first = draw(jnp.array(1.0))
    number = len(traces)
    assert not jnp.allclose(first, draw(jnp.array(2.0)))
    assert len(traces) == number


@pytest.fixture(scope="module")
def flow():
    # Quick to compile; the density table trains coupling flows.
    affine = TriangularAffine(jnp.array([0.5, -1.0]), jnp.array([[1.0, 0.0], [0.7, 0.5]]))
    chain = Chain([affine, LeakyTanh(2.0, (2,))])
    return paramax.unwrap(flowjax.Transformed(flowjax.StandardNormal((2,)), chain))


@pytest.mark.parametrize(
    "wrap", [lambda flow: flow, distribution_to_numpyro], ids=["flowjax", "numpyro"]
)
def test_flow_as_a_base(host, flow, wrap):
    options = {"sampler": ebm.MALA(0.3), "num_sampler_steps": 100}
    prior = ebm.EnergyBased(square, wrap(flow), **options)
    check_flow(host, flow, prior, jax.vmap(flow.merge_transforms().bijection.transform))


def test_parameters_of_a_flow(flow):
    arrays, rest = eqx.partition(flow, eqx.is_inexact_array)

    def log_prob(arrays, value, in_latent):
        prior = ebm.EnergyBased(square, eqx.combine(arrays, rest))
        return (prior.latent if in_latent else prior).log_prob(value).sum()

    value = random.normal(KEY, (3, 2))
    for in_latent in (False, True):
        with pytest.warns(UserWarning, match="Nothing trains the parameters"):
            gradients = jax.grad(log_prob, argnums=(0, 1))(arrays, value, in_latent)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients[0]))
        assert jnp.abs(gradients[1]).sum() > 0


@pytest.mark.parametrize("condition", [None, jnp.zeros(1), jnp.zeros((3, 1))])
def test_conditional_flow(condition):
    flow = coupling_flow(KEY, base_dist=flowjax.Normal(jnp.zeros(2)), cond_dim=1, nn_width=4)
    base = flow if condition is None else distribution_to_numpyro(flow, condition)
    with pytest.raises(ValueError, match="Expected an unconditional flow"):
        ebm.EnergyBased(square, base)
