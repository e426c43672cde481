"""``TorchDistribution`` classes.

The concept: :mod:`pyro_ebm.core.distributions`.
"""
