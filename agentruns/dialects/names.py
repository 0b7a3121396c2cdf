"""A dialect by name, from anywhere: an installed package, a module, a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentruns.errors import ConfigurationError

if TYPE_CHECKING:  # imported when packages are first looked for: it brings all that reads mail
    from importlib.metadata import EntryPoint

GROUP: Final = "agentruns.dialects"
"""The group of entry points by which packages offer dialects."""


_TABLES: Final = Path(__file__).parent / "tables"


def shipped() -> Mapping[str, Path]:
    """Return the tables of this package by the names of their vendors; none is read."""
    return {path.stem: path for path in sorted(_TABLES.glob("*.toml"))}


def installed() -> Mapping[str, EntryPoint]:
    """Return the entry points of dialects by name; nothing of them is imported."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def is_place(name: str) -> bool:
    """Tell whether *name* is that of a module, a file or a table rather than of a vendor."""
    return ":" in name or name.endswith((".py", ".toml"))


def find(name: str, what: str = "dialect") -> Any:
    """
    Return what an entry point *name*, `module:attribute`, `file.py:attribute` or `file.py` names; None if nothing.

    Without an attribute the module itself is the dialect. Raise `ConfigurationError` for what cannot be imported; its
    text calls that *what*.
    """
    point = None if is_place(name) else installed().get(name)
    try:
        if point is not None:
            return point.load()
        if is_place(name):
            return _at(name)
    except (Exception, SystemExit) as error:  # whatever a package does when it is imported
        source = "" if point is None or point.dist is None else f" of the package {point.dist.name}"
        raise ConfigurationError(
            f"the {what} {name!r}{source} cannot be imported: {type(error).__name__}: {error}", field=what
        ) from error
    return None


def absolute(place: str) -> str:
    """Return a place as another process of this machine finds it: a file by its full path."""
    if place.endswith(".py"):
        return str(Path(place).resolve())
    module, _, name = place.rpartition(":")
    return f"{Path(module).resolve()}:{name}" if module.endswith(".py") else place


def _at(place: str) -> Any:
    where, _, attribute = (place, "", "") if place.endswith(".py") else place.rpartition(":")
    found = import_place(where)
    for name in filter(None, attribute.split(".")):
        found = getattr(found, name)
    return found


def import_place(place: str) -> Any:
    """Return the module of that name, or of a file whose name ends with `.py`; the working directory counts."""
    if not place.endswith(".py"):
        _make_importable("")
        return import_module(place)
    path = Path(place).resolve(strict=True)
    name = f"agentruns_tools_{path.stem}"  # its own, though it be called json.py
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no module of Python")
    _make_importable(str(path.parent))
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _make_importable(folder: str) -> None:
    """Let a module import what lies beside it; last, so that an email.py there takes the place of nothing."""
    if folder not in sys.path:
        sys.path.append(folder)
