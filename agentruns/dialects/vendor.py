"""One vendor as the client knows it: a dialect that was checked at `connect`, each capability there or None."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from types import ModuleType
from typing import Any, Final, TypeAlias

from attrs import field, fields, frozen, has

from agentruns._values.auth import Auth, Bearer, NoAuth
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, RateLimit, Request, Response
from agentruns._values.place import Place
from agentruns._values.run import Action, Page, Run, RunRef, RunStatus
from agentruns.errors import ConfigurationError, ProtocolError

from . import wire
from .protocol import ReadOn
from .show import Artifact, Question, Step

Flows: TypeAlias = Callable[..., Flow[Any]]

MISTAKES: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""What code raises that meets something it was not written for."""

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "start": ("origin",),
    "fetch": ("ref", "params"),
    "problem": ("response",),
    "handler_names": ("action",),
}
_OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "locate": (),
    "resume": ("run", "outputs"),
    "resume_again": ("run", "outputs"),
    "resume_first": ("run", "outputs"),
    "answered_by": ("run",),
    "recover": ("origin", "note"),
    "cancel": ("ref",),
    "make_parent": ("given", "tools"),
    "page": ("parent", "cursor"),
    "list_parent": ("ref",),
    "fetch_many": ("refs",),
    "parse_run": ("response",),
    "error_status": ("response",),
    "timing_group": ("run",),
    "times": ("run",),
    "events": ("ref",),
    "event_of": ("ref", "event"),
    "check_token": ("base_url", "token"),
    "detail": ("raw",),
    "example": (),
    "show_question": ("action",),
    "show_steps": ("run",),
    "show_artifacts": ("run",),
    "read_trace": ("run",),
    "read_tools": ("run",),
}
FUNCTIONS: Final = (*_REQUIRED, *_OPTIONAL)
"""The functions that a dialect must have, and those that it may have."""

_TEXTS: Final = ("NAME", "BASE_URL", "TOKEN_VARIABLE", "BASE_URL_VARIABLE")
_MAY_BE_EMPTY: Final = frozenset({"BASE_URL", "TOKEN_VARIABLE"})
_ANSWERING: Final = frozenset({"resume", "resume_again", "resume_first"})
"""The functions that may ask for what started the run as well, by a parameter `origin`."""

_NEEDS: Final = {"resume_again": "resume", "resume_first": "resume", "list_parent": "page", "event_of": "events"}
_CLOSE: Final = 0.83
_MISTYPED: Final = 100

_NO_CAPABILITIES: Final = frozenset({
    *("check_token", "detail", "example"),
    *("show_question", "show_steps", "show_artifacts", "read_trace", "read_tools"),
})
CAPABILITIES: Final = tuple(name for name in _OPTIONAL if name not in _NO_CAPABILITIES)
"""The functions that a dialect may have, by which it says what its vendor can do."""


@frozen(eq=False)
class Vendor:
    """
    A dialect, checked: what it must have is there, and what it may have is there or None.

    It has the names of the dialect, and satisfies `Dialect` itself.
    """

    NAME: str
    BASE_URL: str
    TOKEN_VARIABLE: str
    BASE_URL_VARIABLE: str
    BUDGET: RateLimit | None
    Origin: type[Any]
    start: Flows
    fetch: Flows
    problem: Callable[[Response], Problem]
    handler_names: Callable[[Action], Sequence[str]]
    locate: Flows | None = None
    resume: Flows | None = None
    resume_again: Flows | None = None
    resume_first: Flows | None = None
    answered_by: Flows | None = None
    recover: Flows | None = None
    cancel: Flows | None = None
    make_parent: Flows | None = None
    page: Flows | None = None
    list_parent: Callable[..., str] | None = None
    fetch_many: Flows | None = None
    parse_run: Callable[[Response], Run] | None = None
    error_status: Callable[[Response], int | None] | None = None
    timing_group: Callable[[Run], str] | None = None
    times: Callable[[Run], Any] | None = None
    events: Callable[..., Request] | None = None
    event_of: Callable[..., Run | bool] | None = None
    check_token: Callable[[str, str], None] | None = None
    detail: Callable[[Mapping[str, Any]], object] | None = None
    example: Callable[[], Any] | None = None
    show_question: Callable[[Action], Question] | None = None
    show_steps: Callable[[Run], Sequence[Step]] | None = None
    show_artifacts: Callable[[Run], Sequence[Artifact]] | None = None
    read_trace: Flows | None = None
    read_tools: Flows | None = None
    AUTH: Auth = Bearer()  # noqa: RUF009 - frozen
    DEFAULT_HEADERS: Mapping[str, str] = field(factory=dict)
    DEFAULT_PARAMS: Mapping[str, str] = field(factory=dict)
    MODEL_CALLS: bool = True
    TRACE_ROLES: tuple[str, str] | None = None
    PARENT: str = "parent"
    PARENT_FIELD: str | None = None
    TRACE_INCLUDE: str | None = None
    ANSWERS_TOGETHER: bool | None = None
    RUN_SECONDS: float | None = None
    START_REQUESTS: int = 1
    POLL_SECONDS: tuple[float, float] | None = None
    LEAST_POLL_SECONDS: float = 0.0
    LIST_IS_WHOLE: bool = False
    KEY_SECONDS: float | None = None
    FETCH_MANY_LIMIT: int = 100
    EMULATOR: str | type[Any] | None = None

    @classmethod
    def of(cls, dialect: Any) -> Vendor:
        """
        Return *dialect* as a vendor; a vendor is returned as it is.

        Raise `ConfigurationError` that names what is missing, what cannot be called as it will be, and a function whose
        name is nearly that of a capability.
        """
        if isinstance(dialect, Vendor):
            return dialect
        found: dict[str, Any] = {name: getattr(dialect, name, None) for name in (*_REQUIRED, *_OPTIONAL)}
        absent = [name for name in (*_TEXTS, "BUDGET", "Origin") if not _has(dialect, name)]
        absent += [name for name in _REQUIRED if found[name] is None]
        if absent:
            raise ConfigurationError(
                f"{dialect!r} is no dialect: it lacks {', '.join(absent)}.{_meant(dialect, absent)} Pass a module such "
                "as `agentruns.narrative`, its name, or what satisfies `agentruns.Dialect`",
                field="dialect",
            )
        constants = {name: getattr(dialect, name) for name in _CONSTANTS if _has(dialect, name)}
        vendor = cls(**constants, **found)
        vendor._check(dialect)
        return vendor

    def _check(self, dialect: Any) -> None:
        for name in _TEXTS:
            text = getattr(self, name)
            if not isinstance(text, str) or not (text or name in _MAY_BE_EMPTY):
                raise _wrong(self.NAME, f"{name} is {getattr(self, name)!r}; it must be a text that is not empty")
        if self.BUDGET is not None and not isinstance(self.BUDGET, RateLimit):
            raise _wrong(self.NAME, f"BUDGET is {self.BUDGET!r}; it must be `RateLimit(count, seconds)`, or None")
        if not isinstance(self.AUTH, Auth):
            raise _wrong(self.NAME, f'AUTH is {self.AUTH!r}; it must be a value such as `Header("x-api-key")`')
        if not self.TOKEN_VARIABLE and not isinstance(self.AUTH, NoAuth):
            raise _wrong(self.NAME, "TOKEN_VARIABLE is ''; only with `AUTH = NoAuth()` it may be empty")
        if not isinstance(self.Origin, type):
            raise _wrong(self.NAME, f"Origin is {self.Origin!r}; it must be the class of what starts a run")
        if not isinstance(self.MODEL_CALLS, bool):
            raise _wrong(self.NAME, f"MODEL_CALLS is {self.MODEL_CALLS!r}; it must be True or False")
        if self.make_parent is not None and self.PARENT_FIELD not in _fields(self.Origin):
            raise _wrong(
                self.NAME,
                f"PARENT_FIELD is {self.PARENT_FIELD!r}; beside `make_parent` it must be the field of "
                f"{self.Origin.__name__} that names what is made",
            )
        for count in ("FETCH_MANY_LIMIT", "START_REQUESTS"):
            limit: object = getattr(self, count)
            if not isinstance(limit, int) or limit < 1:
                raise _wrong(self.NAME, f"{count} is {limit!r}; it must be a number above 0")
        if not (self.EMULATOR is None or isinstance(self.EMULATOR, type) or ":" in str(self.EMULATOR)):
            raise _wrong(self.NAME, f"EMULATOR is {self.EMULATOR!r}; it must be a class, or `module:attribute` of one")
        for name, parameters in {**_REQUIRED, **_OPTIONAL}.items():
            function = getattr(self, name)
            given = {"origin": None} if function is not None and self.asks_origin(name) else {}
            if function is not None and not _takes(function, len(parameters), given):
                also = ", or of these and `origin`" if name in _ANSWERING else ""
                raise _wrong(
                    self.NAME,
                    f"`{name}` must be a function of ({', '.join(parameters)}){also}, and is {_told(function)}; "
                    "a helper that is something else needs another name",
                )
        for name, needed in _NEEDS.items():
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise _wrong(self.NAME, f"`{name}` is of no use without `{needed}`, which it lacks")
        missing = [name for name in _OPTIONAL if getattr(self, name) is None]
        meant = _meant(dialect, missing)
        if meant:
            raise _wrong(self.NAME, meant.strip())

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Return the names of the capabilities that this vendor has."""
        return tuple(name for name in CAPABILITIES if getattr(self, name) is not None)

    @cached_property
    def _asking(self) -> frozenset[str]:
        """Which of the functions that answer a run ask what started it: looked up once, since each start needs it."""
        return frozenset(each for each in _ANSWERING if "origin" in _parameters(getattr(self, each)))

    def asks_origin(self, *names: str) -> bool:
        """
        Tell whether any of the functions, or of all that answer a run, asks what started it: by a parameter `origin`.

        The vendor wants to be told again, with each answer, what the start said.
        """
        return bool(self._asking.intersection(names) if names else self._asking)

    def call(self, name: str, *args: Any, **given: Any) -> Any:
        """
        Return what the function *name* of the dialect returns.

        Raise `ProtocolError` for a mistake within it; what it raises on purpose is raised as it is.
        """
        try:
            return getattr(self, name)(*args, **given)
        except MISTAKES as error:
            raise mistake(f"{self.NAME}.{name}", error, None) from error

    def flow(self, name: str, *args: Any, **given: Any) -> Flow[Any]:
        """Return a new flow of the function *name*; raise `ProtocolError` if it gives something else."""
        flow: Flow[Any] = self.call(name, *args, **given)
        made: object = flow
        if not inspect.isgenerator(made):
            if inspect.iscoroutine(made):
                made.close()
            raise ProtocolError(
                f"{self.NAME}.{name} returned {_told(flow)}, which is no flow: write it as a function that yields "
                "requests, without async"
            )
        return flow

    def read_problem(self, response: Response) -> Problem:
        """
        Return what `problem` says of an error body.

        Of one that it was not written for, such as the page of a proxy, the status still tells: the body is told as it
        came, with the mistake.
        """
        try:
            problem: Any = self.problem(response)
        except MISTAKES as error:
            told = str(mistake(f"{self.NAME}.problem", error, None))
        else:
            if isinstance(problem, Problem):
                return problem
            told = f"{self.NAME}.problem returned {_told(problem)}, which is no Problem"
        return Problem(wire.body_excerpt(response), particulars=(told,))

    def run(self, name: str, result: Any, response: Response | None = None) -> Run:
        """Return what the function *name* came to; raise `ProtocolError` if that is no run in a known status."""
        if not isinstance(result, Run):
            raise ProtocolError(
                f"{self.NAME}.{name} returned {_told(result)}, which is no Run{_on(response)}", response
            )
        if not isinstance(result.status, RunStatus):
            raise ProtocolError(
                f"{self.NAME}.{name} returned a run whose status is {result.status!r}, which is no "
                f"RunStatus{_on(response)}",
                response,
            )
        return result

    def place(self, result: Any) -> Place:
        """Return what `locate` came to; raise `ProtocolError` if that is no place."""
        if not isinstance(result, Place):
            raise ProtocolError(f"{self.NAME}.locate returned {_told(result)}, which is no Place")
        return result

    def a_page(self, result: Any) -> Page:
        """Return what `page` came to; raise `ProtocolError` if that is no page."""
        if not isinstance(result, Page):
            raise ProtocolError(f"{self.NAME}.page returned {_told(result)}, which is no Page")
        return result

    def many(self, result: Any) -> Sequence[Run | RunRef | ReadOn]:
        """Return what `fetch_many` came to; raise `ProtocolError` if that is no list or tuple of these."""
        told: tuple[Any, ...] = tuple(result) if isinstance(result, list | tuple) else (None,)
        if not all(isinstance(each, Run | RunRef | ReadOn) for each in told):
            raise ProtocolError(
                f"{self.NAME}.fetch_many returned {_told(result)}; it must be a list or tuple of runs, or of their refs"
            )
        return told


_CONSTANTS: Final = tuple(each.name for each in fields(Vendor) if each.name not in {**_REQUIRED, **_OPTIONAL})


def mistake(function: str, error: BaseException, response: Response | None) -> ProtocolError:
    """Return the error for a mistake within a dialect, or an answer that it was not written for."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f", in {each.name} at line {each.lineno} of {each.filename}" for each in last)
    return ProtocolError(f"{function} failed{_on(response)} with {type(error).__name__}: {error}{where}", response)


def name_of(flow: Any) -> str:
    """Return the name of the function that made a flow, such as `narrative.fetch`."""
    return str(getattr(flow, "__qualname__", type(flow).__name__))


def _on(response: Response | None) -> str:
    return "" if response is None or response.request.method == "NONE" else f" on the answer to {response.request.line}"


def _wrong(name: object, what: str) -> ConfigurationError:
    return ConfigurationError(f"the dialect {name} is not right: {what}", field="dialect")


def _fields(kind: type[Any]) -> Sequence[str]:
    return [each.name for each in fields(kind)] if has(kind) else []


def _has(dialect: object, name: str) -> bool:
    missing = object()
    return getattr(dialect, name, missing) is not missing


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, none of what is no function, or is written in C."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _takes(function: Any, count: int, given: Mapping[str, Any]) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count), **given)
    except TypeError:
        return False
    except ValueError:  # of something written in C
        return True
    return True


def _told(value: object) -> str:
    try:
        said = f"a function of {inspect.signature(value)}" if callable(value) else repr(value)
    except (TypeError, ValueError):
        said = repr(value)
    return said if len(said) <= _MISTYPED else f"{said[:_MISTYPED]}..."


def _meant(dialect: object, missing: Sequence[str]) -> str:
    """Return a hint to functions whose names are nearly those of the *missing*."""
    known = {*_REQUIRED, *_OPTIONAL, *_CONSTANTS}
    plain = {name.replace("_", "").lower(): name for name in missing}
    hints = []
    for name in dir(dialect):
        if name in known or name.startswith("_") or not _is_own(dialect, name):
            continue
        bare = name.replace("_", "").lower()
        near = get_close_matches(bare, plain, 1, _CLOSE)
        if near and near[0] not in {f"{bare}s", bare.removesuffix("s") if bare.endswith("s") else ""}:
            hints.append(f" It has `{name}`: did you mean `{plain[near[0]]}`?")
    return "".join(hints)


def _is_own(dialect: object, name: str) -> bool:
    value = getattr(dialect, name, None)
    if not inspect.isroutine(value):
        return False
    return not isinstance(dialect, ModuleType) or getattr(value, "__module__", None) == dialect.__name__
