"""Figures of bounds along a run."""

import numpy as np
import pytest
from evidence.experiments.bounds_sandwich import (
    convex_energy,
    energy_parameters,
    generate,
    generator_parameters,
    log_sobolev,
    summarize,
)


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_log_sobolev_constant_of_a_gaussian(scale):
    """U = x^2 and G = scale z: f = z^2 / 2 - scale^2 z^2, the curvature is 2 scale^2."""
    assert log_sobolev(lambda z: (1 - 2 * scale**2) * z, 1) == pytest.approx(2 * scale**2)


def test_log_sobolev_constant_is_the_least_eigenvalue():
    hessian = np.array([[2.0, 0.9], [0.9, 1.0]])
    found = log_sobolev(lambda z: z - z @ hessian, 2)
    assert found == pytest.approx(np.linalg.eigvalsh(hessian)[0])
    assert log_sobolev(lambda z: z - z**3, 1) == pytest.approx(0.0, abs=1e-4)


def test_energies_are_convex_and_generators_increase():
    rng = np.random.default_rng(0)

    def scattered(parameters):
        return {name: x + rng.standard_normal(x.shape) for name, x in parameters.items()}

    energy, generator = scattered(energy_parameters(2)), scattered(generator_parameters(2))
    x, y = rng.standard_normal((2, 1000, 2))
    between = convex_energy(energy, 0.5 * (x + y))
    assert (between < 0.5 * (convex_energy(energy, x) + convex_energy(energy, y))).all()
    assert (
        generate(generator, x + np.array([1.0, 0.0]))[:, 0] > generate(generator, x)[:, 0]
    ).all()
    mixed = generate(generator, x)
    unmixed = generate(generator | {"mixing": np.zeros((2, 2))}, x)
    np.testing.assert_allclose(
        mixed[:, 1] - unmixed[:, 1], generator["mixing"][1, 0] * unmixed[:, 0], rtol=1e-9
    )


def test_violations_are_counted():
    fine = {"truth": 0.0, "lower": -0.1, "upper": 0.1, "rho": 1.0, "bracket": 0.0}
    fine |= {"estimate": 0.0, "penalty": 0.0}
    fine |= {"error, lower": 0.01, "error, penalty": 0.01}
    looks = [fine, fine | {"lower": 0.05}, fine | {"upper": -0.09}, fine | {"lower": 0.03}]
    found = summarize(looks)
    assert found["violations"] == 2
    assert found["known"] == 4
    unknown = fine | {"upper": float("nan"), "rho": float("nan")}
    assert summarize([unknown])["known"] == summarize([unknown])["violations"] == 0
