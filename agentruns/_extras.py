"""The optional dependencies of this package, by the names of the extras that install them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ._values.base import ConfigurationError


@contextmanager
def require(extra: str, what: str) -> Iterator[None]:
    """
    Import what an extra installs within this context.

    Raise `ConfigurationError` where it is not installed: *what*, such as "a journal needs", begins its text, and the
    command that installs the *extra* ends it.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"{what} more than the core ({error}): run `pip install 'agentruns[{extra}]'`"
        ) from error
