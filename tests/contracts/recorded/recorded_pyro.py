"""The configurations that are recorded on Pyro, by name, and their numbers in ``pyro.json``.

Run: ``python tests/contracts/recorded/recorded_pyro.py`` to compare, ``--print`` or
``--write COMMIT`` for numbers.
"""

from pathlib import Path

import inference_pyro  # noqa: F401
import training_pyro  # noqa: F401
from host_pyro import CONFIGURATIONS
from recording import main as record

__all__ = ["CONFIGURATIONS", "PATH", "main"]

PATH = Path(__file__).with_name("pyro.json")
PACKAGES = "torch", "pyro-ppl", "numpy"


def main() -> None:
    record(CONFIGURATIONS, PACKAGES, PATH)


if __name__ == "__main__":
    main()
