"""Toy distributions and small real images."""

from pyro_ebm.datasets.images import Digits, Split, digits
from pyro_ebm.datasets.toys import TOYS, Toy, bimodal, toy

__all__ = ["TOYS", "Digits", "Split", "Toy", "bimodal", "digits", "toy"]
