"""Log Z and log p(x) by torch.

The concept: :mod:`pyro_ebm.core.evidence`.
"""
