import numpy as np
from helpers.infer.context import *  # noqa: F403
from helpers.infer.context import CONTEXT, Y, run

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.model.sites import with_counted_context

EVEN = np.arange(64) % 2 == 0


def test_a_masked_nan_context_reaches_no_gradient(host, monkeypatch):
    expected = run(host, mask=EVEN)
    monkeypatch.setattr(f"{run.__module__}.CONTEXT", np.where(EVEN, CONTEXT, np.nan))
    monkeypatch.setattr(f"{run.__module__}.Y", np.where(EVEN[:, None], Y, np.nan))
    np.testing.assert_allclose(run(host, mask=EVEN), expected, rtol=1e-5)


def test_contexts_of_several_values_and_of_events(host):
    """A context counts if one of its values does; masks are around plates and events."""
    contexts = {"a": np.array([[1.0, 2.0, np.nan]]), "b": np.array([[[3.0]]])}
    base = host.dist.Normal(0.0, 1.0)
    options = {"context": contexts, "context_batch_ndims": 2}
    energy = ebm.EnergyBased(lambda x, c: x**2 * c["a"] * c["b"][:, 0], base, **options)
    repeated = energy.expand((4, 2, 3)).mask(np.array([False, True])[:, None]).to_event(1)
    masked = repeated.mask(np.array([[False], [True], [False], [True]]))
    with_mask = energy.expand((4, 2, 3)).mask(np.array([False, True, False])).expand((5, 4, 2, 3))
    for fn, row in ((masked, [1.0, 2.0, np.nan]), (with_mask, [2.0, 2.0, 2.0])):
        found = with_counted_context(fn)
        while not isinstance(found, ebm.EnergyBased):
            found = found.base_dist
        np.testing.assert_allclose(found.context["a"], [row])
        np.testing.assert_allclose(found.context["b"], [[[3.0]]])
