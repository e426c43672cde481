import numpy as np
import pytest

from pyro_ebm.missing_modes import check_modes, missing_mass

rng = np.random.default_rng(0)


def draws(weights, number=2000, dims=1):
    """Modes a distance of 3 apart, with these weights."""
    place = rng.choice(len(weights), number, p=weights)
    return 3.0 * place[:, None] + 0.3 * rng.normal(size=(number, dims))


@pytest.mark.parametrize("dims", [1, 16])
def test_missing_mass(dims):
    reference = draws([0.5, 0.3, 0.2], 512, dims)
    missed = missing_mass(draws([0.6, 0.4, 0.0], dims=dims), reference)
    assert missed == pytest.approx(0.2, abs=0.05)
    # Wrong weights are not missing modes.
    assert missing_mass(draws([0.2, 0.2, 0.6], dims=dims), reference) == 0.0
    assert missing_mass(draws([0.5, 0.3, 0.2], dims=dims), reference) == 0.0


def test_references_without_spread():
    """In a coordinate where the reference is constant, another number is another mode."""
    assert missing_mass(np.full((500, 1), 4.0), np.full((300, 1), -4.0)) == 1.0
    assert missing_mass(np.full((500, 1), -4.0), np.full((300, 1), -4.0)) == 0.0
    table = np.stack([rng.normal(size=500), np.ones(500)], axis=-1)
    assert missing_mass(table + [0, 1], table) == 1.0
    few_there = table + np.where(np.arange(500) < 10, 0, 1)[:, None] * [0, 1]
    assert missing_mass(few_there, table) == 1.0
    assert missing_mass(table, table) == 0.0


def test_few_ancestors_find_no_mode():
    reference = draws([0.5, 0.5], 512)
    ancestors = np.where(reference[:, 0] > 1.5, 0, np.arange(512))
    assert missing_mass(draws([1.0, 0.0]), reference, ancestors) == 0.0
    assert missing_mass(draws([1.0, 0.0]), reference) > 0.4


def test_references_of_many_values_are_thinned_with_their_ancestors():
    reference = draws([0.5, 0.5], 9000)
    assert missing_mass(draws([1.0, 0.0]), reference, np.arange(9000)) > 0.4
    assert missing_mass(draws([0.5, 0.5]), reference, np.arange(9000)) == 0.0


def test_draws_that_are_no_numbers_are_in_no_mode():
    """Chains that diverged halfway saw what they saw; those that saw nothing missed all."""
    reference, half = draws([0.5, 0.5], 512), draws([0.5, 0.5])
    half[::2] = np.nan
    assert missing_mass(half, reference) == 0.0
    for number in (np.inf, 1.7e308):
        assert missing_mass(np.full((500, 1), number), 0.1 * reference) == 1.0


def test_reference_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite values of `reference`"):
        check_modes({"z": np.zeros((4, 100))}, "z", np.array([0.0, np.nan]), lambda: None)
