"""What `agentruns demo` tells of a vendor, and what `agentruns console --emulator` lets one try."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import cast

from agentruns.dialects import NAMES

from . import plain
from .kit import QUICK, Follow, Story, Trial

__all__ = ["QUICK", "Follow", "Story", "Trial", "names", "story_of", "trial_of"]


def names() -> list[str]:
    """Return the vendors that have stories of their own: those with a module here."""
    here = {module.name for module in iter_modules(__path__)}
    return [name for name in NAMES if name in here]


def story_of(name: str) -> Story:
    """Return the story that `agentruns demo` tells of a vendor."""
    return cast(Story, _own(name).tell) if name in names() else plain.story(name)


def trial_of(name: str) -> Trial:
    """Return what of a vendor can be tried in the console; raise `ConfigurationError` where nothing can."""
    return cast(Trial, _own(name).TRIAL) if name in names() else plain.trial(name)


def _own(name: str) -> ModuleType:
    return import_module(f".{name}", __name__)
