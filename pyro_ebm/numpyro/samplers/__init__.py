"""Kernels and runs of them, on JAX arrays.

The concept: :mod:`pyro_ebm.core.samplers`. Kernels are hashable and static in compiled functions;
a run compiles once for a kernel and the shapes of its target.
"""
