import pyro
import torch
from helpers.infer.stored_positions import *  # noqa: F403
from helpers.infer.stored_positions import KEPT, X, stored, subsampled, training
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam


def test_no_evaluation_moves_them(host):
    run = training(host, subsampled(host))
    run.step(X)
    before = run.chains("z$positions").copy()
    run.evaluate(X)
    run.guide.eval()
    run.step(X)
    assert (run.chains("z$positions") == before).all()


def test_vectorized_particles_have_chains_of_their_own(host):
    loss = Trace_ELBO(num_particles=3, vectorize_particles=True)
    svi = SVI(subsampled(host), stored(host, subsampled(host)), Adam({"lr": 0.0}), loss)
    x, name = torch.tensor(X, dtype=torch.float32), "z$positions$num_particles_vectorized"
    svi.step(x)
    before = pyro.get_param_store()[name].detach().clone().reshape(3, len(x))
    assert len(set(before[:, before[0].isfinite()].flatten().tolist())) == 3 * 5
    for _ in range(4):
        svi.step(x)
        after = pyro.get_param_store()[name].detach().clone().reshape(3, len(x))
        moved = (after != before) & before.isfinite()
        expected = x / 2 + KEPT * (before - x / 2)
        torch.testing.assert_close(after[moved], expected[moved])
        before = after


def test_a_module_keeps_its_own(host):
    guide, x = stored(host, subsampled(host)), torch.tensor(X, dtype=torch.float32)
    with pyro.settings.context(module_local_params=True):
        guide(x)
        state = guide.state_dict()
        assert state["chains.z$positions"].shape == (12, 1)
        assert not list(pyro.get_param_store())
        other = stored(host, subsampled(host))
        other.load_state_dict(state)
        draws = [pyro.set_rng_seed(1) or one(x)["z"].tolist() for one in (guide, other)]
    assert draws[0] == draws[1]
