"""Notes on import errors that name the missing requirement."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


def require_extra(extra: str) -> AbstractContextManager[None]:
    """Add the name of an extra of this package to import errors inside the context.

    Example:
        >>> with require_extra("numpyro"):
        ...     import numpyro
    """
    return require(f"pyro-ebm[{extra}]")


@contextmanager
def require(requirement: str) -> Iterator[None]:
    """Add a note with the argument of ``pip install`` to import errors inside the context."""
    try:
        yield
    except ImportError as error:
        error.add_note(f"This part of pyro_ebm needs `pip install {requirement}`.")
        raise
