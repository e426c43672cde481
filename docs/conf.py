"""Sphinx settings; ``make docs`` builds, without a network."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent

# What autodoc imports computes nothing, so that one process can hold both hosts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Kernels have no widgets, and progress bars in text will do.
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
sys.path.insert(0, str(HERE / "_ext"))

# Pages lie below this folder. Copies keep their times: only changed tutorials are read anew.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials")

import pyro_ebm

project = "pyro_ebm"
author = "the pyro_ebm contributors"
version = release = pyro_ebm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "reference",
    "gallery",
]

# Other Python files in the folder of tutorials are no pages.
include_patterns = ["**.md", "tutorials/[0-9][0-9]_*.py"]
exclude_patterns = ["_build"]
default_role = "code"

# --- pages and notebooks ---

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
nb_merge_streams = True

# --- docstrings ---

autodoc_default_options = {"member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# --- HTML ---

html_theme = "furo"
html_title = f"pyro_ebm {version}"
html_static_path = ["_static"]
html_css_files = ["pyro_ebm.css"]
html_show_copyright = False
html_show_sourcelink = False
# A reader without a network can build with a copy: PYRO_EBM_MATHJAX=/path/to/tex-mml-chtml.js
if "PYRO_EBM_MATHJAX" in os.environ:
    mathjax_path = os.environ["PYRO_EBM_MATHJAX"]
