"""How to follow a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast

from attrs import field, frozen

from agentruns._values import check
from agentruns._values.exchange import ServerEvent
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.tools import ToolsLike

OnCancel: TypeAlias = Literal["leave", "cancel", "confirm"]
"""What a cancelled wait does to the remote run: leave it alone, cancel it, or cancel it and wait until it is over."""


Timeout: TypeAlias = float | Literal["vendor"] | None
"""Seconds of a wait; None sets no end, and "vendor" stands for as long as the vendor says that a run may take."""

OnEvent: TypeAlias = Callable[[ServerEvent], object]
"""What a user does with each event of a run as it comes, at once; what it raises, a step of the stream raises."""

DEFAULT_SECONDS: Final = 600.0
"""How long a run is waited for where neither the user nor the vendor says it."""


def seconds_of(vendor: Vendor, timeout: Timeout) -> float | None:
    """Return the seconds of a wait; raise `ConfigurationError` for what is no time."""
    if timeout == "vendor":
        return DEFAULT_SECONDS if vendor.RUN_SECONDS is None else vendor.RUN_SECONDS
    if timeout is not None:
        check.number("timeout", timeout)
    return timeout


def _some_time(_: object, attribute: Any, value: float | None) -> None:
    if value is not None:
        check.number(attribute.name, value)


def _zero_or_more(_: object, attribute: Any, value: float) -> None:
    check.number(attribute.name, value, zero=True)


def _count(_: object, attribute: Any, value: int) -> None:
    check.integer(attribute.name, value, 0)


def _flag(_: object, attribute: Any, value: bool) -> None:
    check.boolean(attribute.name, value)


def _flag_or_function(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, bool) and (inspect.iscoroutinefunction(value) or not callable(value)):
        raise ConfigurationError(
            f"{attribute.name} is {value!r}; it must be True, False, or a function of an event that is not async"
        )


def _text(_: object, attribute: Any, value: str | None) -> None:
    check.text_or_none(attribute.name, value)


def _texts(_: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{attribute.name} is {value!r}; it must be a mapping of names to texts")
    for name, text in value.items():
        if not isinstance(name, str) or not name or not isinstance(text, str):
            raise ConfigurationError(f"{attribute.name} has {name!r}: {text!r}; a name and its value must be texts")
        check.utf8(attribute.name, name + text)


def _known(_: object, attribute: Any, value: str) -> None:
    if value not in {"leave", "cancel", "confirm"}:
        raise ConfigurationError(f"{attribute.name} is {value!r}; choose 'leave', 'cancel' or 'confirm'")


@frozen(kw_only=True)
class Options:
    """How to wait for a run; seconds throughout. Those that are equal may stand for each other."""

    timeout: float | None = field(default=DEFAULT_SECONDS, validator=_some_time)
    max_resumes: int = field(default=10, validator=_count)
    progress: bool = field(default=False, validator=_flag)
    patience: float = field(default=60.0, validator=_zero_or_more)
    stall: float | None = field(default=None, validator=_some_time)
    on_cancel: OnCancel = field(default="leave", validator=_known)
    events: bool | OnEvent = field(default=False, validator=_flag_or_function, eq=id)
    include: str | None = field(default=None, validator=_text)
    params: Mapping[str, str] = field(factory=dict, validator=_texts, eq=id)  # the user may change it


class StreamOptions(TypedDict, total=False):
    """What `client.stream` takes beside the origin, for those who pass it on."""

    tools: ToolsLike | None
    timeout: Timeout
    max_resumes: int
    progress: bool
    patience: float
    stall: float | None
    on_cancel: OnCancel
    events: bool | OnEvent
    key: str | None
    digest: str | None
    include: str | None
    params: Mapping[str, str] | None


class WatchOptions(TypedDict, total=False):
    """What looking at a run takes of the options of `Client.stream`, for those who pass it on."""

    timeout: float | None
    progress: bool
    patience: float
    stall: float | None
    events: bool | OnEvent
    include: str | None
    params: Mapping[str, str] | None


def options_of_watch(given: WatchOptions) -> Options:
    """Return the options of looking at a run, which has no timeout by default; raise as `Options` does."""
    options: dict[str, Any] = {"timeout": None, **given}
    if options.get("params") is None:
        options["params"] = {}
    return Options(**options)


def item_options(
    vendor: Vendor, common: StreamOptions, own: Callable[[Any], StreamOptions] | None
) -> Callable[[Any], StreamOptions]:
    """
    Return what gives the options of an item of a batch: its *own* over the *common* ones, its timeout in seconds.

    What it returns raises `ConfigurationError` for an option that there is not. Raise it for *own* that is no function.
    """
    if own is None:
        return lambda _: common
    if not callable(own):
        raise ConfigurationError(f"options is {own!r}; it must be a function of an item")
    make, may = own, StreamOptions.__annotations__.keys() - {"key"}

    def options(item: Any) -> StreamOptions:
        given: Any = make(item)
        if not isinstance(given, dict) or not given.keys() <= may:
            raise ConfigurationError(
                f"options gives {given!r}; it must be a dict of {', '.join(sorted(may))}", field="options"
            )
        made: StreamOptions = {**common, **cast("StreamOptions", given)}
        return {**made, "timeout": seconds_of(vendor, made.get("timeout"))}

    return options
