"""Random draws and autograd for the formulas of the core.

The concept: :mod:`pyro_ebm.core.objectives`.
"""
