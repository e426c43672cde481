from pyro_ebm.core.distributions.energy_based import AbstractEnergyBased
from pyro_ebm.core.model.energies import EnergyFinder


class Wrapper:
    def __init__(self, *parts):
        self.parts, self.base_dist = parts, parts[0] if parts else None


Mixture, Plate, Mask = (type(name, (Wrapper,), {}) for name in ("Mixture", "Plate", "Mask"))
Folded = type("Folded", (Mask,), {})
FINDER = EnergyFinder((Plate,), (Mask,), Folded, lambda fn: getattr(fn, "parts", ()))
ENERGY = object.__new__(type("Energy", (AbstractEnergyBased,), {"log_normalizer": None}))


def test_energies_in_mixtures_of_mixtures():
    inner = Mixture(Plate(ENERGY))
    outer = Mixture(Mixture(), Mask(inner))
    assert FINDER.find_mixture(outer) is outer
    assert FINDER.find_mixture(Plate(inner)) is inner
    assert FINDER.has_energy(outer)
    assert FINDER.lacks_constant(outer)
    assert FINDER.find_mixture(Mixture(Mixture())) is None


def test_wrapped_energies():
    assert FINDER.find_energy(Mask(Plate(ENERGY))) is ENERGY
    assert FINDER.find_energy(Plate(Folded(ENERGY))) is None
    assert FINDER.is_unnormalized(Mask(ENERGY))
    assert FINDER.find_mixture(Mask(ENERGY)) is None
    assert FINDER.find_plain_energy(Plate(ENERGY)) is ENERGY
    assert FINDER.find_plain_energy(Plate(Mask(ENERGY))) is None
