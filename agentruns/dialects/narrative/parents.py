"""A conversation from a file: what commands make for a run, or for each row of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve, fields

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.generic import Json
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

from .config import TEXT_SCHEMA, Config, client_tools
from .conversations import create_conversation

PARENT_FIELD: Final = "conversation_id"

_ALIAS: Final = "user"
_BESIDE: Final = ("name", "system_prompt")


def make_parent(given: Mapping[str, Json], tools: Tools | None) -> Flow[Mapping[str, Json]]:
    """
    Take the fields of `narrative.Config` (model, data_plane_id, max_iterations, ...), name and system_prompt.

    Without an `output_format_schema` the conversation answers in plain text. *tools* are declared in it under the alias
    "user", unless it declares some itself. Raise `ConfigurationError` for fields that do not fit.
    """
    known = [field.name for field in fields(Config)]
    unknown = sorted(set(given) - {*known, *_BESIDE})
    if unknown:
        raise ConfigurationError(f"it has {', '.join(unknown)}; it may have {', '.join(sorted((*known, *_BESIDE)))}")
    try:
        config = codec.structure(
            {"output_format_schema": TEXT_SCHEMA} | {name: given[name] for name in known if name in given}, Config
        )
    except codec.CodecError as error:
        raise ConfigurationError(f"it is not a Config: {error}") from error
    if tools is not None and config.client_tools is None and config.tools is None:
        config = evolve(config, client_tools=[client_tools(tools, alias=_ALIAS)])
    name, system_prompt = (given.get(each) for each in _BESIDE)
    created = yield from create_conversation(config, name=name, system_prompt=system_prompt)
    return {PARENT_FIELD: created.id, "expected_version": created.version}
