import equinox as eqx
import jax
import jax.numpy as jnp
from helpers import readme
from jax import random


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
        "energy": linear(16, 1, lambda x: x[:, 0]),
        "x": random.uniform(random.key(0), (10, 64)),
        "key": random.key(0),
    }
    code = readme.code("import pyro_ebm.numpyro as ebm")
    assert "6_000" in code
    exec(code.replace("6_000", "2"), names)
    trained = names["result"].params["energy$params"].linear.weight
    assert not jnp.allclose(trained, names["energy"].linear.weight)
    after = readme.code("the trained parameters are substituted first")
    calls = [line.split("#")[0] for line in after.splitlines() if line.startswith("ebm.")]
    exec(after.split("ebm.log_normalizer")[0], names)
    z = jnp.ones((2, 16))
    trained_energy = names["result"].params["energy$params"]
    assert jnp.array_equal(names["energy_prior"].energy(z), trained_energy(z))
    log_z = eval(calls[0], names)
    assert log_z.lower < log_z.estimate < log_z.upper
    idata = eval(calls[1].replace("num_warmup", "num_samples=5, num_warmup"), names)
    assert idata["posterior"]["x"].shape == (4, 5, 16)
    assert eval(calls[2], names).estimate.shape == (10,)
    assert eval(calls[3], names) == []
