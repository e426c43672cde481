"""What to install when an optional dependency is missing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


def require_extra(extra: str) -> AbstractContextManager[None]:
    """Makes a failing import inside the block name the extra of this package that fixes it.

    Args:
        extra: Name of the extra, as in `pip install pyro-ebm[extra]`.

    Returns:
        A context manager to import under.

    Raises:
        ImportError: On leaving the block, the import's own error with a note added.

    Example:
        >>> with require_extra("numpyro"):
        ...     import numpyro
    """
    return require(f"pyro-ebm[{extra}]")


@contextmanager
def require(requirement: str) -> Iterator[None]:
    """Makes a failing import inside the block name the requirement to install.

    Args:
        requirement: What `pip install` should be given.

    Yields:
        Nothing.

    Raises:
        ImportError: The import's own error with a note added.
    """
    try:
        yield
    except ImportError as error:
        error.add_note(f"This part of pyro_ebm needs `pip install {requirement}`.")
        raise
