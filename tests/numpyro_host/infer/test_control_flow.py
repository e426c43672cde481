"""Energies inside of `scan` and `cond`."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.hosts.numpyro import Bowl, empty_guide, fit, register
from helpers.issues import is_only
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

import pyro_ebm.numpyro as ebm

LOSS = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.5))
X = random.normal(random.key(0), (5,))


def walk(x):
    """A latent chain with an energy on the distance to the last value."""
    energy = register("energy", Bowl())

    def step(last, x):
        z = numpyro.sample("z", ebm.EnergyBased(energy, dist.Normal(last, 1.0)))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        return z, None

    scan(step, 0.0, x)


def emission(depends):
    """A stock chain with energies as emissions, around its values or around zero."""

    def model(x):
        energy = register("energy", Bowl())

        def step(last, x):
            z = numpyro.sample("z", dist.Normal(0.5 * last, 1.0))
            base = dist.Normal(z if depends else 0.0, 1.0)
            numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)
            return z, None

        scan(step, 0.0, x)

    return model


def independent(x):
    energy = register("energy", Bowl())
    prior = ebm.EnergyBased(energy, dist.Normal(0.0, 1.0))
    scan(lambda carry, x: (carry, numpyro.sample("x", prior, obs=x)), 0.0, x)


def branches(of_latent):
    """One energy over one of two bases."""

    def model(x):
        energy = register("energy", Bowl())
        switch = numpyro.sample("switch", dist.Normal(0.0, 1.0)) if of_latent else x[0]

        def branch(scale):
            base = dist.Normal(0.0, scale)
            return lambda x: numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

        cond(switch > 0, branch(1.0), branch(2.0), x[1])

    return model


def chain_guide(x):
    numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.zeros(len(x))), 1.0).to_event(0))


def switch_guide(x):
    numpyro.sample("switch", dist.Normal(numpyro.param("loc", 0.0), 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "site", "words"),
    [
        (walk, chain_guide, "z", "variable 'z', its own earlier values in a scan"),
        (emission(depends=True), chain_guide, "x", "the latent variable 'z'"),
        (branches(of_latent=True), switch_guide, "x", "the latent variable 'switch'"),
    ],
    ids=["own past", "emission", "predicate"],
)
def test_doubly_intractable(model, guide, site, words):
    assert is_only(ebm.check_model(model)(X), site, "doubly_intractable", words)
    with pytest.raises(ValueError, match=f"site '{site}' .*{words}"):
        fit(model, guide, LOSS, X)


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (emission(depends=False), chain_guide),
        (independent, empty_guide),
        (branches(of_latent=False), empty_guide),
    ],
    ids=["emission", "independent", "predicate"],
)
def test_no_false_alarm(model, guide):
    assert ebm.check_model(model, guide)(X) == []
    assert fit(model, guide, LOSS, X).params["energy.weight"] != 0.5


def test_a_branch_has_the_loss_of_its_base():
    for sign, scale in ((1.0, 1.0), (-1.0, 2.0)):
        x = X.at[0].set(sign)

        def plain(x, scale=scale):
            prior = ebm.EnergyBased(register("energy", Bowl()), dist.Normal(0.0, scale))
            numpyro.sample("x", prior, obs=x[1])

        losses = [fit(model, empty_guide, LOSS, x) for model in (branches(of_latent=False), plain)]
        assert losses[0].losses == pytest.approx(losses[1].losses, rel=1e-5)


def test_a_context_inside_of_a_scan_is_refused():
    def model(y):
        def step(_, c):
            prior = ebm.EnergyBased(lambda x, c: c * x**2, dist.Normal(0.0, 1.0), context=c)
            return _, numpyro.sample("x", prior)

        scan(step, None, jnp.ones((3, 2)))

    with pytest.raises(NotImplementedError, match="without `context` inside of `scan`"):
        handlers.trace(handlers.seed(model, 0)).get_trace(None)


def test_the_reported_number_of_a_plate_inside_of_a_scan_leaves_out_log_z():
    x = random.normal(random.key(1), (4, 3))

    def model(x):
        energy = register("energy", Bowl())

        def step(carry, row):
            with numpyro.plate("rows", 3):
                numpyro.sample("x", ebm.EnergyBased(energy, dist.Normal(0.0, 2.0)), obs=row)
            return carry, None

        scan(step, None, x)

    with pytest.warns(UserWarning, match="leaves out the log-normalizer .* that can be drawn from"):
        fit(model, empty_guide, LOSS, x)
