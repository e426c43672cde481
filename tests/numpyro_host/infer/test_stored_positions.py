import jax
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.infer.stored_positions import *  # noqa: F403
from helpers.infer.stored_positions import X, stored
from jax import random
from numpyro.infer import Trace_ELBO

import pyro_ebm.numpyro as ebm


def test_several_particles_are_refused(host):
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    loss = ebm.EnergyELBO({}, Trace_ELBO(num_particles=2))
    guide = stored(host, model)
    with pytest.raises(ValueError, match=r"one particle .* got 2: .* \['z\$positions'\]"):
        jax.eval_shape(
            lambda x: loss.loss_with_mutable_state(random.key(0), {}, model, guide, x)["loss"],
            host.array(X),
        )
