import pytest
from helpers import tutorials

# JAX compiles each for half a minute: every third one here, the others with Pyro alone; all of them
# by `make tutorials`.
TUTORIALS = tutorials.of_host("numpyro")[::3]


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(tutorial, tmp_path):
    tutorials.check_run(tutorial, tmp_path)
