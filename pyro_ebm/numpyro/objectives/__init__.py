"""Keys and JAX transformations for the formulas of the core.

The concept: :mod:`pyro_ebm.core.objectives`.
"""
