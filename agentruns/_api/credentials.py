"""The token of one client: given, or asked for when it is first needed, kept, and asked for again after a 401."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen

from agentruns._values.auth import Auth, TokenSource
from agentruns._values.exchange import Request
from agentruns._values.secret import Secret
from agentruns.errors import AgentRunsError, ConfigurationError, TransportError

from .channel import BY_FUNCTION, CLOSED

Check = Callable[[Any], Secret]
"""What returns a token as it can be sent; raises `ConfigurationError`, without showing it, where it cannot."""


@frozen(eq=False, repr=False)
class Right:
    """A token on its way: what is sent for it, and what is made of it that must not be seen."""

    headers: Mapping[str, str]
    params: Mapping[str, str]
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, auth: Auth, token: Secret) -> Right:
        """Return how *auth* sends *token*; an empty one is not sent."""
        if not token:
            return cls({}, {}, ())
        return cls(auth.headers(token), auth.params(token), auth.secrets(token))


class Renewal:
    """
    Ask for tokens; whoever needs one while one is being asked for waits for that one.

    *take* is told of each token before it is used. A *source* that gives none within *seconds* is late.
    """

    def __init__(
        self, source: TokenSource, check: Check, auth: Auth, seconds: float, take: Callable[[Right], None]
    ) -> None:
        self._source: Final = source
        self._check: Final = check
        self._auth: Final = auth
        self._seconds: Final = seconds
        self._take: Final = take
        self._asking: asyncio.Task[Right] | None = None
        self._token: Secret | None = None
        self.right: Right | None = None

    async def after(self, refused: Right | None, request: Request) -> Right:
        """
        Return another right than the one that was *refused*; the same one if no other is to be had.

        Raise `TransportError`, as nothing was sent, where the source fails; what it raises of ours is raised as it is.
        """
        if self.right is not None and self.right is not refused:
            return self.right
        asking = self._asking
        if asking is None:
            asking = self._asking = asyncio.create_task(self._ask(), name="agentruns token")
            asking.add_done_callback(self._asked)
        await asyncio.wait([asking])
        if asking.cancelled():
            raise AgentRunsError(f"{CLOSED} while {request.line} was under way")
        error = asking.exception()
        if error is None:
            return asking.result()
        error = error.with_traceback(None)  # whose frames may hold what tokens are made of
        if isinstance(error, AgentRunsError):
            raise error
        late = isinstance(error, TimeoutError)
        said = f"no token within {self._seconds:g} s" if late else f"no token could be had ({type(error).__name__})"
        raise TransportError(request, said, sent=False, hint=BY_FUNCTION) from error

    def _asked(self, asking: asyncio.Task[Right]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # whoever waited has been told

    async def _ask(self) -> Right:
        async with asyncio.timeout(self._seconds):
            token = self._check(await self._given())
        if self.right is not None and token == self._token:
            return self.right
        self._token, right = token, Right.of(self._auth, token)
        self._take(right)
        self.right = right
        return right

    async def _given(self) -> object:
        call = getattr(self._source, "__call__", None)  # noqa: B004 - of an object, it may be what is async
        if inspect.iscoroutinefunction(self._source) or inspect.iscoroutinefunction(call):
            given: object = self._source()
        else:
            given = await asyncio.to_thread(lambda: _hidden(self._source()))  # it may read a file, or ask a server
        return _hidden(await given) if inspect.isawaitable(given) else _hidden(given)

    async def close(self) -> None:
        """Ask no more."""
        asking = self._asking
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])


def _hidden(given: object) -> object:
    """Return a text so that no report shows it: what asyncio logs in debug mode shows results."""
    return Secret(given) if isinstance(given, str) else given


def checked(given: Any, auth: Auth, vendor: str) -> Secret:
    """Return a token without the blanks around it; raise `ConfigurationError` for one that cannot be sent."""
    if not isinstance(given, str):
        raise ConfigurationError(
            f"token is of the type {type(given).__name__}; it must be a text, such as that in a variable, or a "
            "function that gives one",
            field="token",
        )
    token = Secret(given).strip()
    objection = auth.objection(token) if token else None
    if objection is not None:
        raise ConfigurationError(f"the token for {vendor} {objection}", field="token")
    return token
