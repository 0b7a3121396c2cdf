"""A function's parameters as JSON Schema, and the arguments of a model as its parameters."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from attrs import frozen

from agentruns._values.generic import Json
from agentruns._values.run import Action
from agentruns.errors import ConfigurationError

from .classes import Part, parts_of_typed_dict
from .docstrings import description, documentation
from .metadata import is_field
from .reading_types import TypeReader, UnfitError
from .shapes import NOTHING, Described, Fields, Member

logger = logging.getLogger("agentruns")

_Kind: Final = inspect.Parameter
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KNOWN: Final = (
    "Use str, int, float, bool, None, list, dict, Literal, enums, datetimes, paths, attrs classes, dataclasses, "
    "TypedDict, NamedTuple, models of pydantic, or unions of these"
)


@frozen
class Signature:
    """
    How to call a function with the arguments that a model gives.

    `positional` has the parameters that can only be given by position, in order, with their defaults. `actions` are
    those that get the action itself, and `made` those whose default is made by pydantic's `Field`.
    """

    description: str
    schema: Mapping[str, Json]
    fields: Fields
    positional: Mapping[str, Any]
    actions: Collection[str] = ()
    made: Mapping[str, Callable[[], Any]] = {}

    def structure(
        self, arguments: Mapping[str, Json], action: Action | None = None, *, lenient: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments as the type hints say; raise `MisfitError`."""
        given = {name: make() for name, make in self.made.items() if name not in arguments}
        given |= self.fields.given(arguments, lenient)
        given |= dict.fromkeys(self.actions, action)
        return [given.pop(name, default) for name, default in self.positional.items()], given

    @classmethod
    def of(cls, function: Callable[..., Any], name: str, hidden: Collection[str] = ()) -> Signature | None:
        """
        Return the signature of *function*; None if it takes just an `Action`.

        What a `functools.partial` has bound, and what is *hidden*, is no parameter. Raise `ConfigurationError`, naming
        the parameter, where there is no JSON Schema for it.
        """
        _refuse_generators(function, name)
        parameters = _parameters(function, name)
        _refuse_hidden(parameters, hidden, name)
        actions = [each.name for each in parameters if _is_action(each.annotation)]
        if len(parameters) == len(actions) == 1 and parameters[0].kind is not _Kind.KEYWORD_ONLY:
            return None
        _refuse_forgotten(parameters, name)
        open_ones = [each for each in parameters if each.name not in actions and each.name not in hidden]
        names = [each.name for each in open_ones]
        described, about = documentation(description(function), names, [*actions, *hidden])
        reader = TypeReader(partial(_warn, name))
        fields = Fields(dict, {}, [_member(each, reader, about, name) for each in open_ones])
        definitions: Mapping[str, Json] = reader.definitions
        return cls(
            described,
            {**fields.schema, "$defs": definitions} if definitions else fields.schema,
            fields,
            {each.name: each.default for each in parameters if each.kind is _Kind.POSITIONAL_ONLY},
            actions,
            {each.name: _maker(each.default) for each in open_ones if is_field(each.default) and _has_default(each)},
        )


def check_name(name: str) -> None:
    """Refuse the name of a tool that hosts of models do not take."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name of tool {name!r} has what hosts of models do not take; use 1 to 64 of the letters a to z and A "
            "to Z, digits, _ and -: `tools.add(function, name=...)`"
        )


def check_default(function: Callable[..., Any]) -> None:
    """Refuse a default handler that does not take one action; let pass what hides its signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    inner, bound = _underlying(function)
    parameters = [each for each in signature.parameters.values() if each.name not in bound]
    first, *others = parameters or [inspect.Parameter("none", _Kind.KEYWORD_ONLY)]
    if (
        first.kind in {_Kind.KEYWORD_ONLY, _Kind.VAR_KEYWORD}
        or not _may_be_action(first, inner)
        or any(
            each.default is _Kind.empty and each.kind not in {_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD}
            for each in others
        )
    ):
        called = getattr(function, "__name__", "name")
        raise ConfigurationError(
            f"{function!r} cannot be the handler of all actions: it must take one argument, the Action, by position. "
            f"To answer actions of one name, pass a mapping: `tools={{{called!r}: {called}}}`"
        )


def _may_be_action(parameter: inspect.Parameter, inner: Any) -> bool:
    if isinstance(parameter.annotation, str) and parameter.annotation.rpartition(".")[2] == "Action":
        return True  # its module may import it for the type checker only
    kind = _evaluated(parameter, inner, "default")
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    branches = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return any(
        each is Any or isinstance(each, TypeVar) or (isinstance(each, type) and issubclass(Action, each))
        for each in branches
    )


def _is_action(kind: Any) -> bool:
    """Tell whether a parameter wants the action itself; it may be said to be optional, or have notes."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in {Union, UnionType}:
        return all(each is type(None) or _is_action(each) for each in get_args(kind))
    return kind is Action


def _refuse_generators(function: Callable[..., Any], name: str) -> None:
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(
            f"tool {name!r} is a generator, which gives no answer; return a list of what it yields"
        )
    if getattr(inner, "__globals__", None) is vars(contextlib):
        raise ConfigurationError(f"tool {name!r} is a context manager, which gives no answer; return what it is about")


def _refuse_hidden(parameters: list[inspect.Parameter], hidden: Collection[str], name: str) -> None:
    if isinstance(hidden, str):
        raise ConfigurationError(f"hidden of tool {name!r} is {hidden!r}; it must be a list of names of parameters")
    defaults = {each.name for each in parameters if each.default is not _Kind.empty}
    for each in hidden:
        if each not in defaults:
            raise ConfigurationError(
                f"parameter {each!r} of tool {name!r} cannot be hidden: there is no such parameter with a default"
            )


def _refuse_forgotten(parameters: list[inspect.Parameter], name: str) -> None:
    """Refuse one that is called `action` and says no more: it would be an argument that no model gives."""
    if len(parameters) == 1 and parameters[0].name == "action" and parameters[0].annotation is Any:
        raise ConfigurationError(
            f"parameter 'action' of tool {name!r} has no type; write `action: Action` to get the action itself, or the "
            "type of the argument"
        )


def _warn(tool: str, note: Any) -> None:
    logger.warning("tool %r: %s in `Annotated` is not understood, and has no effect", tool, type(note).__qualname__)


def _member(each: inspect.Parameter, reader: TypeReader, about: Mapping[str, str], tool: str) -> Member:
    """Return a parameter as a member of the arguments."""
    kind, default = each.annotation, NOTHING if each.default is _Kind.empty else each.default
    if is_field(default):
        kind, default = Annotated[kind, default], default.default if _has_default(each) else NOTHING
        default = NOTHING if type(default).__name__ == "PydanticUndefinedType" else default
    try:
        member = reader.member(Part(each.name, each.name, kind, not _has_default(each), default))
        if each.name in about and "description" not in member.shape.schema:
            member = Member(
                each.name,
                Described(member.shape, {"description": about[each.name]}),
                member.required,
                each.name,
                default,
            )
        msgspec.json.encode(member.shape.schema)
    except (UnfitError, TypeError, NameError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"parameter {each.name!r} of tool {tool!r} has the type {each.annotation!r}, for which there is no "
            f"JSON Schema. {_KNOWN} ({error})"
        ) from error
    return member


def _has_default(parameter: inspect.Parameter) -> bool:
    if is_field(parameter.default):
        return not parameter.default.is_required()
    return parameter.default is not _Kind.empty


def _maker(field: Any) -> Callable[[], Any]:
    """Return what makes the value that pydantic's `Field(...)` stands for."""
    return lambda: field.get_default(call_default_factory=True)


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """Return the parameters that a model may give, with their annotations evaluated."""
    try:
        signature = _signature(function)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigurationError(
            f"the signature of tool {name!r} cannot be read ({error}); wrap it in a function with type hints"
        ) from error
    inner, bound = _underlying(function)
    parameters: list[inspect.Parameter] = []
    for each in signature.parameters.values():
        if each.name in bound:
            continue
        kind = _evaluated(each, inner, name)
        if each.kind is _Kind.VAR_KEYWORD and getattr(get_origin(kind), "__name__", "") == "Unpack":
            parameters += _unpacked(get_args(kind)[0])
        else:
            parameters.append(each.replace(annotation=kind))
    starred = [each for each in parameters if each.kind in {_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD}]
    if starred:
        raise ConfigurationError(
            f"tool {name!r} takes {starred[0]}, which has no JSON Schema; name each parameter, or register it with "
            "`@tools.default` to get the Action itself"
        )
    return parameters


def _unpacked(kind: Any) -> list[inspect.Parameter]:
    """Return the parameters that `**rest: Unpack[...]` of a TypedDict stands for."""
    return [
        inspect.Parameter(
            each.name, _Kind.KEYWORD_ONLY, annotation=each.kind, default=_Kind.empty if each.required else NOTHING
        )
        for each in parts_of_typed_dict(kind)
    ]


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; what annotations name need not be there yet, on 3.14 as before."""
    if sys.version_info >= (3, 14):
        lazily: Any = importlib.import_module("annotationlib")
        return inspect.signature(function, annotation_format=lazily.Format.FORWARDREF)
    return inspect.signature(function)


def _underlying(function: Any) -> tuple[Any, set[str]]:
    """Return what is called in the end, behind wrappers and partials, and the names that the partials have bound."""
    bound: set[str] = set()
    while True:
        if isinstance(function, partial):
            bound.update(function.keywords)
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function) or inspect.isclass(function):
            return function, bound
        else:
            function = type(function).__call__


def _evaluated(parameter: inspect.Parameter, inner: Any, name: str) -> Any:
    """Return the type that a parameter is annotated with, as *inner*, the function or class, can see it."""
    if parameter.annotation is _Kind.empty:
        return Any
    seen = getattr(inner, "__globals__", None) or vars(sys.modules.get(inner.__module__, object))
    variables = {each.__name__: each for each in getattr(inner, "__type_params__", ())}
    lone = SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return get_type_hints(lone, globalns=dict(seen), localns=variables, include_extras=True)["it"]
    except Exception as error:  # an annotation may be any code
        if "is not valid as type argument" in str(error) and not isinstance(parameter.annotation, str):
            return parameter.annotation  # such as `Final[int]`
        raise ConfigurationError(
            f"the type of parameter {parameter.name!r} of tool {name!r}, {parameter.annotation!r}, cannot be read "
            f"({error}); define it where the function's module can see it"
        ) from error
