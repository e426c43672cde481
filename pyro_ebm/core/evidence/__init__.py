r"""Normalizing constants and marginal likelihoods, with brackets.

:math:`\log Z` of an energy is estimated by importance sampling from the base, by annealing from
the base and back, or on a grid; :math:`\log p(x)` of a latent-variable model by importance sampling
from the guide, or by annealing from the priors; and a generator bounds :math:`\log Z` from below,
under conditions also from above. Every result is a frozen dataclass with its error and its
effective sample size, and prints as a sentence.
"""
