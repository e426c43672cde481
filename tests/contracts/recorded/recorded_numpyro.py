"""The configurations that are recorded on NumPyro, by name, and their numbers in ``numpyro.json``.

Run: ``python tests/contracts/recorded/recorded_numpyro.py`` to compare, ``--print`` or
``--write COMMIT`` for numbers.
"""

from pathlib import Path

import inference_numpyro  # noqa: F401
import training_numpyro  # noqa: F401
from host_numpyro import CONFIGURATIONS
from recording import main as record

__all__ = ["CONFIGURATIONS", "PATH", "main"]

PATH = Path(__file__).with_name("numpyro.json")
PACKAGES = "jax", "jaxlib", "numpyro", "equinox", "optax", "numpy"


def main() -> None:
    record(CONFIGURATIONS, PACKAGES, PATH)


if __name__ == "__main__":
    main()
