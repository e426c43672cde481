import numpy as np
import pytest

# --- energies ---


def relu(xp, x):
    return xp.where(x > 0, x, 0 * x)


def leaky_relu(xp, x):
    return xp.where(x > 0, x, 0.01 * x)


def silu(xp, x):
    return x / (1 + xp.exp(-x))


def softplus(xp, x):
    return xp.log(1 + xp.exp(x))


def elu(xp, x):
    return xp.where(x > 0, x, xp.exp(xp.where(x > 0, 0 * x, x)) - 1)


def net(*activations, factor=1.0):
    """Energy with a layer of 16 units before each activation."""
    rng = np.random.default_rng(3)
    sizes = [2, *(16 for _ in activations), 1]
    weights = [
        rng.normal(size=pair) / pair[0] ** 0.5 for pair in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    shifts = [rng.normal(size=size) for size in sizes[1:]]

    def energy(host, x):
        for layer, activation in enumerate(activations):
            x = activation(
                host.xp, x @ host.array(factor * weights[layer]) + host.array(shifts[layer])
            )
        return (x @ host.array(weights[-1]))[:, 0]

    return energy


JUMPING = {
    "ReLU": net(relu),
    "LeakyReLU": net(leaky_relu),
    "ReLU, SiLU": net(relu, silu),
    "SiLU, ReLU": net(silu, relu),
    "square of ReLU net": lambda host, x: net(relu)(host, x) ** 2,
    "absolute value": lambda host, x: abs(x - 1.5).sum(-1),
    "quadratic and ReLU": lambda host, x: (x**2).sum(-1) + net(relu)(host, x),
}
SMOOTH = {
    "SiLU": net(silu, silu),
    "softplus": net(softplus),
    "ELU": net(elu, elu),
    "large weights": net(silu, silu, factor=3.0),
    "quartic": lambda host, x: (x**4).sum(-1),
    "linear": lambda host, x: x.sum(-1),
    "quadratic": lambda host, x: ((x - 0.3) ** 2).sum(-1),
    "flat": lambda host, x: 0 * x.sum(-1),
}


def law(host, energy, scale=1.0):
    """Energy times a number, in single precision."""
    base = host.dist.Normal(host.array([0.0, 0.0]), 2.0).to_event(1)
    return host.ebm.EnergyBased(host.bind(lambda s, x: s * energy(host, x), scale), base)


def data(host):
    return host.array(np.random.default_rng(0).normal(1.5, 0.5, size=(256, 2)))


def check(host, energy, objective):
    """Check an energy alone, as a first step does."""
    x = data(host)
    objective.check_energy(law(host, energy), x, host.xp.ones_like(x[:, 0]), "x")


def step_with(host, energy, objective):
    """One step of SVI, outside of ``jit``."""
    x = data(host)

    def model(x):
        scale = host.ppl.param("scale", host.array(1.0))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", law(host, energy, scale), obs=x)

    host.first_step(host.ebm.EnergyELBO(objective, num_normalizer_samples=0), model, x)


@pytest.mark.parametrize("name", JUMPING)
def test_energies_whose_slope_jumps_are_refused(host, name):
    with pytest.raises(ValueError, match="site 'x' to have a continuous gradient.*DenoisingScore"):
        check(host, JUMPING[name], host.ebm.ScoreMatching())


@pytest.mark.parametrize("method", ["ScoreMatching", "SlicedScoreMatching"])
def test_a_first_step_refuses_them(host, method):
    with pytest.raises(ValueError, match="continuous gradient"):
        step_with(host, JUMPING["ReLU"], getattr(host.ebm, method)())


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_energies_pass(host, name):
    check(host, SMOOTH[name], host.ebm.ScoreMatching())


def test_denoising_takes_any_energy(host):
    check(host, JUMPING["ReLU"], host.ebm.DenoisingScoreMatching(0.1))
