"""Energy-based models for Pyro and NumPyro.

This module loads neither framework. Import the front end of the one you use; the names in them
are the same::

    import pyro_ebm.pyro as ebm      # torch and Pyro:  pip install pyro-ebm[pyro]
    import pyro_ebm.numpyro as ebm   # JAX and NumPyro: pip install pyro-ebm[numpyro]

`pyro_ebm.datasets` and `pyro_ebm.diagnostics` serve both.
"""

__version__ = "0.2.0"
