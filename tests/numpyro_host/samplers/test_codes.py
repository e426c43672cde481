import pytest
from helpers.samplers.codes import *  # noqa: F403


@pytest.mark.parametrize(("name", "bounds"), [("Binomial", (3, 0.5)), ("DiscreteUniform", (1, 3))])
def test_counts_in_compiled_code(host, name, bounds):
    model = host.ebm.EnergyBased(lambda x: -1.0 * x, getattr(host.dist, name)(*bounds))
    with pytest.raises(ValueError, match="compiled code knows the codes of"):
        host.sample(model, (5,))
