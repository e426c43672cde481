"""A short use of the installed package, with one host alone: ``python quick_start.py pyro``.

Then the README's first program for that host is run to the letter.
"""

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path

import pyro_ebm

OTHER = {"pyro": "numpyro", "numpyro": "pyro"}


def with_pyro():
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer import SVI
    from pyro.optim import Adam

    import pyro_ebm.pyro as ebm

    def model(x):
        weight = pyro.param("weight", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(lambda x: weight * x**2, dist.Normal(0.0, 1.0)), obs=x)

    pyro.set_rng_seed(0)
    x = 0.5 * torch.randn(500)
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.25))
    svi = SVI(model, lambda x: None, Adam({"lr": 0.05}), loss)
    for _ in range(200):
        svi.step(x)
    density = ebm.site_distribution(model, "x")(x)
    chains = ebm.run_chains(ebm.MALA(), density, num_warmup=200, num_samples=50, progress_bar=False)
    return pyro.param("weight").item(), ebm.log_normalizer(density, method="grid"), chains


def with_numpyro():
    import numpyro
    import numpyro.distributions as dist
    from jax import random
    from numpyro.infer import SVI
    from numpyro.optim import Adam

    import pyro_ebm.numpyro as ebm

    def model(x):
        weight = numpyro.param("weight", 0.0)
        with numpyro.plate("data", len(x)):
            energy = ebm.EnergyBased(lambda x: weight * x**2, dist.Normal(0.0, 1.0))
            numpyro.sample("x", energy, obs=x)

    key = random.key(0)
    x = 0.5 * random.normal(key, (500,))
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.25))
    svi = SVI(model, lambda x: None, Adam(0.05), loss)
    params = svi.run(key, 200, x, progress_bar=False).params
    density = ebm.site_distribution(model, "x", params=params)(x)
    options = {"num_warmup": 200, "num_samples": 50, "progress_bar": False}
    chains = ebm.run_chains(key, ebm.MALA(), density, **options)
    return float(params["weight"]), ebm.log_normalizer(key, density, method="grid"), chains


def run_readme(host):
    sys.path.append(str(Path(__file__).parents[1]))
    from helpers.readme import code

    exec(code(f"import pyro_ebm.{host} as"), {})


if __name__ == "__main__":
    host = sys.argv[1]
    if importlib.util.find_spec(OTHER[host]):
        sys.exit(f"Expected an environment with {host} alone, got {OTHER[host]} too.")
    weight, log_z, chains = with_pyro() if host == "pyro" else with_numpyro()
    assert abs(weight - 1.5) < 0.4, weight  # 1 + 2 weight is the precision of the data, about 4
    chains.to_arviz()
    names = ("torch", "pyro-ppl") if host == "pyro" else ("jax", "numpyro")
    versions = ", ".join(f"{name} {version(name)}" for name in (*names, "numpy", "scipy", "arviz"))
    print(
        f"pyro_ebm {pyro_ebm.__version__} from {pyro_ebm.__path__[0]}: weight {weight:.2f}, {log_z}"
    )
    print(f"with {versions}")
    run_readme(host)
