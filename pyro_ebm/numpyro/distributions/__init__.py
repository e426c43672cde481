"""NumPyro ``Distribution`` classes, which are pytrees.

The concept: :mod:`pyro_ebm.core.distributions`.
"""
