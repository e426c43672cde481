import pytest
from helpers.infer.elbo import step
from helpers.infer.energy_sites import *  # noqa: F403


def test_batch_dimensions_are_plates(host):
    wide = host.observed_model(host.Bowl(), lambda energy: host.prior(energy).expand((3, 8)))
    with pytest.raises(ValueError, match=r"got batch shape \(3, 8\) with no plate at -2"):
        step(host, wide, host.empty_guide)


@pytest.mark.parametrize("is_hidden", [False, True])
def test_an_empty_dictionary_shows_that_untrained_parameters_are_meant(host, is_hidden):
    energy = host.Bowl()
    hidden = (lambda z: energy(z)) if is_hidden else energy
    model = host.latent_model(None, lambda _: host.prior(hidden))
    step(host, model, host.mean_field_guide, {})
