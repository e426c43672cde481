"""Limits of the shape of the package; ``python tests/contracts/measure.py`` prints the figures."""

import ast

import pytest
from contracts.measure import (
    ROOT,
    Size,
    agreement,
    body_length,
    first_sentences,
    floors_of,
    imported_rooms,
    is_title,
    longest_body,
    longest_file,
    plan,
    python_files,
    split_tests,
)

PACKAGE = python_files(ROOT / "pyro_ebm")
TESTS, EVIDENCE = split_tests(ROOT)


def test_size_of_the_package():
    size = Size.of(PACKAGE)
    # What stands, with some room: 14,500 and 8,550 before energies were bound.
    assert size.physical <= 27_300
    assert size.code <= 16_550


@pytest.mark.parametrize(("files", "limit"), [(TESTS, 31_200), (EVIDENCE, 7_850)])
def test_size_of_the_tests(files, limit):
    # What stands, with some room, 1,600 lines of recorded numbers included.
    assert Size.of(files).physical <= limit


def test_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_longest_body_and_file():
    assert longest_body(PACKAGE)[0] <= 30
    assert longest_file(PACKAGE)[0] <= 300


@pytest.mark.parametrize("wing", ["pyro", "numpyro"])
def test_rooms_floors_and_arrows(wing):
    drawn = plan(ROOT, wing)
    assert len(drawn.arrows) <= 8
    assert drawn.num_floors <= 5
    assert drawn.num_arrows <= 20


def test_docstrings_are_not_written_twice():
    assert agreement(ROOT)[0] <= 0.25


def test_first_sentences_are_titles():
    assert first_sentences(PACKAGE) == []


# --- the measures themselves ---


def test_imports_are_found_in_every_form():
    source = """
import pyro_ebm.pyro.optim
from pyro_ebm.pyro import infer
from pyro_ebm.pyro.samplers.run import run_chains
from pyro_ebm.core.samplers import settings
"""
    assert imported_rooms(source, "pyro_ebm.pyro") == {"optim", "infer", "samplers"}


def test_floors_and_circles():
    assert floors_of({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}
    with pytest.raises(ValueError, match=r"one among \['a', 'b'\]"):
        floors_of({"a": {"b"}, "b": {"a"}, "c": set()})


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Draw values from the base.", True),
        ("Draws of the base.", True),
        ("Its gradient.", True),
        ("What the base draws.", False),
        ("Keeps chains.", False),
        ("Draws the values.", False),
    ],
)
def test_titles(sentence, expected):
    assert is_title(sentence) == expected


def test_docstrings_are_no_part_of_a_body():
    (function,) = ast.parse('def f():\n    """Text.\n\n    More."""\n    x = 1\n    return x').body
    assert body_length(function) == 2
