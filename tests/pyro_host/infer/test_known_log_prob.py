"""Energies that an objective has evaluated at observed values are not evaluated again."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import MLP, empty_guide, normal
from pyro.infer import SVI, Trace_ELBO

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.distributions.bound_energy import KnownLogProb

pytestmark = pytest.mark.usefixtures("float64")

X = torch.linspace(-1, 1, 14, dtype=torch.float64).reshape(7, 2)
SHORT = {"sampler": ebm.Langevin(0.1), "num_steps": 2}


def bounds_guide(x):
    ebm.attach("x", generator=ebm.Pushforward(normal(), lambda z: 2 * z))


def critic_guide(x):
    ebm.attach("x", critic=lambda x: x.sum(-1))


# Objective, guide, and calls of the energy in a step, without those for the log-density.
CASES = {
    "energy discrepancy": (ebm.EnergyDiscrepancy(variance=0.5, num_samples=3), empty_guide, 1),
    "in chunks": (
        ebm.EnergyDiscrepancy(variance=0.5, num_samples=3, chunk_size=2),
        empty_guide,
        5,
    ),
    "maximum likelihood": (ebm.MaximumLikelihood(num_samples=4), empty_guide, 1),
    "pseudo-spherical": (ebm.PseudoSpherical(0.5, **SHORT), empty_guide, 3),
    "contrastive divergence": (ebm.ContrastiveDivergence(**SHORT), empty_guide, 3),
    "KALE": (ebm.KALE(num_samples=5), empty_guide, 1),
    "KALE with penalty": (ebm.KALE(num_samples=5, gradient_penalty=0.1), empty_guide, 2),
    "f-divergence": (ebm.FDivergence("kl", num_samples=4, **SHORT), critic_guide, 3),
    "noise contrast": (ebm.NoiseContrastive(num_samples=5), empty_guide, 1),
    "score matching": (ebm.ScoreMatching(), empty_guide, 1),
    "sliced score matching": (ebm.SlicedScoreMatching(2), empty_guide, 1),
    "bounds": (ebm.BidirectionalBounds(), bounds_guide, 2),
}


def losses(objective, guide, monkeypatch, *, reuses, disturb=None, wrap=lambda fn: fn):
    """Losses of three steps on a distribution that outlives them, and calls of the energy."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    energy, calls, x = MLP(), [], X.clone()
    prior = ebm.EnergyBased(lambda x: calls.append(None) or energy(x), normal())

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", wrap(prior), obs=x)
        if disturb is not None:
            disturb(x)

    elbo = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi, found = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), elbo), []
    with monkeypatch.context() as patch:
        if not reuses:
            patch.setattr(KnownLogProb, "of", lambda *_: None)
        for _ in range(3):
            calls.clear()
            found.append(svi.step(x))
    return found, len(calls)


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_same_with_fewer_calls(name, monkeypatch):
    objective, guide, num_calls = CASES[name]
    found, calls = losses(objective, guide, monkeypatch, reuses=True)
    expected, more_calls = losses(objective, guide, monkeypatch, reuses=False)
    assert found == pytest.approx(expected, rel=1e-12)
    assert calls == num_calls < more_calls


def test_values_that_change_in_place_are_evaluated_again(monkeypatch):
    options = {"disturb": lambda x: x.add_(0.5)}
    cases = CASES["energy discrepancy"][:2]
    found, calls = losses(*cases, monkeypatch, reuses=True, **options)
    expected, as_many = losses(*cases, monkeypatch, reuses=False, **options)
    assert found == pytest.approx(expected, rel=1e-12)
    assert calls == as_many


def test_wrapped_distributions_are_evaluated_again(monkeypatch):
    def wrap(fn):
        return dist.MaskedDistribution(fn, torch.arange(7) > 2)

    cases = CASES["energy discrepancy"][:2]
    found, calls = losses(*cases, monkeypatch, reuses=True, wrap=wrap)
    expected, as_many = losses(*cases, monkeypatch, reuses=False, wrap=wrap)
    assert found == pytest.approx(expected, rel=1e-12)
    assert calls == as_many


def test_constrained_values(monkeypatch):
    """Potentials of unconstrained positions are not those of values."""
    found = []
    for reuses in (True, False):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        rate = torch.nn.Linear(1, 1)
        energy = torch.nn.Sequential(torch.nn.Unflatten(0, (-1, 1)), rate, torch.nn.Flatten(0))

        def model(energy=energy):
            pyro.module("energy", energy)
            with pyro.plate("data", 7):
                fn = ebm.EnergyBased(energy, dist.Gamma(torch.tensor(2.0), 1.0))
                pyro.sample("x", fn, obs=X[:, 0].exp())

        elbo = ebm.EnergyELBO(CASES["energy discrepancy"][0], num_normalizer_samples=0)
        svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.1}), elbo)
        with monkeypatch.context() as patch:
            if not reuses:
                patch.setattr(KnownLogProb, "of", lambda *_: None)
            found.append([svi.step() for _ in range(3)])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_a_distribution_of_the_users_knows_nothing_after_a_step():
    pyro.clear_param_store()
    energy = MLP()
    prior, x = ebm.EnergyBased(energy, normal()), X[0]

    def model():
        pyro.module("energy", energy)
        pyro.sample("x", prior, obs=x)  # A plate would copy the distribution.

    elbo = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.5), num_normalizer_samples=0)
    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.1}), elbo)
    for _ in range(2):
        svi.step()
    torch.testing.assert_close(prior.log_prob(x), -prior.potential(x).detach())


def test_masked_rows_have_log_densities_of_their_own():
    """An objective sees other values in their place."""
    seen, mask = [], torch.arange(len(X)) % 2 == 0

    class Watching(Trace_ELBO):
        def _get_trace(self, *args, **kwargs):
            traces = super()._get_trace(*args, **kwargs)
            node = traces[0].nodes["x"]
            seen.append(node["fn"].log_prob(node["value"]).detach())
            return traces

    def model():
        with pyro.plate("data", len(X)), pyro.poutine.mask(mask=mask):
            weight = pyro.param("weight", torch.tensor(0.5, dtype=X.dtype))
            law = ebm.EnergyBased(lambda x: weight * x.square().sum(-1), normal())
            pyro.sample("x", law, obs=X)

    loss = ebm.EnergyELBO(ebm.ScoreMatching(), Watching())
    svi = SVI(model, lambda: None, pyro.optim.SGD({"lr": 0.0}), loss)
    for _ in range(3):
        svi.step()
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
