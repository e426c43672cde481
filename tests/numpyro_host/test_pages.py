import pytest
from helpers import pages


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("page", pages.pages())
def test_the_code_of_a_page_runs(page):
    pages.run(page, "numpyro")
