"""A function's parameters as JSON Schema, and JSON arguments as its parameters; both by msgspec."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from attrs import frozen

from .errors import ConfigurationError
from .model import Action

_Kind: Final = inspect.Parameter


@frozen
class Signature:
    """How to call a function with the arguments that a model gives."""

    description: str
    schema: Mapping[str, Any]
    arguments: type[msgspec.Struct]
    positional: tuple[str, ...] = ()

    def structure(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments as the type hints say; raise `msgspec.ValidationError`."""
        fitted = msgspec.convert(arguments, self.arguments)
        given = {
            name: value
            for name in self.arguments.__struct_fields__
            if (value := getattr(fitted, name)) is not msgspec.UNSET
        }
        return [given.pop(name) for name in self.positional if name in given], given

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Signature | None:
        """
        Return the signature of *function*; None if it takes just an `Action`.

        Raise `ConfigurationError`, naming the parameter, where there is no JSON Schema for it.
        """
        parameters = _parameters(function, name)
        if [parameter.annotation for parameter in parameters] == [Action]:
            return None
        description, about = _documentation(function)
        arguments = _struct(parameters, about, name)
        return cls(
            description,
            _schema(arguments, parameters),
            arguments,
            tuple(each.name for each in parameters if each.kind is _Kind.POSITIONAL_ONLY),
        )


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """Return the parameters with their annotations evaluated."""
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(inspect.unwrap(_underlying(function)), include_extras=True)
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"the type hints of tool {name!r} cannot be read ({error}); define the types that it names where its module "
            "can see them"
        ) from error
    parameters = [each.replace(annotation=hints.get(each.name, Any)) for each in signature.parameters.values()]
    starred = [each for each in parameters if each.kind in {_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD}]
    if starred:
        raise ConfigurationError(
            f"tool {name!r} takes {starred[0]}, which has no JSON Schema; name each parameter, or register it with "
            "`@tools.default` to get the Action itself"
        )
    return parameters


def _underlying(function: Callable[..., Any]) -> Any:
    """Return what carries the annotations: the function of a partial, the `__call__` of an object."""
    inner = getattr(function, "func", function)
    return inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__


def _struct(parameters: list[inspect.Parameter], about: Mapping[str, str], name: str) -> type[msgspec.Struct]:
    """Return a struct with a field per parameter; one that is left out stays unset, so the function's default holds."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for each in parameters:
        kind = (
            Annotated[each.annotation, msgspec.Meta(description=about[each.name])]
            if each.name in about
            else each.annotation
        )
        try:
            msgspec.json.schema(kind)
        except (TypeError, NameError, ValueError) as error:
            raise ConfigurationError(
                f"parameter {each.name!r} of tool {name!r} has the type {each.annotation!r}, for which there is no JSON "
                "Schema. Use str, int, float, bool, None, list, dict, Literal, enums, datetimes, attrs classes or "
                "unions of these"
            ) from error
        required = each.default is _Kind.empty
        fields.append((each.name, kind) if required else (each.name, kind | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(name or "arguments", fields, forbid_unknown_fields=True, kw_only=True)


def _schema(arguments: type[msgspec.Struct], parameters: list[inspect.Parameter]) -> Mapping[str, Any]:
    """Return the schema as one object with its definitions inside, defaults included where JSON can carry them."""
    whole = msgspec.json.schema(arguments)
    definitions: dict[str, Any] = whole.get("$defs", {})
    schema: dict[str, Any] = definitions.pop(whole["$ref"].rpartition("/")[2])
    schema.pop("title", None)
    for each in parameters:
        if each.default is not _Kind.empty:
            try:
                schema["properties"][each.name]["default"] = msgspec.to_builtins(each.default)
            except TypeError:
                continue
    return {**schema, "$defs": definitions} if definitions else schema


def _documentation(function: Callable[..., Any]) -> tuple[str, Mapping[str, str]]:
    """
    Return the tool's description, and one for each parameter that the docstring describes.

    Without docstring-parser (the extra `docstrings`) the whole docstring is the tool's description.
    """
    text = inspect.getdoc(function) or ""
    if not find_spec("docstring_parser"):
        return text, {}
    import docstring_parser

    parsed = docstring_parser.parse(text)
    about = {each.arg_name: each.description for each in parsed.params if each.description}
    return (parsed.description or text).strip() if about else text, about
