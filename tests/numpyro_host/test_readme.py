import equinox as eqx
import jax
import jax.numpy as jnp
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


def test_the_example_runs():
    names = {
        "decoder": linear(16, 64),
        "encoder": linear(64, 32, lambda x: (x[:, :16], jnp.exp(x[:, 16:]))),
        "energy": linear(16, 1, first),
        "x": random.uniform(random.key(0), (10, 64)),
        "key": random.key(0),
    }
    code = readme.code("import pyro_ebm.numpyro as ebm")
    assert "6_000" in code
    exec(code.replace("6_000", "2"), names)
    trained = names["result"].params["energy$params"].linear.weight
    assert not jnp.allclose(trained, names["energy"].linear.weight)
    after = readme.code("the trained parameters go in as `params`")
    calls = [line.split("#")[0] for line in after.splitlines() if line.startswith("ebm.")]
    exec(after.split("ebm.log_normalizer")[0], names)
    z = jnp.ones((2, 16))
    trained_energy = names["result"].params["energy$params"]
    assert jnp.array_equal(names["energy_prior"].energy(z), trained_energy(z))
    log_z = eval(calls[0], names)
    assert log_z.lower < log_z.estimate < log_z.upper
    idata = eval(calls[1].replace("num_warmup", "num_samples=5, num_warmup"), names)
    assert idata["posterior"]["x"].shape == (4, 5, 16)
    with pytest.warns(UserWarning, match="effective"):  # after two steps of training
        assert eval(calls[2], names).estimate.shape == (10,)
    assert eval(calls[3], names) == []


def first(x):
    return x[:, 0]


def observed_model(x):
    energy = eqx_module("energy", linear(2, 1, first))
    with numpyro.plate("data", len(x)):
        base = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
        numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)


@pytest.mark.parametrize(
    ("containing", "num_latents", "learners"),
    [
        ("PersistentChains(num_chains=128", 2, {"critic"}),
        ("base = ebm.Pushforward(latent, generator)", 1, {"generator"}),
        ("ebm.BidirectionalBounds()", 2, {"generator"}),
    ],
)
def test_other_objectives_train_their_learners(containing, num_latents, learners):
    names = {"ebm": ebm, "dist": dist, "numpyro": numpyro, "jnp": jnp, "eqx_module": eqx_module}
    names |= {"SVI": SVI, "optax": optax, "model": observed_model, "guide": lambda x: None}
    energies = {name: linear(2, 1, first) for name in ("energy_net", "critic_net")}
    names |= energies | {"net": linear(num_latents, 2)}
    exec(readme.numpyro_code(containing), names)
    svi = SVI(names["model"], names["guide"], optax.adam(1e-3), names["loss"])
    result = svi.run(random.key(0), 2, random.normal(random.key(0), (10, 2)), progress_bar=False)
    assert jnp.isfinite(result.losses).all()
    assert {name.split("$")[0] for name in result.params} == {"energy", *learners}


class Conditional(eqx.Module):
    net: eqx.Module

    def __call__(self, x, c):
        return self.net(jnp.concatenate([x, c], -1))


def test_a_conditional_energy_is_trained():
    names = {"ebm": ebm, "dist": dist, "numpyro": numpyro, "jnp": jnp, "eqx_module": eqx_module}
    names |= {"energy_net": Conditional(linear(3, 1, first))}
    exec(readme.numpyro_code("context=c"), names)
    c, y = random.normal(random.key(0), (10, 2)), random.normal(random.key(1), (10, 1))
    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(num_samples=10))
    svi = SVI(names["model"], lambda c, y: None, optax.adam(1e-3), loss)
    result = svi.run(random.key(0), 2, c, y, progress_bar=False)
    assert jnp.isfinite(result.losses).all()
    prior = ebm.site_distribution(names["model"], "y", params=result.params)(c, y)
    assert prior.batch_shape == (10,)


def test_a_table_is_trained():
    codes = [random.randint(random.key(k), (50,), 0, size) for k, size in ((0, 5), (1, 12))]
    table = jnp.stack([random.normal(random.key(2), (50,)), *codes], -1)
    names = {"ebm": ebm, "numpyro": numpyro, "eqx_module": eqx_module, "table": table}
    names |= {"energy_net": linear(3, 1, first)}
    exec(readme.numpyro_code("ColumnMarginals.fit"), names)
    svi = SVI(names["model"], lambda x: None, optax.adam(1e-3), names["loss"])
    result = svi.run(random.key(0), 2, table, progress_bar=False)
    assert jnp.isfinite(result.losses).all()
