"""One adapter a host: energies, models, guides and a training loop under the same names.

Use ``from helpers.hosts.pyro import Bowl, fit``, or the same from ``helpers.hosts.numpyro``.
"""
