"""What starts a run, on the command line: an option for each field of a vendor's origin, and the way back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from agentruns._values import codec
from agentruns.dialects import load
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from . import options, parents
from .fields import Kind, either, kind_of


def add_options(parser: argparse.ArgumentParser, vendor: Vendor, *, templates: bool = False) -> None:
    """Offer an option for each field of what starts a run, its value or a template, and one that makes its parent."""
    group = parser.add_argument_group(f"what starts a run of {vendor.NAME} ({vendor.Origin.__name__})")
    parent = parents.field_of(vendor)
    for field in attrs.fields(vendor.Origin):
        needed = field.default is attrs.NOTHING
        group.add_argument(
            option(field.name),
            dest=f"origin_{field.name}",
            required=needed and not templates and field.name != parent,
            metavar="TEMPLATE" if templates else "JSON" if kind_of(field) is Kind.JSON else "TEXT",
            help=_help(field, needed=needed, templates=templates),
        )
    if parent is not None:
        told = f"for each row, {parents.help_of(vendor)}" if templates else parents.help_of(vendor)
        group.add_argument(parents.option_of(vendor), dest="parent_file", metavar="FILE", help=told)


def origin(arguments: argparse.Namespace) -> Any:
    """Return the origin that the options describe; raise `ConfigurationError` for a value that does not fit."""
    vendor = Vendor.of(load(arguments.vendor))
    kind, parent = vendor.Origin, parents.field_of(vendor)
    file = getattr(arguments, "parent_file", None)
    if parent is not None:
        is_given = getattr(arguments, f"origin_{parent}") is not None
        is_needed = attrs.fields_dict(kind)[parent].default is attrs.NOTHING
        if is_given == (file is not None) and (is_given or is_needed):
            raise ConfigurationError(
                f"give {option(parent)} of one that exists, or {parents.option_of(vendor)} FILE for a new one"
            )
        if file is not None:
            setattr(arguments, f"origin_{parent}", parents.pending(vendor))
    given = {
        field.name: _value(field, getattr(arguments, f"origin_{field.name}"))
        for field in attrs.fields(kind)
        if getattr(arguments, f"origin_{field.name}") is not None
    }
    return kind(**given)


def templates(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the templates that the options of `batch` give, by field; raise `ConfigurationError` for a strange one."""
    given = {
        field.name: getattr(arguments, f"origin_{field.name}")
        for field in attrs.fields(load(arguments.vendor).Origin)
        if getattr(arguments, f"origin_{field.name}") is not None
    }
    for each in arguments.set:
        name, found, template = each.partition("=")
        if not found:
            raise ConfigurationError(f"--set is {each!r}; it must be FIELD=TEMPLATE, such as agent_id={{agent}}")
        field = name.strip().replace("-", "_")
        if field in given:
            raise ConfigurationError(f"--set {field} is given twice, or beside {option(field)}; leave one of them out")
        given[field] = template
    return {field: text_of(template, option(field)) for field, template in given.items()}


def text_of(given: str, name: str) -> str:
    """
    Return what an option gives: its text, or that of the file FILE for @FILE; @@ at the beginning stands for one @.

    Raise `ConfigurationError`, naming the option, for a file that cannot be read.
    """
    if not given.startswith("@") or given.startswith("@@"):
        return given[1:] if given.startswith("@@") else given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigurationError(
            f"{name} is {given!r}, and that file cannot be read: {error}. A text that begins with @ is given with @@"
        ) from error


def option(name: str) -> str:
    """Return the option of a field of what starts a run; one whose name another option has gets a prefix."""
    plain = f"--{name.replace('_', '-')}"
    return f"--origin-{plain[2:]}" if plain in _reserved() else plain


@cache
def _reserved() -> frozenset[str]:
    parser = argparse.ArgumentParser()
    options.add_batch(parser)
    other = argparse.ArgumentParser()
    for offer in (options.add_connection, options.add_waiting, options.add_output):
        offer(other)
    return frozenset({*parser._option_string_actions, *other._option_string_actions})


def _help(field: attrs.Attribute[Any], *, needed: bool, templates: bool) -> str:
    told = field.metadata.get("help")
    words = [*([str(told)] if told else []), str(kind_of(field))]
    if needed:
        words.append(f"by default the column {field.name}" if templates else "required")
    elif field.default not in (None, ()) and not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        words.append(f"by default {field.default!r}")
    return "; ".join(words).replace("%", "%%")


def _value(field: attrs.Attribute[Any], text: str) -> Any:
    kind = kind_of(field)
    if kind is not Kind.JSON:
        given = text_of(text, option(field.name))
        return given if kind is Kind.TEXT else either(given)
    try:
        value: Mapping[str, Any] | list[Any] | str | float | None = codec.decode(text)
    except codec.CodecError as error:
        raise ConfigurationError(f"--{field.name.replace('_', '-')} is {text!r}, which is not JSON: {error}") from error
    return value
