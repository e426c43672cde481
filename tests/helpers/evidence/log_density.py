import numpy as np
import pytest
from scipy import stats

PRECISIONS = np.array([1.0, 3.0])
VALUES = np.array([[0.5, -1.0], [2.0, 0.0], [0.1, 0.2]])


def test_log_density_of_held_out_values(host):
    """E(x) = (a - 1) x^2 / 2 on N(0, 1) is N(0, 1 / a); one log Z for each a."""

    def energy(x, a):
        return 0.5 * (a - 1) * x**2

    base, context = host.dist.Normal(0.0, 1.0), host.array(PRECISIONS)
    prior = host.ebm.EnergyBased(energy, base, context=context)
    log_z = host.log_normalizer(prior, method="importance", num_samples=4000)
    found = host.ebm.log_density(prior, host.array(VALUES), log_z)
    error = np.broadcast_to(log_z.standard_error, (3, 2))
    np.testing.assert_allclose(found.standard_error, error)
    expected = stats.norm(0, PRECISIONS**-0.5).logpdf(VALUES)
    assert (abs(np.asarray(found.estimate) - expected) < 4 * error + 1e-5).all()
    assert str(found).startswith(f"log p(x) = {found.estimate.mean():.3f} ± {error.mean():.3f}, ")
    assert "mean of 6 data points" in str(found)


def test_a_number_has_no_error(host):
    prior = host.ebm.EnergyBased(lambda x: 0 * x, host.dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=r"result of log_normalizer\(distribution\), got float"):
        host.ebm.log_density(prior, host.array(0.0), 0.0)
