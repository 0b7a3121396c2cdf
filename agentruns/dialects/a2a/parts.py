"""Content: what is sent as the parts of a message, and what the parts of an answer come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import asdict

from agentruns._values import codec
from agentruns._values.generic import Json
from agentruns.errors import ConfigurationError

from .objects import Part

_CONTENT: Final = ("text", "data", "url", "raw")


def parts_of(value: Any, name: str) -> tuple[Mapping[str, Json], ...]:
    """
    Return parts as the wire has them: of a text, of a part, or of a sequence of texts and parts.

    A part is a `Part`, or a mapping with one of `text`, `data`, `url` and `raw`. Raise `ConfigurationError`, which
    calls the value *name*, for anything else.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and value:
        return tuple(_part(each, f"{name}[{place}]") for place, each in enumerate(value))
    return (_part(value, name),)


def _part(value: Any, name: str) -> Mapping[str, Json]:
    if isinstance(value, str) and value:
        return {"text": value}
    if is_part(value):
        return {codec.camel(key): each for key, each in _plain(value).items() if each is not None}
    raise ConfigurationError(
        f"{name} is {value!r:.100}; it must be a text that is not empty, or a part: a mapping with one of "
        f"{', '.join(_CONTENT)}",
        field=name,
    )


def is_part(value: Any) -> bool:
    """Tell whether a value is a part: a `Part`, or as the wire has it."""
    plain = _plain(value)
    return isinstance(plain, Mapping) and sum(plain.get(key) is not None for key in _CONTENT) == 1


def _plain(value: Any) -> Any:
    return asdict(value, recurse=False) if isinstance(value, Part) else value


def answer_parts(output: Any) -> tuple[Mapping[str, Json], ...]:
    """Return an answer as parts: texts and parts as they are, any other JSON as one part of data."""
    are_parts = isinstance(output, list | tuple) and output and all(is_part(each) for each in output)
    if (isinstance(output, str) and output) or is_part(output) or are_parts:
        return parts_of(output, "ToolOutput.output")
    return ({"data": output},)


def value_of(groups: Sequence[Sequence[Mapping[str, Json]]], between: str = "") -> Json:
    """
    Return what groups of parts come to, one group for each artifact or message; None where there is no part.

    Parts that are all text are one text, a line for each group and *between* within it. The value of a single part of
    data is that value. Anything else is the list of the parts, without what is empty in them.
    """
    told = [[filled(part) for part in group] for group in groups if group]
    parts = [part for group in told for part in group]
    if not parts:
        return None
    if all(isinstance(part.get("text"), str) for part in parts):
        return "\n".join(between.join(part["text"] for part in group) for group in told)
    if len(parts) == 1 and "data" in parts[0]:
        return parts[0]["data"]
    return parts


def text_of(parts: Sequence[Mapping[str, Json]]) -> str:
    """Return the texts among parts, a line each."""
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str) and part["text"])


def filled(part: Mapping[str, Json]) -> dict[str, Json]:
    """Return a part without what is empty: a list of tasks has that, and a task that is read by itself has not."""
    return {key: each for key, each in part.items() if each not in ("", None) or key == "data"} or {"text": ""}
