"""A function's parameters as JSON Schema, and JSON arguments as its parameters; both by msgspec."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace, UnionType, WrapperDescriptorType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from attrs import frozen

from agentruns._values.generic import Json

from ._values import codec
from ._values.run import Action
from .errors import ConfigurationError

_Kind: Final = inspect.Parameter
_Moment: Final = Annotated[datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]


@frozen
class Signature:
    """
    How to call a function with the arguments that a model gives.

    `positional` has the parameters that can only be given by position, in order, with their defaults.
    """

    description: str
    schema: Mapping[str, Json]
    arguments: type[msgspec.Struct]
    positional: Mapping[str, Any]

    def structure(self, arguments: Mapping[str, Json]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments as the type hints say; raise `msgspec.ValidationError`."""
        fitted = msgspec.convert(arguments, self.arguments, str_keys=True)
        fields = zip(self.arguments.__struct_encode_fields__, self.arguments.__struct_fields__, strict=True)
        given = {name: value for name, field in fields if (value := getattr(fitted, field)) is not msgspec.UNSET}
        return [given.pop(name, default) for name, default in self.positional.items()], given

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Signature | None:
        """
        Return the signature of *function*; None if it takes just an `Action`.

        What a `functools.partial` has bound is no parameter. Raise `ConfigurationError`, naming the parameter, where
        there is no JSON Schema for it.
        """
        parameters = _parameters(function, name)
        if [parameter.annotation for parameter in parameters] == [Action]:
            if parameters[0].kind is _Kind.KEYWORD_ONLY:
                raise ConfigurationError(
                    f"tool {name!r} takes its Action, {parameters[0].name!r}, by keyword only; let it come by position"
                )
            return None
        described, about = _documentation(function)
        arguments = _struct(parameters, about, name)
        return cls(
            described,
            _schema(arguments, parameters),
            arguments,
            {each.name: each.default for each in parameters if each.kind is _Kind.POSITIONAL_ONLY},
        )


def description(function: Callable[..., Any]) -> str:
    """Return the docstring of *function*: of what a partial calls, of the `__call__` of an object if it has one."""
    while isinstance(function, partial) and function.__doc__ == partial.__doc__:
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        own = type(function).__call__
        if own.__doc__ and not isinstance(own, WrapperDescriptorType):  # which every class in C has
            return inspect.cleandoc(own.__doc__)
    return inspect.getdoc(function) or ""


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """Return the parameters that a model may give, with their annotations evaluated."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the signature of tool {name!r} cannot be read ({error}); wrap it in a function with type hints"
        ) from error
    inner, bound = _underlying(function)
    parameters = [
        each.replace(annotation=_evaluated(each, inner, name))
        for each in signature.parameters.values()
        if each.name not in bound
    ]
    starred = [each for each in parameters if each.kind in {_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD}]
    if starred:
        raise ConfigurationError(
            f"tool {name!r} takes {starred[0]}, which has no JSON Schema; name each parameter, or register it with "
            "`@tools.default` to get the Action itself"
        )
    return parameters


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
    lone = SimpleNamespace(
        __annotations__={"it": parameter.annotation}, __type_params__=getattr(inner, "__type_params__", ())
    )
    try:
        return get_type_hints(lone, globalns=dict(seen), include_extras=True)["it"]
    except Exception as error:  # an annotation may be any code
        raise ConfigurationError(
            f"the type of parameter {parameter.name!r} of tool {name!r}, {parameter.annotation!r}, cannot be read "
            f"({error}); define it where the function's module can see it"
        ) from error


def _struct(parameters: list[inspect.Parameter], about: Mapping[str, str], name: str) -> type[msgspec.Struct]:
    """
    Return a struct with a field per parameter; one that is left out stays unset, so the function's default holds.

    The fields have names of ours, since not every parameter's name can be a field's.
    """
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for number, each in enumerate(parameters):
        kind = _with_format(each.annotation)
        if each.name in about:
            kind = Annotated[kind, msgspec.Meta(description=about[each.name])]
        try:
            msgspec.json.schema(kind)
        except (TypeError, NameError, ValueError) as error:
            raise ConfigurationError(
                f"parameter {each.name!r} of tool {name!r} has the type {each.annotation!r}, for which there is no "
                "JSON Schema. Use str, int, float, bool, None, list, dict, Literal, enums, datetimes, attrs classes or "
                "unions of these"
            ) from error
        required = each.default is _Kind.empty
        field = f"field_{number}"
        fields.append((field, kind) if required else (field, kind | msgspec.UnsetType, msgspec.UNSET))
    rename = {f"field_{number}": each.name for number, each in enumerate(parameters)}
    return msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, kw_only=True, rename=rename)


def _with_format(kind: Any) -> Any:
    """Name the format of datetimes, which msgspec leaves out where they may lack an offset."""
    if kind is datetime:
        return _Moment
    inner = tuple(map(_with_format, get_args(kind)))
    if get_origin(kind) in {Union, UnionType}:
        return Union[inner]  # noqa: UP007 - known at run time only
    return list.__class_getitem__(inner) if get_origin(kind) is list else kind


def _schema(arguments: type[msgspec.Struct], parameters: list[inspect.Parameter]) -> Mapping[str, Json]:
    """Return the schema as one object with its definitions inside, defaults included where JSON can carry them."""
    whole = msgspec.json.schema(arguments)
    definitions: dict[str, Json] = whole.get("$defs", {})
    schema: dict[str, Json] = definitions.pop(whole["$ref"].rpartition("/")[2])
    schema.pop("title", None)
    for each in parameters:
        if each.default is not _Kind.empty:
            try:
                schema["properties"][each.name]["default"] = codec.to_jsonable(each.default, each.name)
            except ConfigurationError:
                continue
    return {**schema, "$defs": definitions} if definitions else schema


def _documentation(function: Callable[..., Any]) -> tuple[str, Mapping[str, str]]:
    """
    Return the tool's description, and one for each parameter that the docstring describes.

    Without docstring-parser (the extra `docstrings`) the whole docstring is the tool's description.
    """
    text = description(function)
    if not find_spec("docstring_parser"):
        return text, {}
    import docstring_parser

    parsed = docstring_parser.parse(text)
    about = {each.arg_name: each.description for each in parsed.params if each.description}
    return (parsed.description or text).strip() if about else text, about
