import pytest
from helpers import pages

# JAX compiles the others for minutes; `make pages` runs all.
QUICK = ["index.md", "how_to/save_and_resume.md"]


@pytest.mark.parametrize("page", QUICK)
def test_the_code_of_a_page_runs(page):
    pages.run(page, "numpyro")
