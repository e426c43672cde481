import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import readme
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm


class Net(eqx.Module):
    """A linear map of batches, followed by a function."""

    linear: eqx.nn.Linear
    then: staticmethod = eqx.field(static=True)

    def __call__(self, x):
        return self.then(jax.vmap(self.linear)(x))


def linear(num_in, num_out, then=lambda x: x):
    return Net(eqx.nn.Linear(num_in, num_out, key=random.key(0)), then)


def first(x):
    return x[:, 0]


def loc_and_scale(x):
    return x[:, :2], jnp.exp(x[:, 2:])


def test_the_density_is_trained_and_drawn():
    matplotlib.use("agg")
    names = {}
    exec(readme.short("import pyro_ebm.numpyro as ebm"), names)
    trained = names["params"]["energy$params"].layers[0].weight
    assert not jnp.allclose(trained, names["net"].layers[0].weight)
    (axes, _) = names["plt"].gcf().axes
    assert axes.get_xlabel() == "$x_1$"
    names["plt"].close()


def test_the_prior_is_trained_and_examined():
    names = {
        "decoder_net": linear(2, 64),
        "encoder_net": linear(64, 4, loc_and_scale),
        "energy_net": linear(2, 1, first),
        "x": random.uniform(random.key(0), (10, 64)),
        "key": random.key(0),
    }
    names |= {"numpyro": numpyro, "dist": dist, "jnp": jnp, "eqx_module": eqx_module, "ebm": ebm}
    exec(readme.numpyro_code("def guide(x):"), names)
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1))
    svi = SVI(names["model"], names["guide"], optax.adam(1e-3), loss)
    names["params"] = svi.run(random.key(0), 2, names["x"], progress_bar=False).params
    trained = names["params"]["energy$params"].linear.weight
    assert not jnp.allclose(trained, names["energy_net"].linear.weight)
    prior, log_z, chains, log_marginal = readme.after_training("NumPyro")
    exec(prior, names)
    log_z = eval(log_z, names)
    assert log_z.lower < log_z.estimate < log_z.upper
    assert eval(chains, names)["posterior"]["x"].shape == (4, 5, 2)
    with pytest.warns(UserWarning, match="effective"):  # after two steps of training
        assert eval(log_marginal, names).estimate.shape == (10,)
