"""What a handler returns, as the answer that is posted."""

from __future__ import annotations

from functools import partial
from typing import Any

from agentruns._values.jsonable import Writer, mended
from agentruns._values.large import written
from agentruns._values.run import Action, ToolOutput
from agentruns.errors import ToolError


async def answer_of(action: Action, returned: Any, what: str) -> ToolOutput:
    """
    Return the answer to *action*: what the handler *returned*, in plain JSON types.

    Of a `ToolOutput` its output and `is_error` count. Texts that UTF-8 cannot carry are mended. A large value is
    written in a thread. Raise `ConfigurationError`, naming *what* it is, for what JSON cannot carry.
    """
    is_error = False
    if isinstance(returned, ToolOutput):
        returned, is_error = returned.output, returned.is_error
    output = await written(partial(Writer(mend=True).write, returned, what))
    return ToolOutput(action, output, is_error)


def refusal_of(action: Action, error: ToolError) -> ToolOutput:
    """Return the answer that tells the model of an *error*."""
    return ToolOutput(action, mended(str(error)) or "the tool failed and gave no reason", is_error=True)
