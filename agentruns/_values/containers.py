"""Lists and objects of JSON as the types of Python, strictly: cattrs would take a text apart, and make `{}` of `[]`."""

from __future__ import annotations

from collections import abc, deque
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

if TYPE_CHECKING:
    import cattrs

MOST_TOLD: Final = 10
"""How many misfits of one value are told."""

_ARRAYS: Final[Mapping[Any, type]] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    deque: deque,
    abc.Sequence: tuple,
    abc.MutableSequence: list,
    abc.Set: frozenset,
    abc.MutableSet: set,
    abc.Iterable: tuple,
    abc.Collection: tuple,
}
_OBJECTS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})


def is_array(kind: Any) -> bool:
    """Tell whether a type is one of those that lists become, with or without the type of their items."""
    return _base(kind) in _ARRAYS


def array_hook(kind: Any, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Structure each item, and give up after a few that do not fit: a list may be long."""
    base, inner = _base(kind), get_args(kind)
    if base is tuple and inner and inner[1:] != (...,):
        return _fixed_hook(inner, made)
    gather, item = _ARRAYS[base], (inner or (Any,))[0]

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError(f"expected array, got {json_name(value)}")
        structure = made.get_structure_hook(item)  # found late: a class may contain itself
        if not made.detailed_validation:
            return gather([structure(each, item) for each in value])
        return gather(_items(value, [(structure, item)] * len(value)))

    return hook


def _fixed_hook(kinds: Sequence[Any], made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Structure an array whose items each have a type of their own."""
    kinds = () if kinds == ((),) else kinds

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError(f"expected array, got {json_name(value)}")
        if len(value) != len(kinds):
            raise TypeError(f"expected array of {len(kinds)}, got one of {len(value)}")
        return tuple(_items(value, [(made.get_structure_hook(each), each) for each in kinds]))

    return hook


def is_object(kind: Any) -> bool:
    """Tell whether a type is one of those that objects become as they are."""
    return _base(kind) in _OBJECTS


def object_hook(kind: Any, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Pass a free-form object through as it is; of others, structure each key and each value."""
    names, values = get_args(kind) or (Any, Any)
    if names in {Any, str} and values is Any:
        return _free_object

    def hook(value: Any, _: Any) -> Any:
        _free_object(value, kind)
        read_name, read = made.get_structure_hook(names), made.get_structure_hook(values)
        keys = [read_name(each, names) for each in value]
        if not made.detailed_validation:
            return dict(zip(keys, [read(each, values) for each in value.values()], strict=True))
        read_values = _items(list(value.values()), [(read, values)] * len(value), list(value))
        return dict(zip(keys, read_values, strict=True))

    return hook


def _free_object(value: Any, _: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"expected object, got {json_name(value)}")
    return value


def _items(
    value: Sequence[Any], hooks: Sequence[tuple[Callable[[Any, Any], Any], Any]], places: Sequence[Any] = ()
) -> Sequence[Any]:
    """Structure each item; an error says, in the way of cattrs, at which index or under which of *places* it is."""
    from cattrs import IterableValidationError, IterableValidationNote

    items, errors = [], []
    for place, (each, (structure, kind)) in enumerate(zip(value, hooks, strict=True)):
        try:
            items.append(structure(each, kind))
        except Exception as error:
            at = places[place] if places else place
            error.add_note(IterableValidationNote(f"structuring item {at}", at, kind))
            errors.append(error)
            if len(errors) > MOST_TOLD:
                break
    if errors:
        raise IterableValidationError("some items do not fit", errors, list)  # pyright: ignore[reportCallIssue]
    return items


def _base(kind: Any) -> Any:
    return get_origin(kind) or kind


def json_name(value: Any) -> str:
    """Name a JSON value's type as JSON does."""
    names: Sequence[tuple[type | tuple[type, ...], str]] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (Mapping, "object"),
        (list, "array"),
        (NoneType, "null"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)
