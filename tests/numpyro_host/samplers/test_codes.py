import pytest
from helpers.samplers.codes import *  # noqa: F403


def test_counts_in_compiled_code(host):
    base = host.dist.Binomial(3, host.array([0.5, 0.2])).to_event(1)
    model = host.ebm.EnergyBased(lambda x: -x.sum(-1), base)
    with pytest.raises(ValueError, match="compiled code knows the codes of"):
        host.sample(model, (5,))
