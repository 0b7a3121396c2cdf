"""A vendor by script, for `connect(..., transport=)`: its answers are written down, what it was asked is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agentruns._values.exchange import Request, Response

from .driving import Answer, Scripted


class ScriptedTransport:
    """
    Answer requests by their line (`"GET /runs/7"`), each line's answers in order, and the last one for ever.

    An answer is an `Answer`, a function of the request that makes one, or an exception that is raised in its place:
    `TransportError(request, "reset")` for one that got lost. A line that is not in the *script* is an `AssertionError`.
    `asked` has every request, in order.
    """

    def __init__(self, script: Mapping[str, Scripted | Iterable[Scripted]]) -> None:
        self._left: Final[dict[str, list[Scripted]]] = {
            line: [answers] if isinstance(answers, Answer | Exception) or callable(answers) else list(answers)
            for line, answers in script.items()
        }
        empty = [line for line, answers in self._left.items() if not answers]
        if empty:
            raise ValueError(f"the script has no answer for {', '.join(empty)}")
        self.asked: Final[list[Request]] = []

    def __repr__(self) -> str:
        return f"ScriptedTransport({', '.join(map(repr, self._left))})"

    @property
    def lines(self) -> list[str]:
        """Return method and path of every request, in order."""
        return [request.line for request in self.asked]

    async def __call__(self, request: Request) -> Response:
        """Return the next answer to *request*."""
        self.asked.append(request)
        answers = self._left.get(request.line)
        if answers is None:
            raise AssertionError(f"the script has no answer to {request.line}; it has {', '.join(self._left)}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return (answer if isinstance(answer, Answer) else answer(request)).response(request)
