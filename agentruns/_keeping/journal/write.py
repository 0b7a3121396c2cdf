"""One operation on its way to the file and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from .records import Records

T = TypeVar("T")


class Write(Generic[T]):
    """
    One operation on its way: what it does, and what became of it.

    `standing` says what has and has not happened if it fails. The thread of the file sets `outcome` or `error`.
    """

    def __init__(self, act: Callable[[Records], T], standing: str) -> None:
        self.act = act
        self.standing = standing
        self.outcome: T | None = None
        self.error: Exception | None = None
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def tell(self) -> None:
        """Tell whoever still waits."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.outcome)
        else:
            self.future.set_exception(self.error)
