"""A parent of its own for each run, such as a conversation, where the dialect makes one from a file."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow, first_request
from agentruns.client import Client
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools


def pending(vendor: Vendor) -> str:
    """Return what stands for the id of a parent that is not made yet."""
    return f"a new {vendor.PARENT}"


def option_of(vendor: Vendor) -> str:
    """Return the option that takes the file, such as `--conversation`; `--new-thread` if `thread` is a field."""
    name = "-".join(vendor.PARENT.split())
    fields = {field.name.replace("_", "-") for field in attrs.fields(vendor.Origin)}
    return f"--new-{name}" if name in fields else f"--{name}"


def help_of(vendor: Vendor) -> str:
    """Return what the option is for: the first line of what the dialect says of `make_parent`, too."""
    told = (inspect.getdoc(vendor.make_parent) or "").partition("\n")[0]
    words = f"make a new {vendor.PARENT} of FILE, a JSON object, in the place of --{_field(vendor).replace('_', '-')}"
    return f"{words}. {told}".strip().replace("%", "%%")


def field_of(vendor: Vendor) -> str | None:
    """Return the field of the origin that names what can be made; None where the dialect makes nothing."""
    return None if vendor.make_parent is None else _field(vendor)


def _field(vendor: Vendor) -> str:
    assert vendor.PARENT_FIELD is not None
    return vendor.PARENT_FIELD


@frozen
class NewParents:
    """Make parents as a file says, by a flow of the dialect."""

    vendor: Vendor
    given: Mapping[str, Any]
    """What the file says, by which it is known whether it has changed."""
    tools: Tools | None

    @classmethod
    def read(cls, vendor: Vendor, path: Path, tools: Tools | None) -> NewParents:
        """
        Read the file at *path*; the dialect may declare *tools* in what it makes.

        Raise `ConfigurationError` for a file of which the dialect makes nothing.
        """
        where = f"{option_of(vendor)} {str(path)!r}"
        try:
            given = codec.decode(path.read_bytes())
        except (OSError, codec.CodecError) as error:
            raise ConfigurationError(f"{where} cannot be read as JSON: {error}") from error
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"{where} must hold a JSON object, by which a {vendor.PARENT} is made")
        made = cls(vendor, given, tools)
        try:
            first_request(made.flow())
        except ConfigurationError as error:
            raise ConfigurationError(f"{where} makes no {vendor.PARENT}: {error}") from error
        return made

    @property
    def fixed(self) -> Mapping[str, str]:
        """Return what stands in the origin before the parent is made."""
        return {_field(self.vendor): pending(self.vendor)}

    def columns_within(self, columns: Iterable[str]) -> list[str]:
        """Return the columns for which the file has places that nothing fills: it is the same for every row."""
        texts = list(_texts(self.given))
        return [column for column in columns if any(f"{{{column}}}" in text for text in texts)]

    def flow(self) -> Flow[Any]:
        """Return the flow that makes one."""
        return self.vendor.flow("make_parent", self.given, self.tools)

    async def begin(self, client: Client, origin: Any) -> Any:
        """Make one, and return *origin* as what starts a run in it; a field that has its own value keeps it."""
        made = await client.perform(self.flow())
        if not isinstance(made, Mapping) or not made.get(_field(self.vendor)):
            raise ConfigurationError(
                f"{self.vendor.NAME}.make_parent returned {made!r}; it must return the fields of "
                f"{self.vendor.Origin.__name__} that name what was made: a mapping with {_field(self.vendor)!r}",
                field="dialect",
            )
        free = (None, pending(self.vendor))
        fields = {name: each for name, each in made.items() if getattr(origin, name) in free}
        return attrs.evolve(origin, **fields)


def _texts(value: Any) -> Iterator[str]:
    """Give every text in JSON that is written by hand."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
