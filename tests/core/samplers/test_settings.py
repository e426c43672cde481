from dataclasses import FrozenInstanceError, replace

import pytest

from pyro_ebm.core.samplers.settings import (
    HMC,
    MALA,
    KineticLangevin,
    Langevin,
    check_exact,
    check_sampler,
)


class Kernel(MALA):
    """What a host makes of the settings."""

    def init(self, potential, position): ...

    def step(self, potential, state): ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Langevin(0.0), "`step_size` to be a positive number, got 0.0"),
        (lambda: KineticLangevin(0.0), "`step_size` to be a positive number, got 0.0"),
        (lambda: MALA(-1.0), "`step_size` to be a positive number, got -1.0"),
        (lambda: HMC(-1.0), "`step_size` to be a positive number, got -1.0"),
        (lambda: HMC(step_size_jitter=1.0), "`step_size_jitter` to be .* got 1.0"),
        (lambda: HMC(0.1, 0), "`num_steps` to be an integer of at least 1, got 0"),
        (lambda: MALA(target_accept_prob=1.0), "`target_accept_prob` to be .* got 1.0"),
        (lambda: HMC(target_accept_prob=0.0), "`target_accept_prob` to be .* got 0.0"),
        (lambda: Langevin(0.1, noise_scale=-1.0), "`noise_scale` to be .* got -1.0"),
        (lambda: Langevin(0.1, temperature=0.0), "`temperature` to be .* got 0.0"),
        (lambda: KineticLangevin(0.1, friction=0.0), "`friction` to be .* got 0.0"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_are_values():
    assert Kernel(0.1) == Kernel(0.1)
    assert Kernel(0.1) != MALA(0.1)
    assert hash(Kernel(0.1)) == hash(Kernel(0.1))
    assert repr(Kernel()).startswith("Kernel(step_size=None, target_accept_prob=0.574, adapt_")
    assert replace(Kernel(0.1), step_size=0.2).step_size == 0.2
    with pytest.raises(FrozenInstanceError):
        Kernel(0.1).step_size = 0.2


def test_unadjusted_kernels_are_not_tuned():
    for kernel in (Langevin(0.1), KineticLangevin(0.1)):
        assert kernel.target_accept_prob is None
        assert not kernel.adapt_mass_matrix


def test_check_sampler():
    assert check_sampler(Kernel()) == Kernel()
    with pytest.raises(
        TypeError, match=r"an instance, got the class Kernel: .* as in Kernel\(\.\.\.\)"
    ):
        check_sampler(Kernel)
    with pytest.raises(
        TypeError, match="`kernel` to have init and step, .* got float without init"
    ):
        check_sampler(0.1, "kernel")


def test_check_exact():
    check_exact(Kernel())
    for kernel in (Langevin(0.1), KineticLangevin(0.1)):
        with pytest.raises(ValueError, match=f"accepts or rejects .* got {type(kernel).__name__}"):
            check_exact(kernel)
