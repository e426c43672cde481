"""Tests of objectives that are the same on both hosts, written once.

A host's test file imports all of its suite, ``from helpers.objectives.kale import *``, and adds
what only that host has. The fixture ``host`` is one of the two adapters here, ``pyro`` and
``numpyro``, which have the same names. Arrays go in and come out as NumPy's.
"""
