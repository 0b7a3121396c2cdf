"""What starts a response, and what an answer to its calls repeats of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import Attribute, field, frozen
from attrs.validators import optional

from agentruns._values import check
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.run import Run
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools, ToolsLike

from .objects import ResponseDetail
from .reading import parse_run

_OURS: Final = frozenset({
    *("model", "input", "instructions", "tools", "previous_response_id", "metadata"),
    *("background", "store", "stream", "stream_options"),
})
"""What `extra` may not have: fields of `ResponseRequest`, and what makes a response one that is polled."""


def _is_input(_: object, __: object, value: Any) -> None:
    if not isinstance(value, str):
        _are_objects("ResponseRequest.input", value, "a text, or a list of items such as messages")


def _are_tools(_: object, __: object, value: Any) -> None:
    _are_objects("ResponseRequest.tools", value, "a list of tools: `openai_responses.function_tools(...)` makes one")


def _are_objects(name: str, value: Any, wanted: str) -> None:
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str | bytes)
        or not all(isinstance(each, Mapping) for each in value)
    ):
        raise ConfigurationError(f"{name} is {value!r}; it must be {wanted}", field=name)


def _is_metadata(owner: object, attribute: Attribute[Any], value: Any) -> None:
    if value is None:
        return
    check.is_object(owner, attribute, value)
    if not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise ConfigurationError(
            f"ResponseRequest.metadata is {value!r}; its names and values must be texts",
            field="ResponseRequest.metadata",
        )


def _is_instructions(_: object, attribute: Attribute[Any], value: Any) -> None:
    check.text_or_none(f"ResponseRequest.{attribute.name}", value)


def _is_extra(owner: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is None:
        return
    check.is_object(owner, attribute, value)
    taken = sorted(_OURS & set(value))
    if taken:
        raise ConfigurationError(
            f"ResponseRequest.extra has {', '.join(taken)}; a field of ResponseRequest says that, or nothing can: a "
            "response is made in the background and stored, so that it can be read until it is over",
            field="ResponseRequest.extra",
        )
    if "conversation" in value and owner.previous_response_id is not None:
        raise ConfigurationError(
            "ResponseRequest has previous_response_id, and a conversation in extra; the vendor takes one of them",
            field="ResponseRequest.extra",
        )


@frozen
class ResponseRequest:
    """
    One response of a *model* to an *input*: a text, or a list of items such as messages.

    - `tools` are objects as the vendor documents them; `function_tools` makes them of handlers.
    - `previous_response_id` goes on with the conversation that ended with that response, by its id.
    - `metadata` is at most 16 pairs of texts, which the vendor keeps with the response.
    - `extra` is what else the vendor takes: `{"reasoning": {"effort": "low"}, "max_output_tokens": 500}`.

    The answers to its calls repeat model, instructions, tools and extra: the vendor keeps the conversation, not these.
    """

    model: str = field(validator=check.not_empty, metadata={"help": "name of the model"})
    input: str | Sequence[Mapping[str, Json]] = field(
        validator=_is_input, metadata={"help": "what the model is asked, or a list of items such as messages"}
    )
    instructions: str | None = field(
        default=None, kw_only=True, validator=_is_instructions, metadata={"help": "instructions to the model"}
    )
    tools: Sequence[Mapping[str, Json]] = field(
        default=(),
        kw_only=True,
        validator=_are_tools,
        metadata={"help": "tools that the model may call, as the vendor documents them"},
    )
    previous_response_id: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.not_empty),
        metadata={"help": "id of the response to go on from"},
    )
    metadata: Mapping[str, str] | None = field(
        default=None,
        kw_only=True,
        validator=_is_metadata,
        metadata={"help": "up to 16 pairs of texts, kept with the response"},
    )
    extra: Mapping[str, Json] | None = field(
        default=None, kw_only=True, validator=_is_extra, metadata={"help": "what else the vendor takes"}
    )


def function_tools(tools: ToolsLike) -> tuple[Mapping[str, Json], ...]:
    """
    Return the handlers in *tools* as `ResponseRequest.tools`.

    They are not strict: their schemas may have optional arguments. Raise `ConfigurationError` where there is only a
    default handler, which has no name for a model to call.
    """
    known = Tools.of(tools)
    schemas = known.schemas()
    if not schemas and known.find(()) is not None:
        raise ConfigurationError(
            "there is only a default handler, which has no name and no parameters that a model could be told. Name "
            "what it may call: `tools.add(function)`, or {'name': function}"
        )
    return tuple(
        {
            "type": "function",
            "name": schema.name,
            "description": schema.description,
            "parameters": schema.input_schema,
            "strict": False,
        }
        for schema in schemas
    )


def start(origin: ResponseRequest) -> Flow[Run[ResponseDetail]]:
    """
    Make a response in the background (responses/create).

    It is posted once: no page promises that a key keeps a second post from making a second response, and no list tells
    whether the first arrived.
    """
    yield from wire.checkpoint({"path": "/responses"})
    body = body_of(origin) | {"input": origin.input}
    if origin.previous_response_id is not None:
        body["previous_response_id"] = origin.previous_response_id
    return parse_run((yield Request("POST", "/responses", json=body)))


def body_of(origin: ResponseRequest) -> dict[str, Json]:
    """Return what the start and each answer say alike."""
    said = {"model": origin.model, "instructions": origin.instructions, "metadata": origin.metadata}
    tools = {"tools": origin.tools} if origin.tools else {}
    return {**(origin.extra or {}), **wire.drop_none(said), **tools, "background": True, "store": True}
