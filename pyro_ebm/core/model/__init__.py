"""The sites of a user's model: where energies are in it, and whether inference is correct.

An energy may be inside masks, plates, transforms and mixtures. This folder finds it there, computes
log-densities of sites, and arranges the latent variables of a model as one vector for each element
of their common plates. ``site_distribution`` returns the distribution at a site. ``check_model``
lists issues: an energy that depends on another latent variable, an energy in a mixture or a guide,
parameters that no optimizer updates.
"""
