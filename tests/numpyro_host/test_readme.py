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
