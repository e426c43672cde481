"""Energies inside of `scan` and `cond`."""

from contextlib import nullcontext
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers.hosts.numpyro import Bowl, empty_guide, fit, register
from helpers.issues import is_only
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.known import error_of

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


# --- scales inside of a scan or cond, against a loop ---

ROWS = random.normal(random.key(1), (4, 3))
AROUND = {
    "nothing": nullcontext,
    "scale": lambda: handlers.scale(scale=2.0),
    "subsample": lambda: numpyro.plate("all", 6, subsample_size=3),
}


def scaled(form, how):
    def model():
        weight = numpyro.param("weight", 0.5)
        prior = ebm.EnergyBased(lambda x: weight * x**2, dist.Normal(0.0, 1.0))

        def step(carry, x):
            plate = nullcontext() if how == "subsample" else numpyro.plate("data", 3)
            with AROUND[how](), plate:
                return carry, numpyro.sample("x", prior, obs=x)

        with handlers.scope(prefix="outer"), handlers.scale(scale=3.0):
            if form == "scan":
                scan(step, 0.0, ROWS)
            for number, row in enumerate(ROWS if form == "loop" else ()):
                with handlers.scope(prefix=f"step {number}"):
                    step(0.0, row)

    return model


def gradient(model):
    loss = ebm.EnergyELBO(ebm.ScoreMatching())
    arguments = model, lambda: None
    return float(jax.grad(lambda w: loss.loss(random.key(0), {"weight": w}, *arguments))(0.5))


@pytest.mark.parametrize("how", AROUND)
def test_scales_inside_of_a_scan(how):
    found, expected = (gradient(scaled(form, how)) for form in ("scan", "loop"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_scales_inside_of_a_branch():
    def model(is_branch):
        weight = numpyro.param("weight", 0.5)
        prior = ebm.EnergyBased(lambda x: weight * x**2, dist.Normal(0.0, 1.0))

        def branch(x):
            with handlers.scale(scale=2.0):
                numpyro.sample("x", prior, obs=x)

        return cond(True, branch, branch, 1.5) if is_branch else branch(1.5)

    found, expected = (gradient(lambda it=it: model(it)) for it in (True, False))
    assert found == pytest.approx(expected, rel=1e-5)


# --- contexts and plates inside of a scan, against closed forms ---

WEIGHT, SCALE = 0.5, 2.0
DATA = random.normal(random.key(1), (4, 3))
CONTEXT = jnp.linspace(-1.0, 1.0, 4)[:, None] + jnp.arange(3) / 4


def tilted(base, **kwargs):
    """A step with E(x, c) = weight e^c x^2 in a plate, the weight once more an array of it."""

    def model(x):
        weight = numpyro.param("weight", WEIGHT)
        weights = jnp.ones(len(x)) * weight

        def step(carry, at):
            x, c, w = at
            context = {"c": c} if x.ndim else {"c": c[0]}
            energy = ebm.EnergyBased(
                lambda x, c: w * jnp.exp(c["c"]) * x**2,
                base(),
                context=context,
                context_batch_ndims=x.ndim,
                **kwargs,
            )
            with numpyro.plate("rows", 3) if x.ndim else nullcontext():
                return carry, numpyro.sample("x", energy, obs=x)

        scan(step, 0.0, (x, CONTEXT, weights))

    return model


@pytest.mark.parametrize("plate", [True, False], ids=["plate", "steps"])
def test_contexts_and_plates_inside_of_a_scan(plate):
    x, c = (DATA, CONTEXT) if plate else (DATA[:, 0], CONTEXT[:, 0])
    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(num_samples=4000))
    model = tilted(lambda: dist.Normal(0.0, SCALE))
    path = fit(model, empty_guide, loss, x, num_steps=1, optimizer=optax.sgd(1.0))
    precision = 1 / SCALE**2 + 2 * WEIGHT * jnp.exp(c)
    exact = -dist.Normal(0.0, precision**-0.5).log_prob(x).sum()
    assert path.losses[0] == pytest.approx(float(exact), abs=0.01)
    gradient = (jnp.exp(c) * (x**2 - 1 / precision)).sum()
    assert WEIGHT - path.params["weight"] == pytest.approx(float(gradient), abs=0.15)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (lambda: dist.LogNormal(0.0, 1.0), {}),
        (lambda: dist.Uniform(0.0, 9.0), {}),
        (lambda: dist.Normal(0.0, 1.0), {"support": dist.constraints.interval(0.0, 9.0)}),
        (
            lambda: dist.Normal(0.0, 1.0),
            {"log_normalizer": (lambda shift: lambda: shift * jnp.arange(3.0))(jnp.array(0.5))},
        ),
        (lambda: None, {"event_shape": ()}),
        (
            lambda: dist.MixtureSameFamily(
                dist.Categorical(logits=jnp.zeros(2)), dist.Normal(jnp.array([-1.0, 1.0]), 1.0)
            ),
            {},
        ),
    ],
    ids=["transformed", "bounded", "truncated", "normalized", "no base", "mixture"],
)
def test_log_densities_and_draws_are_those_of_the_steps(base, options):
    x = jnp.abs(jnp.stack([DATA, 2 * DATA]))

    @jax.jit
    def evaluate():
        fn = handlers.trace(handlers.seed(tilted(base, **options), 0)).get_trace(x[0])["x"]["fn"]
        context = {"context": CONTEXT, "context_batch_ndims": 2}
        energy = lambda x, c: WEIGHT * jnp.exp(c) * x**2  # noqa: E731
        plain = ebm.EnergyBased(energy, base(), **context, **options)
        assert fn.batch_shape == plain.batch_shape == (4, 3)
        draws = x if fn.base is None else fn.base.sample(random.key(0), (5,))
        return fn.log_prob(x), plain.log_prob(x), fn.support(x), draws

    found, expected, inside, draws = map(np.asarray, evaluate())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert inside.tolist() == [[[True] * 3] * 4] * 2
    assert draws.shape[1:] == (4, 3)
    assert len(np.unique(draws)) == draws.size


@pytest.mark.parametrize("with_support", [False, True])
def test_codes_inside_of_a_scan(with_support):
    """The pseudo-likelihood of one code is its likelihood."""
    codes, base = jnp.array([0, 2, 1]), dist.Categorical(jnp.ones(3) / 3)
    support = base.support if with_support else None

    def model(x):
        weight = numpyro.param("weight", 1.0)
        law = lambda: ebm.EnergyBased(lambda x: weight * x, base, support=support)  # noqa: E731
        scan(lambda carry, x: (carry, numpyro.sample("x", law(), obs=x)), 0, x)

    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(perturbation=ebm.MaskOne(exact=True)))
    path = fit(model, empty_guide, loss, codes, optimizer=optax.sgd(1.0))
    law = np.exp(-np.arange(3.0))
    mean = law @ np.arange(3) / law.sum()
    assert 1 - path.params["weight"] == pytest.approx(3 - 3 * mean, rel=1e-5)
    fn = handlers.trace(handlers.seed(model, 0)).get_trace(codes)["x"]["fn"]
    found = ebm.log_normalizer(random.key(0), fn, method="enumeration").estimate
    np.testing.assert_allclose(found, [np.log(law.mean())] * 3, rtol=1e-5)
    assert set(np.unique(fn.sample(random.key(0), (50,)))) == {0, 1, 2}


def test_errors_of_log_normalizers_inside_of_a_scan():
    flat = ebm.EnergyBased(lambda x: 0 * x, dist.Normal(0.0, 1.0))
    log_z = ebm.log_normalizer(random.key(0), flat, num_samples=10, num_temperatures=2)

    def step(carry, number):
        law = flat.normalized(replace(log_z, standard_error=number))
        return carry, numpyro.sample("x", law, obs=number)

    site = handlers.trace(handlers.seed(scan, 0)).get_trace(step, 0.0, jnp.arange(3.0))["x"]
    assert error_of(site["fn"].log_normalizer).tolist() == [0, 1, 2]


def test_named_parts_inside_of_a_scan():
    weights, pairs = jnp.arange(1.0, 5.0), jnp.stack([DATA, 0.1 * DATA], -1)

    def pair(weight):
        base = ebm.Joint(rate=dist.Exponential(1.0), y=dist.Normal(0.0, 9.0))
        return ebm.EnergyBased(lambda rate, y: weight * rate * y**2, base)

    def step(carry, at):
        with numpyro.plate("rows", 3):
            return carry, numpyro.sample("x", pair(at[0]), obs=at[1])

    site = handlers.trace(handlers.seed(scan, 0)).get_trace(step, 0.0, (weights, pairs))["x"]
    expected = jnp.stack([pair(w).log_prob(x) for w, x in zip(weights, pairs, strict=True)])
    assert jnp.allclose(site["fn"].log_prob(pairs), expected, rtol=1e-5)


def test_a_pushforward_inside_of_a_scan_is_refused():
    base = ebm.Pushforward(dist.Normal(jnp.zeros(1), 1.0).to_event(1), lambda z: z)

    def step(carry, x):
        return carry, numpyro.sample("x", ebm.EnergyBased(Bowl(), base), obs=x)

    with pytest.raises(NotImplementedError, match="other than a Pushforward inside of `scan`"):
        handlers.trace(handlers.seed(scan, 0)).get_trace(step, 0.0, jnp.ones((3, 1)))


@pytest.mark.parametrize("is_moved", [False, True], ids=["energy", "transformed"])
def test_a_scan_trains_as_a_plate_does(is_moved):
    """Score matching has no draws: the same losses, and the same gradients on the way."""
    contexts = CONTEXT[:, 0]

    def law(energy, c):
        prior = ebm.EnergyBased(
            lambda x, c: energy.weight * jnp.exp(c) * x**2,
            dist.Normal(0.0, SCALE),
            context=c,
            context_batch_ndims=c.ndim,
        )
        move = dist.transforms.AffineTransform(1.0, 2.0)
        return dist.TransformedDistribution(prior, move) if is_moved else prior

    def scanned(x):
        energy = register("energy", Bowl())

        def step(carry, at):
            return carry, numpyro.sample("x", law(energy, at[1]), obs=at[0])

        scan(step, 0.0, (x, contexts))

    def plated(x):
        energy = register("energy", Bowl())
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", law(energy, contexts), obs=x)

    loss = ebm.EnergyELBO(ebm.ScoreMatching(), num_normalizer_samples=0)
    runs = [fit(model, empty_guide, loss, DATA[:, 0], num_steps=5) for model in (scanned, plated)]
    np.testing.assert_allclose(runs[0].losses, runs[1].losses, rtol=1e-5)
    weights = [run.params["energy.weight"] for run in runs]
    np.testing.assert_allclose(*weights, rtol=1e-5)
    assert abs(weights[0] - 0.5) > 0.1


def test_posteriors_of_a_plate_inside_of_a_scan():
    """Of z ~ N(0, 1 / 1.7), y ~ N(z, 1) at each step: elements of the plate are apart."""
    y = random.normal(random.key(1), (5, 3))

    def model(**options):
        def step(carry, y):
            with numpyro.plate("rows", **options):
                prior = ebm.EnergyBased(lambda z: 0.35 * z**2, dist.Normal(0.0, 1.0))
                numpyro.sample("y", dist.Normal(numpyro.sample("z", prior), 1.0), obs=y)
            return carry, None

        scan(step, 0.0, y)

    found = ebm.log_marginal(model, method="annealed")(random.key(0), size=3).estimate
    exact = dist.Normal(0.0, (1 + 1 / 1.7) ** 0.5).log_prob(y).sum(0)
    np.testing.assert_allclose(found, exact, atol=0.1)
    guide = handlers.seed(ebm.LangevinGuide(model, ebm.MALA(0.5), num_steps=2), 0)
    assert handlers.trace(guide).get_trace(size=3)["z"]["value"].shape == (5, 3)
    with pytest.raises(ValueError, match="no `subsample_size` of plate 'rows' inside of `scan`"):
        guide(size=6, subsample_size=3)
