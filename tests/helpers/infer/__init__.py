"""Tests of models and inference that are the same on both hosts, written once.

As in `helpers.objectives`: a host's test file imports its suite, and the fixture ``host`` is one of
the adapters here, ``pyro`` and ``numpyro``, which have the same names.
"""
