"""Toy distributions, as codes and with codes too, and small real images."""

from pyro_ebm.datasets.codes import Codes as Codes
from pyro_ebm.datasets.codes import codes as codes
from pyro_ebm.datasets.colored_rings import ColoredRings as ColoredRings
from pyro_ebm.datasets.images import Digits as Digits
from pyro_ebm.datasets.images import Split as Split
from pyro_ebm.datasets.images import digits as digits
from pyro_ebm.datasets.toys import TOYS as TOYS
from pyro_ebm.datasets.toys import Toy as Toy
from pyro_ebm.datasets.toys import bimodal as bimodal
from pyro_ebm.datasets.toys import toy as toy
