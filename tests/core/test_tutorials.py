import re

import pytest
from helpers import claims, tutorials


def test_twins_have_the_same_cells():
    for host, twin in (("pyro", "numpyro"), ("numpyro", "pyro")):
        for tutorial in tutorials.of_host(host):
            other = tutorial.with_name(tutorial.name.replace(f"_{host}.py", f"_{twin}.py"))
            assert tutorials.outline(tutorial) == tutorials.outline(other), tutorial.stem


@pytest.mark.parametrize("tutorial", [*tutorials.of_host("pyro"), *tutorials.of_host("numpyro")])
def test_claims_are_in_the_text(tutorial):
    text = claims.prose(tutorial)
    assert [c.words for c in claims.of_tutorial(tutorial) if c.words not in text] == []


# Numbers that are neither in the code of a page nor in its claims.
OTHERS = {
    "01_first_energy": {0.5: "times the squared distance, as the 50 of tutorial 4"},
    "03_draws_and_log_z": {1.01: "the usual bound of R-hat", 30: "percent", 50: "percent"},
    "06_bracket_closes": {12: "a half, in TeX"},
    "07_divergences": {2020: "year of the paper", 2003.03463: "the paper on arXiv"},
    "10_learned_likelihood": {48: "groups of the experiment `hierarchy`"},
    "11_tables_and_bits": {512: "two to the power of nine"},
}


@pytest.mark.parametrize("tutorial", tutorials.of_host("pyro"))
def test_numbers_in_the_text_have_a_source(tutorial):
    """The code of the page, or a claim that its full run is held to."""
    words = " ".join(claim.words for claim in claims.of_tutorial(tutorial))
    known = numbers(claims.code(tutorial)) | numbers(words) | {1, 2}
    others = OTHERS.get(tutorial.stem.removesuffix("_pyro"), {})
    assert numbers(claims.prose(tutorial)) - known == others.keys()


def numbers(text):
    text = re.sub(r"(?<=\d)[,_](?=\d{3})", "", text)
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
