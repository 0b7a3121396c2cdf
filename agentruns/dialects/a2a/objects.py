"""What an agent answers, field for field as A2A 1.0 has it (specification, section 4); JSON spells it in camel case."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from agentruns._values.codec import CamelCase
from agentruns._values.generic import Json


@frozen
class Part(CamelCase):
    """One piece of content: one of `text`, `data` (JSON), `url` and `raw` (bytes in Base64) is set."""

    text: str | None = None
    data: Any = None
    url: str | None = None
    raw: str | None = None
    filename: str | None = None
    media_type: str | None = None
    metadata: Mapping[str, Json] | None = None


@frozen
class Message(CamelCase):
    """What a user or an agent said; `role` is `ROLE_USER` or `ROLE_AGENT`."""

    message_id: str
    role: str = ""
    parts: tuple[Part, ...] = ()
    context_id: str | None = None
    task_id: str | None = None
    metadata: Mapping[str, Json] | None = None
    extensions: tuple[str, ...] = ()
    reference_task_ids: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the text parts, a line each."""
        return "\n".join(part.text for part in self.parts if part.text)


@frozen
class Artifact(CamelCase):
    """A result of a task."""

    artifact_id: str
    parts: tuple[Part, ...] = ()
    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, Json] | None = None
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the text parts as one: an agent that streams adds part to part."""
        return "".join(part.text for part in self.parts if part.text)


@frozen
class TaskStatus(CamelCase):
    """Where a task stands; `message` is what the agent asks or says of it."""

    state: str
    message: Message | None = None
    timestamp: datetime | None = None


@frozen
class Task(CamelCase):
    """
    A task.

    Of an agent that answered by a plain message, `id` is that of the message, which `status.message` is.
    """

    id: str
    status: TaskStatus
    context_id: str = ""
    artifacts: tuple[Artifact, ...] = ()
    history: tuple[Message, ...] = ()
    metadata: Mapping[str, Json] | None = None


@frozen
class PushConfig(CamelCase):
    """Where an agent sends what happens to a task; `token` comes with it, and tells you that it is the agent."""

    id: str
    url: str
    task_id: str = ""
    token: str | None = field(default=None, repr=False)
    authentication: Mapping[str, Json] | None = field(default=None, repr=False)


@frozen
class PushConfigs(CamelCase):
    """One page of them; `next_page_token` is empty on the last."""

    configs: tuple[PushConfig, ...] = ()
    next_page_token: str = ""


@frozen
class Interface(CamelCase):
    """A URL of an agent, and the binding that is spoken there."""

    url: str
    protocol_binding: str
    protocol_version: str = ""
    tenant: str = ""


@frozen
class Requirement(CamelCase):
    """Schemes by name, all of which are needed, each with its scopes."""

    schemes: Mapping[str, Any] = field(factory=dict)


@frozen
class AgentCard(CamelCase):
    """What an agent says of itself, as far as a client needs it."""

    name: str = ""
    description: str = ""
    version: str = ""
    supported_interfaces: tuple[Interface, ...] = ()
    capabilities: Mapping[str, Json] = field(factory=dict)
    security_schemes: Mapping[str, Any] = field(factory=dict)
    security_requirements: tuple[Requirement, ...] = ()
    skills: tuple[Mapping[str, Json], ...] = ()
