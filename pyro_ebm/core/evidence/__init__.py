r"""Normalizing constants and marginal likelihoods, with brackets.

:math:`\log Z` of an energy is estimated by importance sampling from the base, by annealing from
the base and back, on a grid, or by enumeration of codes; :math:`\log p(x)` of a latent-variable
model by importance sampling from the guide, or by annealing from the priors; and a generator bounds
:math:`\log Z` from below, under conditions also from above. Every result is a frozen dataclass with
its error and its effective sample size, and prints as a sentence.

An estimate is too low on average, and by much where few draws count. A *bracket* has a bound on
either side of it, and its width is what nobody knows yet. Learned likelihoods have checks of their
own: that log Z is the same for every parameter (``check_conditional``), and that true parameters
rank evenly among draws of their posteriors (``simulation_based_calibration``).
"""
