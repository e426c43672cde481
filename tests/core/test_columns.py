import numpy as np
import pytest

from pyro_ebm.core.columns import Column, are_values, check_columns, codes_of, num_states

COLUMNS = (Column.numeric(), Column.nominal(3), Column.cyclic(4))


def test_values():
    value = np.array([[0.5, 2, 3], [0.5, 3, 3], [0.5, 2, -1], [0.5, 1.5, 0], [np.nan, 0, 0]])
    assert are_values(COLUMNS, value).tolist() == [True, False, False, False, False]
    assert are_values(COLUMNS, value[:, :2]).tolist() == [False] * 5


def test_number_of_states():
    assert num_states(COLUMNS) == np.inf
    assert num_states(codes_of(3, (2, 2))) == 81


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Column.nominal(1), "`size` to be an integer of at least 2, got 1"),
        (lambda: Column.ordinal(2.0), "`size` to be an integer of at least 2, got 2.0"),
        (lambda: Column.cyclic(2), "`size` to be an integer of at least 3, got 2"),
        (lambda: Column("numeric", 3), "a numeric column without `size`, got 3"),
        (lambda: Column("bits", 3), "`kind` to be one of"),
        (lambda: check_columns([]), "at least one column, got none"),
    ],
)
def test_wrong_columns(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("column", [3, "nominal", Column])
def test_no_columns(column):
    with pytest.raises(TypeError, match="Expected `columns`"):
        check_columns([column])
