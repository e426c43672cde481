r"""Normalizing constants and marginal likelihoods, with brackets.

:math:`\log Z` of an energy is estimated by importance sampling from the base, by annealing from
the base and back, on a grid, or by enumeration of codes; :math:`\log p(x)` of a latent-variable
model by importance sampling from the guide, or by annealing from the priors; and a generator bounds
:math:`\log Z` from below, under conditions also from above. Every result is a frozen dataclass with
its error and its effective sample size, and prints as a sentence.

An estimate of log Z or log p(x) is too low on average, and by far if few draws count. A *bracket*
is a lower and an upper bound on log Z; its width shows how uncertain log Z still is. Learned
likelihoods have two more checks: that log Z is the same for every parameter
(``check_conditional``), and that posteriors are calibrated (``simulation_based_calibration``).
"""
