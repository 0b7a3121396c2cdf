"""Docstrings: what is said of a tool, and what of each parameter; nothing is lost."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from types import WrapperDescriptorType
from typing import Any, Final

_SECTION: Final = re.compile(
    r"(?:Args|Arguments|Params|Parameters|Keyword Args|Keyword Arguments|Keyword Parameters|Other Parameters)(:?)\s*",
    re.IGNORECASE,
)
_FIELD: Final = re.compile(r"[:@](?:param|parameter|arg|argument|key|keyword|kwarg|type)\s+[^:]+:")
_TYPE: Final = re.compile(r"[:@]type\s+(\w+)\s*:")
_RULE: Final = re.compile(r"-{3,}\s*|={3,}\s*")


def description(function: Callable[..., Any]) -> str:
    """Return the docstring of *function*: of what a partial calls, of the `__call__` of an object if it has one."""
    while isinstance(function, partial) and function.__doc__ == partial.__doc__:
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        own = type(function).__call__
        if own.__doc__ and not isinstance(own, WrapperDescriptorType):  # which every class in C has
            return inspect.cleandoc(own.__doc__)
    return inspect.getdoc(function) or ""


def documentation(text: str, names: Collection[str], unseen: Collection[str]) -> tuple[str, Mapping[str, str]]:
    """
    Return the tool's description, and one for each parameter of *names* that the docstring *text* describes.

    The description is all else that the text says, but for *unseen* parameters, which a model does not give. It is the
    whole text where nothing else is said, or without docstring-parser (the extra `docstrings`).
    """
    if not find_spec("docstring_parser"):
        return text, {}
    lines = text.splitlines()
    if _is_flat_section(lines):
        lines[1:] = ["    " + line for line in lines[1:]]
    about: dict[str, str] = {}
    kept: list[str] = []
    for block, is_section in _blocks(lines):
        entries = _entries(block) if is_section else None
        if entries is None or not any(name in names or name in unseen for name, _ in entries):
            kept += block
            continue
        about |= {name: said for name, said in entries if name in names and said}
        others = [f"    {name}: {said}" for name, said in entries if name not in names and name not in unseen]
        kept += ["", "Args:", *others, ""] if others else [""]
    if not about:
        return text, {}
    rest = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    return rest or text.strip(), about


def _is_flat_section(lines: list[str]) -> bool:
    """Tell whether a section is all there is, so that its indent was taken for that of the whole."""
    if len(lines) < 2 or not _SECTION.fullmatch(lines[0].strip()):
        return False
    return not _RULE.fullmatch(lines[1].strip()) and not _indent(lines[1])


def _blocks(lines: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield the parts of a docstring in order, and whether each is about parameters."""
    place = 0
    while place < len(lines):
        line = lines[place]
        end = place + 1
        section = _SECTION.fullmatch(line.strip())
        if section and not section[1] and end < len(lines) and _RULE.fullmatch(lines[end].strip()):
            end = _end_of_ruled(lines, end + 1)
        elif section and section[1]:
            end = _end_of_indented(lines, place)
        elif _FIELD.match(line.strip()):
            section = _FIELD.match(line.strip())
            end = _end_of_indented(lines, place)
        else:
            section = None
        yield lines[place:end], section is not None
        place = end


def _end_of_indented(lines: list[str], place: int) -> int:
    """Return where the lines end that are indented more than the first one."""
    least, end = _indent(lines[place]), place + 1
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > least):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end


def _end_of_ruled(lines: list[str], place: int) -> int:
    """Return where the next section with a rule under its name begins."""
    while place < len(lines):
        if place + 1 < len(lines) and lines[place].strip() and _RULE.fullmatch(lines[place + 1].strip()):
            return place
        place += 1
    return place


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _entries(block: list[str]) -> list[tuple[str, str]] | None:
    """Return names and descriptions, by the parser; each of several names that stand together gets the whole."""
    import docstring_parser

    header, base = block[0].strip(), _indent(block[0])
    typed = _TYPE.match(header)
    if typed:
        return [(typed[1], "")]
    block = [line[base:] for line in block]
    if len(block) > 1 and _RULE.fullmatch(block[1].strip()):
        style, block = docstring_parser.DocstringStyle.NUMPYDOC, ["Parameters", "----------", *block[2:]]
    elif header.startswith("@"):
        style = docstring_parser.DocstringStyle.EPYDOC
    elif header.startswith(":"):
        style = docstring_parser.DocstringStyle.REST
    else:
        style, block = docstring_parser.DocstringStyle.GOOGLE, ["Args:", *block[1:]]
    try:  # a summary before it, without which some sections are not seen
        parsed = docstring_parser.parse("Summary.\n\n" + "\n".join(block), style)
    except docstring_parser.ParseError:
        return None
    return [
        (name.strip().lstrip("*"), (each.description or "").strip())
        for each in parsed.params
        for name in each.arg_name.split(",")
    ]
