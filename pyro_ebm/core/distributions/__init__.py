r"""Energy-based distributions, and the bases that they reweight.

.. math:: p(x) = \frac1Z e^{-\beta E(x)} p_0(x), \qquad Z = \int e^{-\beta E(x)} p_0(x)\, dx

An ``EnergyBased`` distribution works at any ``sample`` site, observed or latent. Its ``log_prob``
is *frozen in the parameters*: it is the unnormalized log-density, with gradients in the value only.
So stock ELBOs, guides and MCMC kernels are correct for everything except the energy's parameters,
which an objective trains through ``potential``. The base has a density (a normal, a flow) or is a
``Pushforward``, the distribution of a generator's output. ``ColumnMarginals`` is a base for tables,
with columns of numbers and of codes (categories as whole numbers). ``Joint`` is a base of several
named parts; an energy on it can be a learned likelihood.

An energy is *bound* when the distribution is made: to its parameters, to the variables that it
closes over, and to its ``context``, which must hold everything that differs between rows. From then
on it is a function of value and context. A test evaluation refuses energies whose rows depend on
each other or on chance (batch norm, dropout).
"""
