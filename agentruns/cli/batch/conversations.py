"""A conversation of its own for each row, where the vendor has conversations: Narrative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns.client import Client
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

_ALIAS: Final = "user"
_BESIDE: Final = frozenset({"name", "system_prompt"})


@frozen
class Conversations:
    """Create conversations as a file says: the fields of `narrative.Config`, a `name` and a `system_prompt`."""

    config: Any
    name: str | None = None
    system_prompt: str | None = None
    given: Any = None
    """What the file says, by which it is known whether it has changed."""

    @classmethod
    def read(cls, path: Path, tools: Tools | None) -> Conversations:
        """
        Read the file at *path*; *tools* are declared in it unless it declares some itself.

        Raise `ConfigurationError` for a file that describes no conversation.
        """
        from agentruns.dialects import narrative

        try:
            given = codec.decode(path.read_bytes())
        except (OSError, codec.CodecError) as error:
            raise ConfigurationError(f"--conversation {str(path)!r} cannot be read as JSON: {error}") from error
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"--conversation {str(path)!r} must hold a JSON object, the fields of a Config")
        known = {field.name for field in attrs.fields(narrative.Config)}
        unknown = sorted(set(given) - known - _BESIDE)
        if unknown:
            may = ", ".join(sorted(known | _BESIDE))
            raise ConfigurationError(f"--conversation {str(path)!r} has {', '.join(unknown)}; it may have {may}")
        fields = {"output_format_schema": narrative.TEXT_SCHEMA} | {name: given[name] for name in known & set(given)}
        try:
            config = codec.structure(fields, narrative.Config)
        except codec.CodecError as error:
            raise ConfigurationError(f"--conversation {str(path)!r} is not a Config: {error}") from error
        if tools is not None and config.client_tools is None and config.tools is None:
            config = attrs.evolve(config, client_tools=[narrative.client_tools(tools, alias=_ALIAS)])
        return cls(config, given.get("name"), given.get("system_prompt"), given)

    def columns_within(self, columns: Iterable[str]) -> list[str]:
        """Return the columns for which it has places that nothing fills: it is the same for every row."""
        texts = [text for text in (self.name, self.system_prompt) if text]
        return [column for column in columns if any(f"{{{column}}}" in text for text in texts)]

    def flow(self) -> Flow[Any]:
        """Return the flow that creates a conversation."""
        from agentruns.dialects import narrative

        return narrative.create_conversation(self.config, name=self.name, system_prompt=self.system_prompt)

    async def begin(self, client: Client, origin: Any) -> Any:
        """Create a conversation, and return *origin* as its first message."""
        created = await client.perform(self.flow())
        version = created.version if origin.expected_version is None else origin.expected_version
        return attrs.evolve(origin, conversation_id=created.id, expected_version=version)
