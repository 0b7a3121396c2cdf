"""The vendors of this package, imported when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final, cast

from agentruns._values.run import detail_readers
from agentruns.errors import ConfigurationError

from .protocol import Dialect

NAMES: Final = ("narrative", "middesk", "origami", "conduit")


def load(name: str) -> Dialect:
    """Return the dialect module called *name*; raise `ConfigurationError` for a name that is not one of `NAMES`."""
    if name not in NAMES:
        raise ConfigurationError(f"there is no dialect {name!r}; choose one of {', '.join(NAMES)}")
    return cast("Dialect", import_module(f"{__name__}.{name}"))


def _read_detail(name: str, raw: Mapping[str, Any]) -> object:
    detail: object = import_module(f"{__name__}.{name}").detail(raw)
    return detail


for _name in NAMES:
    detail_readers[_name] = partial(_read_detail, _name)
