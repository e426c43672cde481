"""Sites as messages of NumPyro's effect handlers.

The concept: :mod:`pyro_ebm.core.model`.
"""
