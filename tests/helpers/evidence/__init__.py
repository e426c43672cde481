"""Tests of evidence that are the same on both hosts, written once.

A host's test file imports its suite, ``from helpers.evidence.bounds import *``, and adds what only
that host has. The fixture ``host`` is one of the two adapters here, ``pyro`` and ``numpyro``, which
have the same names.
"""
