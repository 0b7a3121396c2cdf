"""What `RunStream` and `Batch` share: an async generator by protocol, a class by build."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, NoReturn, Self, TypeVar

T_co = TypeVar("T_co", covariant=True)


class AsyncGeneratorBase(AsyncGenerator[T_co, None]):
    """An async generator whose steps are methods: nothing is suspended, and so nothing is lost, between two of them."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def asend(self, value: None) -> T_co:
        """Return the next item; nothing can be sent in."""
        if value is not None:
            raise TypeError(f"a {type(self).__name__} takes no values; iterate over it")
        return await self.__anext__()

    async def athrow(self, kind: Any, value: Any = None, traceback: Any = None) -> NoReturn:
        """Close, and raise the given exception."""
        await self.aclose()
        error = kind if isinstance(kind, BaseException) else value
        if not isinstance(error, BaseException):
            error = kind() if value is None else kind(value)
        raise error.with_traceback(traceback) if traceback else error
