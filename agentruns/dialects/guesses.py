"""
What no page says, declared: each guess of a vendor beside the switch that replaces it.

A guess that turns out wrong is put right the same hour and without a release: `VENDOR.variant(switch=...)` gives the
vendor's dialect with another reading of it, for `connect`, and for what takes `file.py:attribute`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeVar

from attrs import frozen

from agentruns._values import codec
from agentruns._values.generic import Json
from agentruns._values.run import RunStatus
from agentruns.errors import APIError, ConfigurationError

_SHOWN: Final = 40
"""How many characters of a text that was sent are shown: its shape is in doubt, what it says is not."""

_SECRET: Final = re.compile("secret|passw|token|api_?key|credential|authorization", re.IGNORECASE)
"""Names of fields whose values are not shown."""

T = TypeVar("T")


@frozen
class Guess:
    """One thing that no page says: what is taken for it, why, and how to change it."""

    name: str
    """What `variant` calls it; a guess without a switch of its own names what else changes it in `change`."""
    taken: str
    why: str
    change: str = ""

    def switch(self, vendor: str) -> str:
        """Return how to change it, as code where there is a switch."""
        return self.change or f"`{vendor}.variant({self.name}=...)`"


class Variant:
    """
    A vendor's module with another reading of some of its guesses; made by its `variant`.

    It pickles as the call that made it, so what replaces a guess must pickle, too, where work goes to other processes:
    a function of a module does.
    """

    def __init__(self, module: str | None, replaced: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        assert module is not None  # the `__package__` of a vendor's module
        names = vars(import_module(module))
        self.__dict__.update({name: names[name] for name in names["__all__"]})
        self.__dict__.update(replaced)
        self._made = (module, dict(given))

    @property
    def switched(self) -> Mapping[str, str]:
        """What each switch that was given was given, as text: the name of a function, else the value itself."""
        _, given = self._made
        return {name: str(getattr(value, "__qualname__", value)) for name, value in given.items() if value is not None}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, Mapping[str, Any]]]:
        return _remade, self._made

    def __repr__(self) -> str:
        module, _ = self._made
        told = ", ".join(f"{name}={value}" for name, value in self.switched.items())
        return f"{module.rpartition('.')[2]}.variant({told})"

    def __getattr__(self, name: str) -> Any:  # what the module has is in the instance
        raise AttributeError(f"{self!r} has no {name!r}")


def _remade(module: str, given: Mapping[str, Any]) -> Any:
    return import_module(module).variant(**given)


def function(name: str, value: T | None, default: T) -> T:
    """Return the function that a switch was given, else the *default*; refuse what cannot be called."""
    if value is None:
        return default
    if not callable(value):
        raise ConfigurationError(f"{name} is {value!r}; it must be a function, see `agentruns vendors`")
    return value


def statuses(name: str, value: Mapping[str, RunStatus | str] | None) -> Mapping[str, RunStatus]:
    """Return the words that a switch was given, each with our status; raise `ConfigurationError` for what is none."""
    if value is None:
        return {}
    try:
        return {word: RunStatus(status) for word, status in value.items()}
    except (ValueError, AttributeError):
        raise ConfigurationError(
            f"{name} is {value!r}; it must map words of the vendor to {', '.join(RunStatus)}"
        ) from None


def seconds(name: str, value: Sequence[float]) -> tuple[float, ...]:
    """Return the seconds that a switch was given; raise `ConfigurationError` for none, or for what are no seconds."""
    try:
        given = tuple(float(each) for each in value)
    except (TypeError, ValueError):
        given = ()
    if not given or not all(math.isfinite(each) and each >= 0 for each in given):
        raise ConfigurationError(f"{name} is {value!r}; it must be one or several numbers of seconds")
    return given


def mapping_of(name: str, value: Any) -> Mapping[str, Json]:
    """Return what a user's reading gave, as plain JSON; raise `ConfigurationError` for what is no mapping."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} gave {value!r}; it must give a mapping, which is sent as a JSON object")
    plain: Mapping[str, Json] = codec.to_jsonable(value, f"what {name} gave")
    return plain


def refused(error: APIError, what: str, sent: Any, switch: str, *, guessed: str = "its shape") -> None:
    """Have a refusal say that what was sent is a guess, how it was, and what changes it; see `told`."""
    error.guess = told(what, sent, switch, guessed=guessed)


def told(what: str, sent: Any, switch: str, *, guessed: str = "its shape") -> str:
    """Return that the shape of *what* was *sent*, or what else is *guessed*, is a guess, and what changes it."""
    return (
        f"No page shows {what}, so {guessed} is a guess. Sent was {codec.encode(shape(sent)).decode()}. If the vendor "
        f"wants another one, {switch} sends it"
    )


def shape(value: Any) -> Any:
    """Return a JSON value with its long texts cut, and what is secret by its name: enough to compare it with a page."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    if isinstance(value, Mapping):
        return {key: "..." if _SECRET.search(str(key)) else shape(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [shape(each) for each in value]
    return value
