import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.infer.checkpoints import *  # noqa: F403
from helpers.infer.numpyro import empty_guide
from jax import random
from numpyro.contrib.module import flax_module
from numpyro.infer import NUTS, SVI, Trace_ELBO

import pyro_ebm.numpyro as ebm


def same(one, two):
    """Whether two pytrees have the same structure, types and bits."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(two) and all(
        x.dtype == y.dtype
        and getattr(x, "weak_type", None) == getattr(y, "weak_type", None)
        and (np.asarray(numbers(x)) == np.asarray(numbers(y))).all()
        for x, y in pairs
    )


def numbers(x):
    return random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def reload(tmp_path, state, like):
    ebm.save_checkpoint(tmp_path / "run", state)
    return ebm.load_checkpoint(tmp_path / "run", like)


# --- what a state may have ---


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys(tmp_path, impl):
    """Typed keys of every kind, alone and many; and keys of the old kind, which are numbers."""

    def keys(seed):
        key = random.key(seed, impl=impl)
        return {"one": key, "many": random.split(key, 3), "old": random.PRNGKey(seed)}

    found = reload(tmp_path, keys(1), keys(2))
    assert same(found, keys(1))
    assert random.normal(found["one"]) == random.normal(keys(1)["one"])


def test_keys_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"state\['key'\].impl to be 'rbg', got 'threefry2x32'"):
        reload(tmp_path, {"key": random.key(0)}, {"key": random.key(0, impl="rbg")})
    with pytest.raises(ValueError, match=r"Expected state\['key'\].*, got none"):
        reload(tmp_path, {"key": random.PRNGKey(0)}, {"key": random.key(0)})
    keys = random.split(random.key(0), 3)
    with pytest.raises(ValueError, match=r"state\['key'\].data .* \(3, 2\) .*, got .* \(2,\)"):
        reload(tmp_path, {"key": random.key(0)}, {"key": keys})


def test_shapes_alone_are_enough(tmp_path):
    def state():
        return {"key": random.key(1), "a": (jnp.arange(3.0), jnp.ones((2, 1), jnp.bfloat16))}

    assert same(reload(tmp_path, state(), jax.eval_shape(state)), state())


def test_double_precision_and_weak_types(tmp_path, float64):
    state = {"a": jnp.arange(3.0), "weak": jnp.asarray(2.0), "count": jnp.asarray(3)}
    found = reload(tmp_path, state, jax.tree.map(lambda x: x * 2, state))
    assert same(found, state)
    assert found["a"].dtype == jnp.float64
    assert found["weak"].weak_type
    with jax.enable_x64(False), pytest.raises(ValueError, match="float32, got .*float64"):
        ebm.load_checkpoint(tmp_path / "run", {**state, "a": jnp.arange(3.0)})


def test_shardings_are_those_of_the_run(tmp_path):
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    like = {"a": jax.device_put(jnp.zeros(4), sharding), "b": jnp.zeros(4)}
    found = reload(tmp_path, {"a": jnp.arange(4.0), "b": jnp.ones(4)}, like)
    assert found["a"].sharding == sharding
    assert not found["b"].committed


def test_buffers_of_modules(tmp_path):
    """Spectral and batch norm of flax are mutable sites, a part of the state."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False)(x)
            return nn.SpectralNorm(nn.Dense(1))(x, update_stats=True)

    def model(x):
        net = flax_module("net", Net(), input_shape=x.shape, mutable=["batch_stats"])
        numpyro.sample("y", dist.Normal(net(x), 1.0).to_event(2), obs=jnp.zeros((4, 1)))

    x = jnp.arange(8.0).reshape(4, 2)
    svi = SVI(model, empty_guide, numpyro.optim.Adam(0.05), Trace_ELBO())
    state, like = (svi.init(random.key(0), scale * x) for scale in (1, 2))
    paths = jax.tree_util.tree_leaves_with_path(state.mutable_state)
    assert {str(path[-1].key).split("/")[-1] for path, _ in paths} >= {"mean", "u", "sigma"}
    assert not same(state.mutable_state, like.mutable_state)
    assert same(reload(tmp_path, state, like), state)


@pytest.mark.parametrize("kernel", [lambda m: ebm.SamplerKernel(m, ebm.MALA(0.5)), NUTS])
def test_states_of_mcmc(tmp_path, kernel):
    """A run goes on from such a state, with what its warm-up has learned."""

    def model():
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    state, like = (kernel(model).init(random.key(s), 4, None, (), {}) for s in (0, 1))
    assert not same(state, like)
    assert same(reload(tmp_path, state, like), state)
