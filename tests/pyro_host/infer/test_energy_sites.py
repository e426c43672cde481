import pyro
import pytest
from helpers.hosts.pyro import Bowl, latent_model, mean_field_guide, prior
from helpers.infer.elbo import fit, step
from helpers.infer.energy_sites import *  # noqa: F403
from helpers.infer.energy_sites import energy_guide
from pyro.infer import TraceTMC_ELBO


@pytest.mark.parametrize("name", ["Trace", "TraceMeanField x2", "Renyi x2"])
def test_stock_elbos_refuse_energies_in_guides(host, name):
    model = latent_model(host.frozen(Bowl()))
    with pytest.raises(ValueError, match="Expected a guide of normalized distributions"):
        fit(host, model, energy_guide(host), host.STOCK[name]())


def test_tensor_monte_carlo_is_refused(host):
    loss = TraceTMC_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with pytest.raises(ValueError, match="with an ELBO other than TraceTMC_ELBO"):
        fit(host, latent_model(host.frozen(Bowl())), mean_field_guide, loss)


def test_a_name_that_the_store_holds_already_is_found(host):
    def model(x):
        energy = Bowl()
        pyro.module("energy", energy)
        latent_model(None, lambda _: prior(energy))(x)

    step(host, model, mean_field_guide)
    with pytest.warns(UserWarning, match=r"clear_param_store\(\)"):
        step(host, model, mean_field_guide)
