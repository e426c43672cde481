"""The README's code, so that the tests of either host can run it."""

import re
from pathlib import Path


def code(containing: str) -> str:
    """The block of Python code with this text in it."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block
