"""The class of what starts a run, made from the fields of a table."""

from __future__ import annotations

import copyreg
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import attrs

from agentruns._values import check
from agentruns._values.minted import MINTED, MINTED_LABEL
from agentruns.errors import ConfigurationError

from .source import Section

_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "text": (str, "a text"),
    "integer": (int, "a whole number"),
    "number": (float, "a number"),
    "boolean": (bool, "true or false"),
    "list": (list, "a list"),
    "object": (dict, "an object"),
    "id": (str, "a text"),
}
_HINTS: Final[Mapping[str, Any]] = {"list": list[Any], "object": dict[str, Any]}


class OriginType(type):
    """The class of the classes that tables make: pickles name them by their table, which no module has."""

    TABLE: Any = None


class TableOrigin(metaclass=OriginType):
    """The base of what starts a run of a table; it pickles by its table, also where classes are pickled by value."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, dict[str, Any]]]:
        fields = attrs.fields(cast("Any", type(self)))
        return _remade, (type(self).TABLE, {each.name: getattr(self, each.name) for each in fields})


def _reduced(kind: OriginType) -> tuple[Callable[[Any], Any], tuple[Any]] | str:
    return (_origin_of, (kind.TABLE,)) if kind.TABLE is not None else kind.__qualname__


def _remade(table: Any, fields: Mapping[str, Any]) -> Any:
    return table.Origin(**fields)


def _origin_of(table: Any) -> Any:
    return table.Origin


copyreg.pickle(OriginType, cast("Any", _reduced))


def make(section: Section, *, repeats: bool) -> type[Any]:
    """
    Return the class that `[origin]` describes.

    A field of the type "id" is a text that is new for each value. Only where the vendor knows a repeated start by it
    (*repeats*) other machines derive one and start again.
    """
    name = section.text("name", "Origin")
    if not name.isidentifier():
        section.wrong("name", f"it is {name!r}; it must be the name of a class, such as `Task`")
    told = section.text("help", "What starts a run.")
    fields = section.section("fields", needed=True)
    assert fields is not None
    made: dict[str, tuple[bool, Any]] = {}
    for each in fields.values:
        one = fields.section(each)
        assert one is not None
        if not each.isidentifier() or each.startswith("_"):
            one.wrong("", f"{each!r} must be a name of letters, digits and `_`")
        made[each] = _field(one, name, each, repeats=repeats)
    if not made:
        fields.wrong("", "there is no field; a run is started from one at least")
    section.done()
    ordered = {each: made[each][1] for each in sorted(made, key=lambda each: not made[each][0])}
    kind = attrs.make_class(name, ordered, bases=(TableOrigin,), frozen=True, slots=True)
    kind.__module__, kind.__doc__ = __name__, told
    return kind


def _field(section: Section, owner: str, name: str, *, repeats: bool) -> tuple[bool, Any]:
    kind = section.choice("type", _TYPES, "text")
    told = section.text("help", None)
    needed = section.flag("required", default=False)
    cls, what = _TYPES[kind]
    default: Any = None
    if section.has("default"):
        default = section.values["default"]
        if needed or kind == "id":
            section.wrong("default", "a field that is required, or an id, has no default")
        if not _fits(default, cls):
            section.wrong("default", f"it is {default!r}; it must be {what}")
    section.done()
    hint: Any = _HINTS.get(kind, cls)
    optional = not needed and default is None and kind != "id"
    if optional:
        hint = hint | None
    options: dict[str, Any] = {}
    if kind == "id":
        options["factory"] = _new_id
    elif isinstance(default, list | dict):
        options["factory"] = type(default) if not default else _copies(default)
    elif not needed:
        options["default"] = default

    def valid(_: object, __: object, value: Any) -> None:
        if value is None and optional:
            return
        if not _fits(value, cls) or (needed and value == ""):
            raise ConfigurationError(f"{owner}.{name} is {value!r}; it must be {what}", field=f"{owner}.{name}")
        if isinstance(value, str):
            check.utf8(f"{owner}.{name}", value)

    metadata: dict[str, Any] = {} if told is None else {"help": told}
    if kind == "id":
        metadata |= MINTED if repeats else MINTED_LABEL
    made = attrs.field(type=hint, validator=valid, hash=cls not in {list, dict}, metadata=metadata, **options)
    return needed, made


def _fits(value: Any, cls: type) -> bool:
    if isinstance(value, bool) and cls is not bool:
        return False
    return isinstance(value, int | float) if cls is float else isinstance(value, cls)


def _new_id() -> str:
    return str(uuid.uuid4())


def _copies(default: Any) -> Callable[[], Any]:
    return lambda: default.copy()
