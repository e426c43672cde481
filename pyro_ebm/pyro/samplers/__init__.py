"""Kernels and runs of them, on tensors.

The concept: :mod:`pyro_ebm.core.samplers`. Everything a kernel returns is detached.
"""
