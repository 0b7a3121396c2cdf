"""Drive a flow of a dialect without a loop, a client or a network: scripted answers in, requests and result out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

from attrs import field, frozen

from agentruns._api.flow import perform
from agentruns._api.retry import Retry
from agentruns._values import codec
from agentruns._values.commands import GRANTED, Command, Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.generic import Json
from agentruns.dialects import wire

T = TypeVar("T")

_ONCE: Final = Retry(attempts=1)


@frozen
class Answer:
    """One answer of a vendor: `body` is JSON, or bytes as they come."""

    body: Json | bytes = None
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)

    def response(self, request: Request) -> Response:
        """Return this as the answer to *request*."""
        body = self.body if isinstance(self.body, bytes) else codec.encode(self.body)
        return Response(self.status, {name.lower(): value for name, value in self.headers.items()}, body, request)


Scripted: TypeAlias = Answer | Exception | Callable[[Request], Answer]
"""An answer, an error in its place (`TransportError`), or a function of the request that makes the answer."""


@frozen
class Exchanged(Generic[T]):
    """What a flow returned, the requests that it made, and all that it yielded: sleeps and locks, too."""

    result: T
    requests: tuple[Request, ...]
    commands: tuple[Command, ...]


def exchange(flow: Flow[T], *answers: Scripted, problem: Callable[[Response], Problem] | None = None) -> Exchanged[T]:
    """
    Drive *flow* to its end, each request answered by the next of *answers*.

    What comes into the flow is what a client would let in that sends each request once: answers of 2xx, and for all
    else the error that the caller would get. *problem* is the dialect's function of that name, which reads error
    bodies. Locks, sleeps and checkpoints are granted at once, and a run that is claimed is the flow's own. Raise what
    the flow raises; `AssertionError` if it makes another number of requests than there are answers.
    """
    left = list(answers)
    commands: list[Command] = []
    reads = problem or _excerpt
    try:
        wanted = next(flow)
        while True:
            commands.append(wanted)
            if not isinstance(wanted, Request):
                wanted = flow.send(GRANTED)
                continue
            if not left:
                raise AssertionError(f"the flow asks for {wanted.line}, and no answer is left")
            try:
                response = _answered(wanted, left.pop(0), reads)
            except Exception as error:
                wanted = flow.throw(error)
            else:
                wanted = flow.send(response)
    except StopIteration as end:
        if left:
            raise AssertionError(f"the flow ended before {len(left)} of the answers were asked for") from None
        return Exchanged(end.value, tuple(each for each in commands if isinstance(each, Request)), tuple(commands))
    finally:
        flow.close()


def _answered(request: Request, answer: Scripted, problem: Callable[[Response], Problem]) -> Response:
    """Return what a client lets into a flow for that answer, or raise what it throws."""

    async def send(_: Request) -> Response:
        if isinstance(answer, Exception):
            raise answer
        made = answer if isinstance(answer, Answer) else answer(request)
        return made.response(request)

    performed = perform(_asking(request), send, problem, _ONCE)
    try:
        performed.send(None)
    except StopIteration as end:
        response: Response = end.value
        return response
    finally:
        performed.close()
    raise AssertionError("a request that is sent once does not wait")


def _asking(request: Request) -> Flow[Any]:
    return (yield request)


def _excerpt(response: Response) -> Problem:
    return Problem(wire.body_excerpt(response))
