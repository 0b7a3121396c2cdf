"""What callers send: the bodies of the two POSTs that start runs, checked."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from .errors import invalid
from .options import LITE

_B = TypeVar("_B", bound=Struct)

_UUID: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

Uuid: TypeAlias = Annotated[str, Meta(pattern=_UUID)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=10_000)]
Name: TypeAlias = Annotated[str, Meta(max_length=80)]
Model: TypeAlias = Literal["origami-lite", "origami-max", "origami-fast", "origami-mid"]


class DocumentAttachment(Struct, frozen=True, tag="document", tag_field="kind", rename="camel"):
    """A document bound to the run."""

    document_id: Uuid


class TableAttachment(Struct, frozen=True, tag="table", tag_field="kind", rename="camel"):
    """A table merged into the focus."""

    table_id: Uuid


Attachments: TypeAlias = Annotated[list[DocumentAttachment | TableAttachment], Meta(max_length=20)]


class RunBody(Struct, frozen=True, kw_only=True, rename="camel"):
    """`SendRunRequest`; unknown fields are dropped (docs.origami.chat/api-v2-to-v3-migration)."""

    prompt: Text
    focus_table_ids: Annotated[list[Uuid], Meta(max_length=50)] = []
    attachments: Attachments = []
    model: Model | None = None

    @property
    def public_model(self) -> str | None:
        """The model asked for, by its present name."""
        return LITE if self.model in {"origami-fast", "origami-mid"} else self.model


class CreateBody(RunBody, frozen=True, kw_only=True, rename="camel"):
    """`CreateAgentRequest`."""

    name: Name | None = None
    workspace_id: Uuid | None = None


class InstructionsBody(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a campaign shall say; `settings` are in no description, and third-party clients send them."""

    instructions: Text
    settings: dict[str, bool] | None = None


def decode(kind: type[_B], content: bytes) -> _B:
    """Read a body, or refuse it with the place of what is wrong."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        message, _, place = str(error).partition(" - at ")
        path = re.sub(r"\[(\d+)\]", r".\1", place.strip("`").removeprefix("$")).lstrip(".")
        if missing := re.fullmatch(r"Object missing required field `(\w+)`", message):
            path = f"{path}.{missing[1]}".lstrip(".")
        raise invalid(path, message) from None


def is_uuid(text: str) -> bool:
    """Tell whether a text is the usual form of a UUID."""
    return re.match(_UUID, text) is not None
