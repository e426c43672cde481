"""Score matching with NumPyro: exact, sliced and denoising."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax, random, tree_util

from pyro_ebm.core.objectives import score_matching as core
from pyro_ebm.core.objectives.loss import Loss, Objective
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.distributions.probe import are_known
from pyro_ebm.numpyro.objectives.jacobian import for_each
from pyro_ebm.numpyro.samplers.target import Potential, Target, value_and_gradient


class _BySecondDerivatives(Objective):
    def check_energy(
        self, distribution: EnergyBased, value: Array, counts: Array, site: str
    ) -> None:
        # Numbers are compared where they are known, outside of `jit`; but for a gradient in them.
        distribution = lax.stop_gradient(distribution)
        if are_known((distribution, value, counts)):
            target = Target.of(distribution)
            core.check_gradient(
                distribution, target, value, counts, _compiled_products, _fixed_signs, site
            )


class ScoreMatching(_BySecondDerivatives, core.ScoreMatching):
    """Score matching with the whole Hessian's trace; the key is not used.

    The base class has the formula.

    Example:
        >>> from jax import numpy as jnp
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> quartic = EnergyBased(lambda x: x**4, event_shape=())
        >>> ScoreMatching().loss(None, quartic, jnp.array([1.0])).value.tolist()  # 4^2 / 2 - 12
        [-4.0]
    """

    def loss(self, rng_key: Array | None, distribution: EnergyBased, value: Array) -> Loss:
        target, x, event_ndim = _unconstrained_rows(distribution, value)
        event_shape = x.shape[x.ndim - event_ndim :]
        identity = jnp.eye(math.prod(event_shape), dtype=x.dtype)
        directions = core.coordinate_directions(identity, x.ndim - event_ndim, event_shape)
        directions = jnp.broadcast_to(directions, (len(identity), *x.shape))
        return _along(directions, target, x, event_ndim)


class SlicedScoreMatching(_BySecondDerivatives, core.SlicedScoreMatching):
    """Score matching along random signs, a vector for each value and projection.

    The base class has formula and settings.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> saddle = EnergyBased(lambda x: x[:, 0] ** 2 - x[:, 1] ** 2, event_shape=(2,))
        >>> SlicedScoreMatching(5).loss(random.key(0), saddle, jnp.ones((1, 2))).value.tolist()
        [4.0]
    """

    def loss(self, rng_key: Array, distribution: EnergyBased, value: Array) -> Loss:
        target, x, event_ndim = _unconstrained_rows(distribution, value)
        directions = random.rademacher(rng_key, (self.num_projections, *x.shape), x.dtype)
        return _along(directions, target, x, event_ndim)


class DenoisingScoreMatching(core.DenoisingScoreMatching):
    """Score matching at noisy data.

    The base class has formula and settings.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> flat = EnergyBased(jnp.zeros_like, event_shape=())
        >>> loss = DenoisingScoreMatching(0.1).loss(random.key(0), flat, jnp.zeros(1000)).value
        >>> round(float(loss.mean()), 1)  # D / 2
        0.5
    """

    def loss(self, rng_key: Array, distribution: EnergyBased, value: Array) -> Loss:
        target, x, event_ndim = _unconstrained_rows(distribution, value)
        noise = random.normal(rng_key, x.shape, x.dtype)
        _, gradient = value_and_gradient(target.potential, x + math.sqrt(self.variance) * noise)
        loss = core.denoising_score_matching(gradient, noise, self.variance, event_ndim)
        return Loss(loss, {})


def _unconstrained_rows(distribution: EnergyBased, value: Array) -> tuple[Target, Array, int]:
    """Target, positions and event_ndim; gradients of batch elements need rows of their own."""
    target = Target.of(distribution)
    batch_ndim = value.ndim - distribution.event_dim
    x = lax.stop_gradient(target.position(value))
    event_shape = x.shape[batch_ndim:]
    batch_shape = jnp.broadcast_shapes(value.shape[:batch_ndim], distribution.batch_shape)
    return target, jnp.broadcast_to(x, (*batch_shape, *event_shape)), len(event_shape)


def _along(directions: Array, target: Target, x: Array, event_ndim: int) -> Loss:
    gradient, products = _hessian_products(target.potential, x, directions)
    return Loss(core.score_matching(gradient, directions, products, event_ndim), {})


def _fixed_signs(shape: tuple[int, ...], like: Array) -> Array:
    return random.rademacher(random.key(0), shape, like.dtype)


def _hessian_products(potential: Potential, x: Array, directions: Array) -> tuple[Array, Array]:
    """Gradient at ``x`` and Hessian times each direction, by forward over reverse.

    The energy is called once, and its linear part for each direction.
    """
    gradient_of = jax.grad(lambda x: potential(x).sum())
    gradient, times_hessian = jax.linearize(gradient_of, x)
    return gradient, for_each(times_hessian, directions)


def _compiled_products(energy: partial[Array], x: Array, directions: Array) -> tuple[Array, Array]:
    # A pytree, so that the next step of training compiles nothing anew.
    return _jitted_products(tree_util.Partial(energy.func, *energy.args), x, directions)


_jitted_products = jax.jit(_hessian_products)
