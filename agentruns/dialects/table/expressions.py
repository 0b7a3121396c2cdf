"""Where something stands in an answer: an expression of JMESPath, checked when the table is read."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from attrs import field, frozen

from agentruns._extras import require
from agentruns._values import codec
from agentruns._values.exchange import Response
from agentruns.errors import ProtocolError

from .source import Section

_SHOWN: Final = 80


@frozen
class Expression:
    """One expression, and the key of the table that has it."""

    text: str
    key: str
    _compiled: Any = field(repr=False, eq=False)

    @classmethod
    def of(cls, section: Section, name: str, default: str | None = None) -> Expression | None:
        """Return the expression *name* of a section; None where there is none."""
        text: str | None = section.text(name, default)
        if text is None:
            return None
        jmespath = _library()
        try:
            compiled = jmespath.compile(text)
        except jmespath.exceptions.JMESPathError as error:
            at = getattr(error, "lex_position", None)
            at = len(text) if at is None else min(max(at, 0), len(text))
            section.wrong(name, f"it is no JMESPath: `{text[:at]}^{text[at:]}` ({_reason(error)}; `^` marks the place)")
        return cls(text, ".".join((*section.key, name)), compiled)

    @classmethod
    def needed(cls, section: Section, name: str) -> Expression:
        """Return the expression *name* of a section, which must be there."""
        found = cls.of(section, name)
        if found is None:
            section.wrong(name, "it is missing; it must be an expression of JMESPath")
        return found

    def find(self, value: Any, response: Response | None) -> Any:
        """Return what stands there, None for nothing; raise `ProtocolError` where the expression cannot be used."""
        try:
            return self._compiled.search(value, _options())
        except _library().exceptions.JMESPathError as error:
            raise self.misfit(response, _reason(error)) from error

    def find_or_none(self, value: Any) -> Any:
        """Return what stands there, None where the expression cannot be used."""
        try:
            return self.find(value, None)
        except ProtocolError:
            return None

    def misfit(self, response: Response | None, what: str) -> ProtocolError:
        """Return the error that names the expression and the request."""
        answer = "what was received" if response is None else f"the answer to {response.request.line}"
        place = f" @ $.{'.'.join(self.path)}" if self.path else ""
        return ProtocolError(f"{answer} does not fit `{self.key}` of the table, `{self.text}`: {what}{place}", response)

    def name(self, value: Any, response: Response | None) -> str:
        """Return an id: a text, or a whole number as text; raise `ProtocolError` for anything else."""
        found = self.find(value, response)
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        return str(self._as(found, str, "a text", response))

    def words(self, value: Any, response: Response | None) -> str:
        """Return a text; raise `ProtocolError` for anything else."""
        return str(self._as(self.find(value, response), str, "a text", response))

    def items(self, value: Any, response: Response | None) -> list[Any]:
        """Return a list; raise `ProtocolError` for anything else."""
        found: list[Any] = self._as(self.find(value, response), list, "a list", response)
        return found

    def _as(self, found: Any, kind: type[Any], what: str, response: Response | None) -> Any:
        if not isinstance(found, kind):
            shown = repr(found)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
            raise self.misfit(response, f"it gives {shown}, and must give {what}")
        return found

    @property
    def path(self) -> tuple[str, ...] | None:
        """Return the keys of an expression that is nothing but names with dots between, `@` being none; else None."""
        names = () if self.text == "@" else tuple(self.text.split("."))
        return names if all(name.isidentifier() for name in names) else None


@cache
def _library() -> Any:
    with require("tables", "a table needs"):
        import jmespath
    return jmespath


@cache
def _options() -> Any:
    """Return the functions of JMESPath, and `from_json(text)`: some vendors put JSON into a text."""
    from jmespath import Options, functions

    class Functions(functions.Functions):
        @functions.signature({"types": ["string", "null"]})
        def _func_from_json(self, text: str | None) -> Any:
            try:
                return None if text is None else codec.decode(text, received=True)
            except codec.CodecError:
                return None

    return Options(custom_functions=Functions())


def _reason(error: Exception) -> str:
    """Return the first line of an error of the library, which draws the expression below it."""
    return str(error).splitlines()[0].partition(": Parse error")[0].rstrip(":") or type(error).__name__
