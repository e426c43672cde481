"""Sites as messages of Pyro's effect handlers.

The concept: :mod:`pyro_ebm.core.model`.
"""
