"""Toy distributions, small real images, and real tables for density estimation."""

from pyro_ebm.datasets.images import Digits, Split, digits
from pyro_ebm.datasets.tables import Table, parkinsons, red_wine
from pyro_ebm.datasets.toys import TOYS, Toy, bimodal, toy

__all__ = [
    "TOYS",
    "Digits",
    "Split",
    "Table",
    "Toy",
    "bimodal",
    "digits",
    "parkinsons",
    "red_wine",
    "toy",
]
