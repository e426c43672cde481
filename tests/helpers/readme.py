"""Code of the README, run by the tests of either host."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "README.md").read_text()


def code(containing: str) -> str:
    """The block of Python code with this text in it."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


def numpyro_code(containing: str) -> str:
    """The same for NumPyro: a comment stands for its line, and the host's names for Pyro's."""
    lines = (
        re.sub(r"^( *)(?:\S.*)?# NumPyro: ", r"\1", line) for line in code(containing).splitlines()
    )
    return re.sub(r"\bpyro\.", "numpyro.", "\n".join(lines)).replace("torch.", "jnp.")


def short(containing: str) -> str:
    """A complete program, with few steps and draws."""
    program = code(containing)
    assert "500" in program
    assert "(500,)" in program
    return program.replace("(500,)", "(50,)").replace("500", "2")


def after_training(host: str) -> list[str]:
    """The calls after training with "Pyro" or "NumPyro", with short chains."""
    (calls,) = [part for part in code("After").split("# After") if f" with {host}" in part]
    lines = [line.split("#")[0].strip() for line in calls.splitlines()[1:]]
    return [line.replace("num_warmup", "num_samples=5, num_warmup") for line in lines if line]
