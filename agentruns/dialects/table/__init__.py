"""
A vendor as data: a table in TOML says where things stand, and `load` makes a dialect of it.

`agentruns run ./kindo.toml --agent-id a1` needs no line of Python, nor do the other commands, and `connect` takes the
path as well. The expressions are of JMESPath: the extra `tables` installs what reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from agentruns.dialects.names import find
from agentruns.dialects.vendor import FUNCTIONS
from agentruns.errors import ConfigurationError

from .flows import Flows
from .rules import Rules
from .source import Source

__all__ = ["Table", "load"]

_MOST: Final = 1_000_000


class Table:
    """
    The dialect that a table makes: it has the names of `agentruns.dialects.Dialect`, and what else its vendor can do.

    It pickles with its text, so that it is the same where its file is not.
    """

    def __init__(self, made: Made) -> None:
        rules = Rules.of(Source.of(made.path, made.text))
        flows = Flows(rules)
        self.__dict__.update(rules.constants)
        if rules.parent is not None:
            self.PARENT, self.PARENT_FIELD = rules.parent.name, rules.parent.field
        self.Origin: Any = rules.origin
        self.GUESSES = rules.guesses
        self._made = made
        names = ["start", "fetch", "problem", "handler_names"]
        names += ["recover"] if not rules.start.request.idempotent else []
        names += ["resume"] if rules.resume is not None else []
        names += ["cancel"] if rules.cancel is not None else []
        names += ["page"] if rules.listing is not None else []
        names += ["list_parent"] if rules.listing is not None and rules.listing.current else []
        names += ["make_parent"] if rules.parent is not None and rules.parent.request is not None else []
        names += ["events"] if rules.events is not None else []
        names += ["times"] if any(rules.run.times) else []
        names += ["example"] if rules.example is not None else []
        functions = {**{name: _named(rules, name) for name in rules.functions}, **dict(made.functions)}
        if "fetch" not in functions and (rules.actions is None or rules.actions.request is None):
            names.append("parse_run")
        self.__dict__.update({name: getattr(flows, name) for name in names})
        self.__dict__.update(functions)
        rules.origin.TABLE = self

    def __getattr__(self, name: str) -> Any:  # what the table says is in the instance
        raise AttributeError(f"{self!r} has no {name!r}")

    def __repr__(self) -> str:
        return f"table.load({self.__dict__['_made'].path!r})"

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[Made]]:
        return _of, (self._made,)


@frozen
class Made:
    """What a table was made of."""

    path: str
    text: str
    functions: tuple[tuple[str, Callable[..., Any]], ...] = ()


_tables: Final[dict[Made, Table]] = {}


def load(path: str | PathLike[str], **functions: Callable[..., Any]) -> Table:
    """
    Return the dialect that the table at *path* makes.

    *functions* take the place of what the table says, by the names of a dialect: `resume=my_resume`, a function of
    `(run, outputs)` that is a flow. The same file with the same functions gives the same dialect. Raise
    `ConfigurationError` for a file that cannot be read, and, by line and key, for what is wrong in it.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            text = file.read(_MOST + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the table {place} cannot be read: {error}", field="dialect") from error
    if len(text) > _MOST:
        raise ConfigurationError(f"the table {place} has more than {_MOST} characters", field="dialect")
    for name, function in functions.items():
        if name not in FUNCTIONS or not callable(function):
            raise ConfigurationError(
                f"{name} is no function that a table may be given; there are {', '.join(FUNCTIONS)}", field=name
            )
    return _of(Made(str(place), text, tuple(sorted(functions.items()))))


def _of(made: Made) -> Table:
    known = _tables.get(made)
    if known is None:
        known = _tables[made] = Table(made)
    return known


def _named(rules: Rules, name: str) -> Any:
    place = rules.functions[name]
    found: Any = find(place, f"function {name} of the table {rules.name}") if ":" in place else None
    if not callable(found):
        raise ConfigurationError(
            f"`functions.{name}` of the table {rules.name} is {place!r}; it must be `module:function` or "
            "`file.py:function`",
            field="dialect",
        )
    return found
