"""Log Z and log p(x) by JAX, also inside of ``jit``.

The concept: :mod:`pyro_ebm.core.evidence`.
"""
