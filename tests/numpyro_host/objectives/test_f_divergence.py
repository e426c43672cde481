import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers.hosts.numpyro import Bowl, observed_model
from helpers.objectives.f_divergence import *  # noqa: F403
from helpers.objectives.f_divergence import PLAYERS, attached_to, prior_of, steps
from jax import random
from jax.tree_util import Partial
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm


def test_learning_rates_by_the_name_of_the_critic():
    def prior(energy):
        return ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 2.0).to_event(1))

    def guide(x):
        slope = numpyro.param("critic", jnp.ones(2))
        ebm.attach("x", critic=Partial(lambda slope, x: x @ slope, slope))

    rates = {"critic": optax.adam(0.0), "energy": optax.adam(0.1)}
    optimizer = optax.multi_transform(
        rates, lambda params: {name: name.split("$")[0] for name in params}
    )
    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.5), num_steps=5)
    svi = SVI(observed_model(Bowl(), prior), guide, optimizer, ebm.EnergyELBO(objective))
    x = random.normal(random.key(0), (20, 2))
    before = jax.jit(svi.init)(random.key(1), x)
    after = svi.get_params(jax.jit(svi.update)(before, x)[0])
    assert (after["critic"] == 1).all()
    assert after["energy$params"].weight != 0.5


@pytest.mark.parametrize("f", ["pearson", steps.le_cam])
def test_objective_made_inside_jit(host, f):
    def mean(theta):
        p = {name: jnp.asarray(value) for name, value in PLAYERS.items()} | {"theta": theta}
        objective, x = ebm.FDivergence(f), jnp.asarray(steps.X)
        loss = objective.loss(random.key(0), prior_of(host)(p), x, **attached_to(host)(p))
        return loss.value.mean()

    expected = steps.values("le_cam" if f is steps.le_cam else f).mean()
    assert jax.jit(mean)(jnp.asarray(steps.THETA)) == pytest.approx(expected)
