"""Which emulator plays a vendor: what its dialect names by `EMULATOR`; and what starts a run there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentruns.dialects import NAMES, load
from agentruns.dialects.names import find, installed
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from .printing import complain

if TYPE_CHECKING:
    from agentruns.emulator import Emulator
    from agentruns.emulator import Vendor as EmulatedVendor


def emulator_of(name: str) -> type[EmulatedVendor]:
    """
    Return what `agentruns.emulator.Emulator` takes to play the vendor *name*.

    Raise `ConfigurationError` for a vendor that is not known, or that has no emulator.
    """
    from agentruns.emulator import Vendor as EmulatedVendor

    vendor = Vendor.of(load(name))
    kind: Any = vendor.EMULATOR
    if kind is None:
        raise ConfigurationError(
            f"{vendor.NAME} has no emulator: its dialect names one by EMULATOR, a subclass of agentruns.emulator.Vendor"
        )
    found = find(kind, f"emulator of {vendor.NAME}") if isinstance(kind, str) else kind
    if not (isinstance(found, type) and issubclass(found, EmulatedVendor)):
        raise ConfigurationError(f"EMULATOR of {vendor.NAME} is no subclass of agentruns.emulator.Vendor: {found!r}")
    return found


def example_of(name: str, emulator: Emulator[Any]) -> Any:
    """
    Return what starts a run of an emulated vendor: as its emulator says, else as its dialect does, else None.

    Raise `ConfigurationError` where the fields that the emulator gives are not those of the dialect.
    """
    vendor = Vendor.of(load(name))
    fields = emulator.state.example_fields()
    if fields:
        try:
            return vendor.Origin(**fields)
        except TypeError as error:
            raise ConfigurationError(
                f"`example_fields` of the emulator of {name} does not fit {vendor.Origin.__name__}: {error}"
            ) from error
    return None if vendor.example is None else vendor.call("example")


def has_example(name: str) -> bool:
    """Tell whether `example_of` gives something for a vendor."""
    from agentruns.emulator import Vendor as EmulatedVendor

    said = emulator_of(name).example_fields is not EmulatedVendor.example_fields
    return said or Vendor.of(load(name)).example is not None


def emulated_names() -> list[str]:
    """Return the vendors that can be emulated: of this package, and of installed ones; a broken one is told."""
    found = [*NAMES]
    for name in sorted({*installed()} - {*NAMES}):
        try:
            vendor = Vendor.of(load(name))
        except ConfigurationError as error:
            complain(f"agentruns: {error}")
            continue
        if vendor.EMULATOR is not None:
            found.append(name)
    return found
