"""Tests of distributions that are the same on both hosts; the adapters are `helpers.samplers`."""
