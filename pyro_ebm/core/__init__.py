"""Formulas on arrays: NumPy, torch and JAX arrays go in, arrays of the same kind come out."""
