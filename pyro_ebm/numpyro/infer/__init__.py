"""Parts of ``numpyro.infer``: losses, guides and kernels.

The concept: :mod:`pyro_ebm.core.infer`.
"""
