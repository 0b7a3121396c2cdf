"""What `agentruns demo` tells of a vendor, and what `agentruns console --emulator` lets one try."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import cast

from agentruns.dialects import NAMES, load
from agentruns.dialects.vendor import Vendor

from . import plain
from .kit import QUICK, Follow, Story, Trial

__all__ = ["QUICK", "Follow", "Story", "Trial", "names", "story_of", "trial_of"]


def names() -> list[str]:
    """Return the vendors that have stories of their own: those with a module here."""
    here = {module.name for module in iter_modules(__path__)}
    return [name for name in NAMES if name in here]


def story_of(name: str) -> Story:
    """Return the story that `agentruns demo` tells of a vendor."""
    own = _own(name)
    return partial(plain.tell if own is None else own.tell, name)


def trial_of(name: str) -> Trial:
    """Return what of a vendor can be tried in the console; raise `ConfigurationError` where nothing can."""
    own = _own(name)
    return plain.trial(name) if own is None else cast(Trial, own.TRIAL)


def _own(name: str) -> ModuleType | None:
    """Return the module of a vendor's own stories, by whatever name its dialect or a variant of it goes; or None."""
    vendor = Vendor.of(load(name)).NAME
    return import_module(f".{vendor}", __name__) if vendor in names() else None
