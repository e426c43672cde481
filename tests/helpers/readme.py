"""Code of the README, run by the tests of either host."""

import re
from pathlib import Path


def code(containing: str) -> str:
    """The block of Python code with this text in it."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


def numpyro_code(containing: str) -> str:
    """The same for NumPyro, read as the README describes."""
    lines = (
        re.sub(r"^( *)(?:\S.*)?# NumPyro: ", r"\1", line) for line in code(containing).splitlines()
    )
    return re.sub(r"\bpyro\.", "numpyro.", "\n".join(lines)).replace("torch.", "jnp.")
