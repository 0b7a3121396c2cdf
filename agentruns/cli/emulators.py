"""Which emulator plays a vendor: ours for the vendors of this package, else what its dialect names by `EMULATOR`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentruns.dialects import NAMES, load
from agentruns.dialects.names import find, installed
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from .printing import complain

if TYPE_CHECKING:
    from agentruns.emulator import Vendor as EmulatedVendor


def emulator_of(name: str) -> str | type[EmulatedVendor]:
    """
    Return what `agentruns.emulator.Emulator` takes to play the vendor *name*.

    Raise `ConfigurationError` for a vendor that is not known, or that has no emulator.
    """
    if name in NAMES:
        return name
    return _named(Vendor.of(load(name)))


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


def _named(vendor: Vendor) -> type[EmulatedVendor]:
    from agentruns.emulator import Vendor as EmulatedVendor

    kind: Any = vendor.EMULATOR
    if kind is None:
        raise ConfigurationError(
            f"{vendor.NAME} has no emulator: its dialect names one by EMULATOR, a subclass of agentruns.emulator.Vendor"
        )
    found = find(kind, f"emulator of {vendor.NAME}") if isinstance(kind, str) else kind
    if not (isinstance(found, type) and issubclass(found, EmulatedVendor)):
        raise ConfigurationError(f"EMULATOR of {vendor.NAME} is no subclass of agentruns.emulator.Vendor: {found!r}")
    return found
