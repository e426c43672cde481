"""Conversion to both generations of ArviZ, without a host in the process."""

import sys
from types import SimpleNamespace

import arviz
import arviz_base
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from pyro_ebm.core.columns import Column
from pyro_ebm.diagnostics import Chains, to_arviz

CHAIN, DRAW = 2, 50


@pytest.fixture(params=["0.x", "1.x"])
def generation(request, monkeypatch):
    """ArviZ as installed, then with the converter of the DataTree generation."""
    if request.param == "1.x":
        new = SimpleNamespace(__version__="1.3.0", from_dict=arviz_base.from_dict)
        monkeypatch.setitem(sys.modules, "arviz", new)
    return request.param


def draws(*shape, chain=CHAIN, draw=DRAW):
    return np.random.default_rng(0).normal(size=(chain, draw, *shape))


def chains(**statistics):
    return Chains(draws(3), {"lp": draws(), "ebm_energy": draws(), **statistics}, state=None)


class FakeMCMC:
    """What both hosts' `MCMC` objects offer; a subclass names its host as its module."""

    def get_samples(self, group_by_chain=False):
        assert group_by_chain
        return {"z": draws(3)}


NumPyroMCMC = type(
    "MCMC",
    (FakeMCMC,),
    {
        "__module__": "numpyro.infer.mcmc",
        "get_extra_fields": lambda self, group_by_chain: {
            "accept_prob": np.full((CHAIN, DRAW), 0.8),
            "adapt_state": {"inverse_mass_matrix": draws(3, 3)},
            "adapt_state.step_size": np.full((CHAIN, DRAW), 0.1),
            "diverging": np.zeros((CHAIN, DRAW), dtype=bool),
            "energy": draws() + 3,
            "mean_accept_prob": np.full((CHAIN, DRAW), 0.7),
            "num_steps": np.full((CHAIN, DRAW), 7),
            "potential_energy": draws() + 1,
            "z_grad": draws(3),
        },
    },
)
PyroMCMC = type(
    "MCMC",
    (FakeMCMC,),
    {
        "__module__": "pyro.infer.mcmc.api",
        "diagnostics": lambda self: {
            "z": {"n_eff": 1.0},
            "divergences": {"chain 0": [], "chain 1": [3, 49]},
            "acceptance rate": {"chain 0": 0.9, "chain 1": 0.9},
        },
    },
)


def test_container_of_each_generation(generation):
    data = chains().to_arviz()
    assert type(data).__name__ == {"0.x": "InferenceData", "1.x": "DataTree"}[generation]


def test_chains(generation):
    data = chains().to_arviz("z", dims={"z": ["latent"]}, coords={"latent": ["a", "b", "c"]})
    z = data["posterior"]["z"]
    assert z.dims == ("chain", "draw", "latent")
    np.testing.assert_array_equal(z, draws(3))
    assert list(z["latent"].values) == ["a", "b", "c"]
    assert set(data["sample_stats"]) == {"lp", "ebm_energy"}
    assert data["sample_stats"]["lp"].attrs["lp_normalized"] == 0


STATISTICS = {"lp", "ebm_energy", "acceptance_rate", "step_size", "diverging"}


def batched(*batch):
    """Chains on a batched distribution, with all statistics of a sampler."""
    statistics = {name: draws(*batch) for name in STATISTICS}
    statistics["diverging"] = draws(*batch) > 2
    return Chains(draws(*batch, 3), statistics, state=None)


@pytest.mark.parametrize("batch", [(), (4,), (4, 5)])
def test_every_statistic_of_a_sampler(batch, generation):
    chains = batched(*batch)
    data = chains.to_arviz()
    assert data["posterior"]["x"].shape == (CHAIN, DRAW, *batch, 3)
    assert set(data["sample_stats"]) == STATISTICS
    for name in STATISTICS - {"diverging"}:
        np.testing.assert_array_equal(data["sample_stats"][name], chains.statistics[name])
    # A draw diverged if it did in any batch element.
    diverging = chains.statistics["diverging"].reshape(CHAIN, DRAW, -1).any(-1)
    np.testing.assert_array_equal(data["sample_stats"]["diverging"], diverging)
    assert diverging.any()
    assert not diverging.all()


def test_arviz_plots_divergences_of_batched_chains():
    mpl.use("Agg")
    data = batched(4).to_arviz()
    arviz.plot_pair(data, divergences=True, coords={"x_dim_0": 0})
    plt.close("all")


def test_chains_are_called_x_by_default(generation):
    assert set(to_arviz(chains())["posterior"]) == {"x"}


def test_dictionary_by_chain_and_flat_agree(generation):
    by_chain = to_arviz({"z": draws(3), "w": draws()}, sample_stats={"lp": draws()})
    flat = {"z": draws(3).reshape(-1, 3), "w": draws().reshape(-1)}
    folded = to_arviz(flat, num_chains=CHAIN, sample_stats={"lp": draws().reshape(-1)})
    for group, name in [("posterior", "z"), ("posterior", "w"), ("sample_stats", "lp")]:
        np.testing.assert_array_equal(by_chain[group][name], folded[group][name])
    assert "lp_normalized" not in by_chain["sample_stats"]["lp"].attrs


def test_further_groups(generation):
    data = to_arviz(
        chains(),
        posterior_predictive={"y": draws(5).reshape(-1, 5)},
        log_likelihood={"y": draws(5)},
        prior={"x": np.zeros((70, 3))},
        observed_data={"y": np.zeros(5)},
    )
    assert data["posterior_predictive"]["y"].shape == (CHAIN, DRAW, 5)
    np.testing.assert_array_equal(data["posterior_predictive"]["y"], draws(5))
    assert data["log_likelihood"]["y"].shape == (CHAIN, DRAW, 5)
    assert data["prior"]["x"].shape == (1, 70, 3)
    assert data["observed_data"]["y"].shape == (5,)


def test_numpyro_statistics_have_names_of_arviz(generation):
    data = to_arviz(NumPyroMCMC())
    statistics = data["sample_stats"]
    assert set(statistics) == {
        *("acceptance_rate", "diverging", "energy", "lp", "n_steps", "step_size"),
    }
    np.testing.assert_array_equal(statistics["lp"], -(draws() + 1))
    np.testing.assert_array_equal(statistics["energy"], draws() + 3)
    assert (statistics["acceptance_rate"] == 0.8).all()
    np.testing.assert_array_equal(data["posterior"]["z"], draws(3))


def of_numpyro(samples):
    fields = {"get_samples": lambda *_, **__: samples, "get_extra_fields": lambda *_, **__: {}}
    return type("MCMC", (), {"__module__": "numpyro.infer.mcmc", **fields})()


def test_draws_of_a_potential_have_no_name():
    np.testing.assert_array_equal(to_arviz(of_numpyro(draws(3)))["posterior"]["x"], draws(3))


def test_pyro_divergences_become_a_statistic(generation):
    diverging = to_arviz(PyroMCMC())["sample_stats"]["diverging"].values
    np.testing.assert_array_equal(np.argwhere(diverging), [[1, 3], [1, 49]])


def test_torch_tensors_are_detached():
    """A stand-in for a tensor that requires a gradient: numpy may read it only once detached."""

    class Tensor:
        __module__ = "torch"

        def detach(self):
            return self

        def cpu(self):
            return draws(3)

    np.testing.assert_array_equal(to_arviz({"z": Tensor()})["posterior"]["z"], draws(3))


def test_classes_of_a_user_that_are_mcmc():
    for host in (NumPyroMCMC, PyroMCMC):
        data = to_arviz(type("Mine", (host,), {"__module__": "mine"})())
        assert "diverging" in data.sample_stats


@pytest.mark.parametrize("source", [chains, NumPyroMCMC, PyroMCMC])
def test_file_round_trip_and_summary(source, tmp_path):
    to_arviz(source()).to_netcdf(str(tmp_path / "posterior.nc"))
    data = arviz.from_netcdf(str(tmp_path / "posterior.nc"))
    summary = arviz.summary(data)
    assert len(summary) == 3
    assert {"mean", "sd", "ess_bulk", "ess_tail", "r_hat"} <= set(summary.columns)
    assert np.isfinite(summary.to_numpy()).all()


def test_data_tree_round_trip(tmp_path, monkeypatch):
    new = SimpleNamespace(__version__="1.3.0", from_dict=arviz_base.from_dict)
    monkeypatch.setitem(sys.modules, "arviz", new)
    data = to_arviz(chains())
    data.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    read = xarray.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read["posterior"]["x"], draws(3))
    assert read["sample_stats"]["lp"].attrs["lp_normalized"] == 0


@pytest.mark.parametrize(
    "convert",
    [
        lambda: chains(energy=draws()).to_arviz(),
        lambda: to_arviz(chains(), sample_stats={"energy": draws()}),
        lambda: to_arviz({"z": draws()}, sample_stats={"energy": draws()}),
    ],
)
def test_energies_of_models_have_their_own_name(convert):
    with pytest.raises(ValueError, match="'ebm_energy', got 'energy'"):
        convert()


def test_errors():
    with pytest.raises(ValueError, match="an MCMC object, and to_arviz of .*=True`, got dict"):
        to_arviz({"z": draws()}, log_likelihood=True)
    with pytest.raises(TypeError, match="an MCMC object of Pyro or NumPyro, got ndarray"):
        to_arviz(draws())
    with pytest.raises(ValueError, match=r"one shape \(chain, draw, ...\), got .*\(2, 49, 3\)"):
        to_arviz({"z": draws(3), "w": draws(3, draw=49)})
    with pytest.raises(ValueError, match=r"one shape \(chain, draw, ...\), got {'z': \(100,\)}"):
        to_arviz({"z": np.zeros(100)})
    with pytest.raises(ValueError, match="by name, or one array, got NoneType: has it run?"):
        to_arviz(of_numpyro(None))
    with pytest.raises(ValueError, match=r"one shape \(chain, draw, ...\), got {}"):
        to_arviz({})
    with pytest.raises(ValueError, match=r"divisible by `num_chains`=3, got shape \(100, 2\)"):
        to_arviz({"z": np.zeros((100, 2))}, num_chains=3)
    with pytest.raises(ValueError, match="divisible by `num_chains`=0"):
        to_arviz({"z": np.zeros((100, 2))}, num_chains=0)
    with pytest.raises(ValueError, match="with a dictionary only, got Chains"):
        to_arviz(chains(), num_chains=2)
    with pytest.raises(ValueError, match="with Chains only, got it with dict"):
        to_arviz({"z": draws()}, name="z")
    with pytest.raises(ValueError, match=r"\(2, 50, ...\) or \(100, ...\) .* got \(99, 5\)"):
        to_arviz(chains(), posterior_predictive={"y": np.zeros((99, 5))})
    with pytest.raises(ValueError, match="groups out of posterior_predictive, .*got 'posteriors'"):
        to_arviz(chains(), posteriors={"y": draws()})


# --- tables ---

COLUMNS = [Column.numeric("age"), Column.ordinal(3, "rating"), Column.nominal(2)]


def table(*shape):
    rng = np.random.default_rng(0)
    codes = rng.integers([3, 2], size=(*shape, 2))
    return np.concatenate([rng.normal(size=(*shape, 1)), codes], axis=-1)


def test_columns_become_variables(generation):
    samples, seen = table(2, 50), table(7)
    groups = {"posterior_predictive": {"x": samples}, "observed_data": {"x": seen}}
    data = chains()._replace(samples=samples).to_arviz(columns={"x": COLUMNS}, **groups)
    for group in ("posterior", "posterior_predictive", "observed_data"):
        assert list(data[group].data_vars) == ["age", "rating", "x_2"]
    assert data.posterior["rating"].dtype.kind == "i"
    np.testing.assert_array_equal(data.posterior["age"], samples[..., 0])
    np.testing.assert_array_equal(data.observed_data["x_2"], seen[:, 2])


def test_columns_have_the_dimensions_of_their_table(generation):
    options = {"dims": {"x": ["row", "column"]}, "coords": {"row": ["a", "b", "c", "d"]}}
    data = to_arviz({"x": table(2, 50, 4)}, columns={"x": iter(COLUMNS)}, **options)
    for name in ("age", "rating", "x_2"):
        assert data["posterior"][name].dims == ("chain", "draw", "row")
        assert list(data["posterior"][name]["row"].values) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("rows", [3, 5])
def test_log_likelihoods_of_rows_have_no_columns(rows, generation):
    """Of as many rows as columns, too."""
    groups = {"observed_data": {"x": table(rows)}, "log_likelihood": {"x": draws(rows)}}
    data = to_arviz({"mu": draws()}, columns={"x": COLUMNS}, dims={"x": ["row", "of"]}, **groups)
    assert list(data.observed_data.data_vars) == ["age", "rating", "x_2"]
    assert data.log_likelihood["x"].dims == ("chain", "draw", "row")
    np.testing.assert_array_equal(data.log_likelihood["x"], draws(rows))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (COLUMNS[:2], r"'x' of 2 columns, got shape \(2, 50, 3\)"),
        ([COLUMNS[0]] * 3, "columns of different names, got .'age', 'age', 'age'"),
        ([*COLUMNS[:2], Column.nominal(2, "w")], r"variables of different names, got \['w'\]"),
    ],
)
def test_wrong_columns(columns, message):
    draws = {"x": table(2, 50), "w": np.zeros((2, 50))}
    with pytest.raises(ValueError, match=message):
        to_arviz(draws, columns={"x": columns})


def test_missing_codes_stay_missing():
    seen = table(4)
    seen[2] = np.nan
    data = to_arviz({"w": draws()}, columns={"x": COLUMNS}, observed_data={"x": seen})
    np.testing.assert_array_equal(data.observed_data["rating"], seen[:, 1])
