"""The sites of a user's model: where energies stand in it, and whether inference is right.

An energy may stand in masks, plates, transforms and mixtures. This folder finds it there, computes
log-densities of sites, lays the latent variables of a model out as one vector for each element of
their common plates, gives the distribution at a site by itself (``site_distribution``), and lists
issues (``check_model``): an energy that depends on another latent variable, one inside of a mixture
or a guide, parameters that no optimizer updates.
"""
