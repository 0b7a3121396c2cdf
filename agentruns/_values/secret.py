"""A text that is not to be shown: a token, or the secret of a webhook."""

from __future__ import annotations

from typing import Final, NoReturn, SupportsIndex

HIDDEN: Final = "[token]"


class Secret(str):
    """
    A text that no `repr` shows, not even that of a traceback's local variables; nor is a part of it shown.

    `str(secret)` is the plain text. It does not pickle: a token is not to leave the process unseen.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:  # what reports locals may cut before it shows
        return Secret(super().__getitem__(key))

    def strip(self, chars: str | None = None, /) -> Secret:
        """Return it without the blanks, or *chars*, around it."""
        return Secret(super().strip(chars))

    def __add__(self, other: str) -> Secret:
        return Secret(super().__add__(other))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a secret is not pickled; read it from where it is kept, such as the environment")
