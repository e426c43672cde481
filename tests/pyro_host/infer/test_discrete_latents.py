"""A prior over bits in a latent-variable model, whose guide learns by score functions."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.optim import Adam

import pyro_ebm.pyro as ebm

MIXING = torch.tensor([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 2.0, 1.0]])


def data(number=400):
    z = (torch.rand(number, 3) < torch.tensor([0.2, 0.5, 0.9])).float()
    return z.mean(0), z @ MIXING + 0.4 * torch.randn(number, 4)


def model(x):
    weights = pyro.param("weights", torch.zeros(3))
    base = dist.Bernoulli(torch.full((3,), 0.5)).to_event(1)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", ebm.EnergyBased(lambda z: -(z * weights).sum(-1), base))
        pyro.sample("x", dist.Normal(z @ MIXING, 0.4).to_event(1), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(4.0))
    logits = slope * (x @ torch.linalg.pinv(MIXING) - 0.5)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))


def test_prior_and_guide_learn():
    share, x = data()
    objective = ebm.EnergyDiscrepancy(perturbation=ebm.Uniform(1.0))
    svi = SVI(model, guide, Adam({"lr": 0.03}), ebm.EnergyELBO(objective, TraceGraph_ELBO()))
    for _ in range(300):
        svi.step(x)
    assert pyro.param("weights").sigmoid().tolist() == pytest.approx(share.tolist(), abs=0.06)
    assert pyro.param("slope") > 5.0  # The posterior is sharp.


CENTERS = torch.tensor([-2.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("elbo", "infer"),
    [
        (TraceEnum_ELBO(max_plate_nesting=1), {"enumerate": "parallel"}),
        (TraceGraph_ELBO(), {}),
        (TraceEnum_ELBO(max_plate_nesting=1), None),
    ],
    ids=["enumeration", "score function", "enumeration in the model"],
)
def test_a_prior_over_one_code(elbo, infer):
    share = torch.tensor([0.6, 0.3, 0.1])
    code = torch.arange(3).repeat_interleave((400 * share).long())
    x = CENTERS[code] + 0.5 * torch.randn(400)

    def model(x):
        weights = pyro.param("weights", torch.zeros(3))
        prior = ebm.EnergyBased(lambda k: -weights[k], dist.Categorical(torch.ones(3) / 3))
        with pyro.plate("data", len(x)):
            of_model = {"enumerate": "parallel"} if infer is None else {}
            k = pyro.sample("k", prior, infer=of_model)
            pyro.sample("x", dist.Normal(CENTERS[k], 0.5), obs=x)

    def guide(x):
        if infer is None:
            return
        slope = pyro.param("slope", torch.tensor(1.0))
        logits = -slope * (x[:, None] - CENTERS) ** 2
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits), infer=infer)

    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(perturbation=ebm.Uniform(1.0)), elbo)
    svi, late = SVI(model, guide, Adam({"lr": 0.05}), loss), []
    for _ in range(200):
        svi.step(x)
        late.append(pyro.param("weights").detach().softmax(0))
    assert torch.stack(late[100:]).mean(0).tolist() == pytest.approx(share.tolist(), abs=0.06)
    assert infer is None or pyro.param("slope") > 1.5


LEVELS = torch.tensor([0.0, 1.0, 2.0])


def one_code(x):
    """Energies 0, 1, 2 of three codes."""
    prior = ebm.EnergyBased(lambda k: LEVELS[k], dist.Categorical(torch.ones(3) / 3))
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", prior, infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc + CENTERS[k], 0.5), obs=x)


def log_joint(x, loc):
    return (-LEVELS).log_softmax(0) + dist.Normal(loc + CENTERS, 0.5).log_prob(x[:, None])


def test_sums_in_the_model():
    x, loc = torch.tensor([-1.0, 0.3, 1.0]), torch.tensor(0.2)
    model, nothing = pyro.poutine.condition(one_code, {"loc": loc}), lambda x: None
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    log_z = (-LEVELS).exp().mean().log()
    exact = log_joint(x, loc)
    expected = -exact.logsumexp(1).sum() - dist.Normal(0.0, 1.0).log_prob(loc)
    assert elbo.loss(model, nothing, x) + 3 * log_z == pytest.approx(expected.item(), abs=1e-4)


def test_nuts_sums_over_one_code():
    x = torch.tensor([-1.0, 0.3, 1.0])
    mcmc = MCMC(NUTS(one_code), num_samples=1000, warmup_steps=200, disable_progbar=True)
    mcmc.run(x)
    grid = torch.linspace(-4, 4, 801)
    log_posterior = torch.stack([log_joint(x, loc).logsumexp(1).sum() for loc in grid])
    weights = (log_posterior - grid**2 / 2).softmax(0)
    assert mcmc.get_samples()["loc"].mean() == pytest.approx((weights @ grid).item(), abs=0.12)


def test_events_are_not_enumerated():
    prior = ebm.EnergyBased(lambda z: z.sum(-1), dist.Bernoulli(torch.ones(3) / 2).to_event(1))
    with pytest.raises(NotImplementedError, match="base over one code .* TraceGraph_ELBO"):
        prior.enumerate_support()


def test_nuts_refuses():
    mcmc = MCMC(NUTS(model), num_samples=1, warmup_steps=1, disable_progbar=True)
    with pytest.raises(ValueError, match="discrete sample site 'z'"):
        mcmc.run(torch.zeros(2, 4))


# --- a class that shifts the variable of an energy ---

PLACES, X = torch.tensor([-1.0, 2.0]), torch.tensor([0.5, -1.0, 2.0, 0.3, 2.5, -1.2])


def shifted(energy_of=lambda k, x, a: 0.5 * a * x**2, is_global=False):
    a = pyro.param("a", torch.tensor(0.5))
    shares = pyro.param("shares", torch.tensor([0.3, 0.7]), constraint=dist.constraints.simplex)

    def draw():
        return pyro.sample("k", dist.Categorical(shares), infer={"enumerate": "parallel"})

    k = draw() if is_global else None
    with pyro.plate("data", len(X)):
        k = draw() if k is None else k
        noise = ebm.EnergyBased(lambda x: energy_of(k, x, a), dist.Normal(0.0, 1.0))
        shift = dist.transforms.AffineTransform(PLACES[k], 1.0)
        pyro.sample("x", dist.TransformedDistribution(noise, [shift]), obs=X)


def enumerated(objective):
    return ebm.EnergyELBO(objective, TraceEnum_ELBO(max_plate_nesting=1), num_normalizer_samples=20)


@pytest.mark.parametrize("is_global", [False, True])
def test_an_enumerated_shift(is_global):
    """x | k ~ N(c_k, 1 / (1 + a)): responsibilities weigh the gradients of score matching."""
    a, shares = torch.tensor(0.5), torch.tensor([0.3, 0.7], requires_grad=True)
    error = X - PLACES[:, None]
    log_joint = dist.Normal(0.0, (1 + a) ** -0.5).log_prob(error)
    log_joint = log_joint.sum(1, keepdim=True) if is_global else log_joint
    log_joint = log_joint + shares.log()[:, None]
    (-log_joint.logsumexp(0).sum()).backward()

    loss = enumerated(ebm.ScoreMatching())
    losses = [loss.loss_and_grads(lambda: shifted(is_global=is_global), lambda: None)]
    expected = (log_joint.softmax(0) * ((1 + a) * error**2 - 1)).sum()
    torch.testing.assert_close(pyro.param("a").grad, expected)
    raw = pyro.param("shares").unconstrained().grad
    jacobian = torch.diag(shares) - torch.outer(shares, shares)
    torch.testing.assert_close(raw, (jacobian @ shares.grad).detach(), atol=1e-4, rtol=1e-4)
    for _ in range(200):
        losses.append(loss.loss(lambda: shifted(is_global=is_global), lambda: None))
    mean, error = torch.tensor(losses).mean(), torch.tensor(losses).std() / math.sqrt(len(losses))
    assert abs(mean + log_joint.logsumexp(0).sum()) < 4 * error + 0.1  # log Z has 20 draws.


def test_a_class_inside_of_the_energy_is_refused():
    def model():
        shifted(lambda k, x, a: a * (x - PLACES[k]) ** 2)

    with pytest.raises(ValueError, match="latent variable 'k': .* doubly intractable"):
        enumerated(ebm.ScoreMatching()).loss_and_grads(model, lambda: None)


def test_an_objective_that_compares_values():
    with pytest.raises(ValueError, match="one value at a time .* got PseudoSpherical"):
        enumerated(ebm.PseudoSpherical(1.0)).loss_and_grads(shifted, lambda: None)
