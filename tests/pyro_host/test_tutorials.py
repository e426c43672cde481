import pytest
from helpers import tutorials


@pytest.mark.parametrize("tutorial", tutorials.of_host("pyro"), ids=lambda path: path.stem)
def test_tutorial_runs(tutorial, tmp_path):
    tutorials.check_run(tutorial, tmp_path)
