r"""Energy-based distributions, and the bases that they reweight.

.. math:: p(x) = \frac1Z e^{-\beta E(x)} p_0(x), \qquad Z = \int e^{-\beta E(x)} p_0(x)\, dx

An ``EnergyBased`` distribution stands at any ``sample`` site, observed or latent. Its ``log_prob``
is *frozen in the parameters*: the unnormalized log-density, differentiable in the value alone. So
every stock ELBO, guide and MCMC kernel is right for everything but the energy's own parameters,
which an objective trains through ``potential``. The base has a density (a normal, a flow) or is a
``Pushforward``: whatever a generator makes of a latent variable. ``ColumnMarginals`` is a base of
columns of numbers and codes, ``Joint`` one of several named parts, between which the energy is a
learned likelihood.

An energy is *bound* when the distribution is made: to its parameters, to the variables that it
closes over, and to its ``context``, the one way to depend on anything that differs between rows.
From there on it is a function of value and context; a probe refuses energies whose rows depend on
each other or on chance (batch norm, dropout).
"""
