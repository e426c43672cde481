"""Pseudo-spherical contrastive divergence: train an energy by a score that needs no normalizer."""

from typing import Any

from jax import Array, lax

from pyro_ebm.core.checks import check_nonnegative, check_one_base
from pyro_ebm.core.evidence.weights import summarize_log_weights
from pyro_ebm.core.infer.metrics import record_figures
from pyro_ebm.core.objectives.pseudo_spherical import check_gamma, pseudo_spherical
from pyro_ebm.numpyro.objectives.negatives import Negatives, compare
from pyro_ebm.numpyro.samplers import Sampler

__all__ = ["PseudoSpherical"]


class PseudoSpherical:
    r"""Objective that is contrastive divergence with values and draws weighted by density.

    .. math::
        \nabla L = \mathbb E_{\tilde p}[\nabla U] - \mathbb E_r[\nabla U], \qquad
        \tilde p \propto p\, e^{-\gamma U}, \quad r \propto q\, e^{-\gamma U}, \quad
        U = E - \log p_0

    Here p is the law of the site's values and q the model. The draws of the model, from the base
    by MCMC or from chains that the guide declares, ``auxiliary("x",
    chains=PersistentChains(...))``, have weights ``softmax(-gamma U)``, and so have the values.
    Energy and base are trained together.

    The weights are normalized over all values that the objective sees, which are to share one
    base: in a plate that subsamples, over the minibatch, whose ratio of means is biased by one
    over its size. A value that is masked out has no gradient, but the one that NumPyro puts in
    its place counts in these weights.

    Args:
        gamma: :math:`\gamma > -1`, not 0. Above 0 values of high energy count less (robust to
            outliers), below 0 more (covers them); near 0 it is contrastive divergence. From
            :math:`-1/2` down the weights of draws have no finite variance. Energies that differ
            by many times :math:`1 / |\gamma|` leave all weight to one value, as
            ``effective_values`` and ``effective_negatives`` among the figures of health tell.
        sampler: What moves the draws; the distribution's own by default. Its bias is the model's.
        num_steps: Its steps from the start; its own ``num_steps`` by default.
        num_negatives: Draws; by default as many as there are values.
        energy_penalty: :math:`\lambda \ge 0` of :math:`\lambda (E(x)^2 + \overline{E(x^-)^2})`.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: If another argument is out of range; in ``loss``, if the base has a batch.

    References:
        | Pseudo-Spherical Contrastive Divergence (Yu et al., 2021)
        | https://arxiv.org/abs/2111.00780
    """

    def __init__(
        self,
        gamma: float,
        *,
        sampler: Sampler | None = None,
        num_steps: int | None = None,
        num_negatives: int | None = None,
        energy_penalty: float = 0.0,
    ) -> None:
        self.gamma = check_gamma(gamma)
        self.negatives = Negatives(sampler, num_steps, num_negatives)
        self.energy_penalty = check_nonnegative("energy_penalty", energy_penalty)

    def __repr__(self) -> str:
        return (
            f"PseudoSpherical({self.gamma}, {self.negatives}, energy_penalty={self.energy_penalty})"
        )

    def loss(
        self, rng_key: Array, distribution: Any, value: Array, *, chains: Array | None = None
    ) -> Array:
        r"""Loss of each value, differentiable in the parameters of energy and base.

        Args:
            rng_key: Random key.
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.
            chains: Draws of the model to take as they are, shape ``(num_chains, *event)``.

        Returns:
            Shape ``(*batch,)``. Without a penalty the same number for every value,
            :math:`\frac1\gamma \log (\overline{e^{-\gamma U(x^-)}} /
            \overline{e^{-\gamma U(x)}})`: near 0 if draws are like values; no divergence.
        """
        check_one_base(distribution)
        value = lax.stop_gradient(value)
        negatives = self.negatives.draw(rng_key, distribution, value, chains)
        compared = compare(distribution, value, negatives)
        positive, negative = lax.stop_gradient((compared.positive, compared.negative))
        record_figures(
            effective_values=lambda: self._effective_size(positive),
            effective_negatives=lambda: self._effective_size(negative),
        )
        weights = pseudo_spherical(self.gamma, positive, negative)
        loss = weights.positive * compared.positive - (weights.negative * compared.negative).mean(0)
        loss = weights.value + loss - lax.stop_gradient(loss)
        return loss + self.energy_penalty * compared.mean_square_energy

    def _effective_size(self, potential: Array) -> Array:
        return summarize_log_weights(-self.gamma * potential.ravel()).effective_sample_size
