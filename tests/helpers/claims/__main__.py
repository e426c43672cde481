import io
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

from helpers.claims import of_tutorial


class _Copy(io.StringIO):
    """Output that is shown and kept."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)
        return super().write(text)


path = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(path.parent))
with redirect_stdout(_Copy()) as printed:
    variables = runpy.run_path(str(path))
run = SimpleNamespace(**variables, printed=printed.getvalue())
print("\nSentences that rest on a number:")
failures = []
for claim in of_tutorial(path):
    holds, text = claim.check(run)
    print(f"- {'' if holds else 'NOT TRUE: '}{text}", flush=True)
    failures += [] if holds else [text]
sys.exit(bool(failures))
