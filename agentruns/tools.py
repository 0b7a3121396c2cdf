"""
Handlers: who answers what a run asks for, and how.

Only the text of a `ToolError`, a timeout, or arguments that do not fit reach the model. Any other exception is a bug of
the application: it reaches the caller as it is, and nothing is posted.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, overload
from weakref import ReferenceType, ref

from attrs import field, frozen

from agentruns._values.generic import Json

from ._handlers import outputs, threads
from ._handlers.items import current_item as current_item
from ._values import check
from ._values.run import Action, Run, ToolOutput
from .errors import AgentRunsError, ConfigurationError, ToolError

if TYPE_CHECKING:  # imported with the first tool, as it brings the library that makes schemas
    from ._handlers.signature import Signature

logger = logging.getLogger("agentruns")

Function: TypeAlias = Callable[..., Any]
F = TypeVar("F", bound=Function)
T = TypeVar("T")


class Ends(Protocol):
    """A pause that may end before it is answered."""

    @property
    def is_over(self) -> bool:
        """Tell whether nobody asks any more."""
        ...

    async def look(self) -> bool:
        """Ask the vendor now, and return whether nobody asks any more."""
        ...


Around: TypeAlias = Callable[[str, Action], AbstractContextManager[None]]
"""What gives the context in which a handler is called, by the handler's name and its action."""

_around: ContextVar[Around | None] = ContextVar("agentruns_around", default=None)
_asking: ContextVar[tuple[Run, str | None, Ends | None, Any]] = ContextVar("agentruns_asking")
_guard: ContextVar[ReferenceType[asyncio.Timeout]] = ContextVar("agentruns_guard")
"""By a weak reference, since a timer of a handler keeps its context, and the guard the task and all that it raised."""


def current_run() -> Run:
    """
    Return the run for which a handler is running, paused as it is; for use within handlers, sync ones included.

    Raise `ConfigurationError` outside a handler of a stream.
    """
    return _asked()[0]


def current_key() -> str | None:
    """Return the key of the work for which a handler is running, None if it has none; else as `current_run`."""
    return _asked()[1]


def current_origin() -> Any:
    """Return what started the run for which a handler is running, None if its stream has not; else as `current_run`."""
    return _asked()[3]


def current_pause_is_over() -> bool:
    """
    Tell whether the run goes on without the answer of the running handler; for use within handlers, sync ones included.

    It was answered elsewhere, or cancelled. That is why an async handler is cancelled; one in a thread runs on, may ask
    here, and its answer is dropped. Raise `ConfigurationError` outside a handler of a stream.
    """
    pause = _asked()[2]
    return pause is not None and pause.is_over


def current_pause() -> Ends | None:
    """Return the pause for which a handler is running, None where nobody looks for its end; else as `current_run`."""
    return _asked()[2]


def current_guard() -> asyncio.Timeout | None:
    """Return what ends the running handler when its own timeout has passed; None outside a handler."""
    known = _guard.get(None)
    return None if known is None else known()


def _asked() -> tuple[Run, str | None, Ends | None, Any]:
    try:
        return _asking.get()
    except LookupError:
        raise ConfigurationError(
            "there is no current run here: only a handler that a stream has called, through `tools=`, has one"
        ) from None


async def asking(
    run: Run,
    key: str | None,
    handle: Callable[[], Awaitable[T]],
    pause: Ends | None = None,
    origin: Any = None,
    around: Around | None = None,
) -> T:
    """
    Return what *handle* returns; the handlers that it runs can tell for which run they are asked.

    Each is called within the context that *around* gives.
    """
    before, outer = _asking.set((run, key, pause, origin)), _around.set(around)
    try:
        return await handle()
    finally:
        _around.reset(outer)
        _asking.reset(before)


@frozen
class ToolSchema:
    """
    What a model must know of a tool.

    `description` is the function's docstring, empty where it has none. `input_schema` is the JSON Schema of the
    arguments, an object.
    """

    name: str
    description: str
    input_schema: Mapping[str, Json]


@frozen
class Tool:
    """
    One handler.

    `signature` is None for a handler that takes the `Action` itself. `timeout` is in seconds. `repeatable` says that
    running it again after a crash does no harm. A `lenient` one takes numbers as text, and drops extra arguments.
    `for_model` says that a model gives the arguments, and is told which of them do not fit; else the vendor gives them.
    """

    name: str
    function: Function = field(repr=False)
    signature: Signature | None
    timeout: float | None = None
    repeatable: bool = False
    lenient: bool = False
    for_model: bool = True

    async def __call__(self, action: Action) -> ToolOutput:
        """Answer *action*; raise whatever the function raises, unless it is for the model."""
        return await self.written(action, await self.run(action))

    async def run(self, action: Action) -> Any:
        """
        Call the function for *action*, and return what it returns, or what the model is told instead.

        When this has returned, the function has done its work, whatever becomes of its answer.
        """
        guard, around = asyncio.timeout(None), _around.get()
        before = _guard.set(ref(guard))
        try:
            with nullcontext() if around is None else around(self.name, action):
                return await _call(self._bound(action), guard, self.timeout)
        except ToolError as error:
            return outputs.refusal_of(action, error)
        except TimeoutError:
            if not guard.expired():
                raise
            return ToolOutput(action, f"the tool gave no answer within {self.timeout:g} s", is_error=True)
        finally:
            _guard.reset(before)

    async def written(self, action: Action, returned: Any) -> ToolOutput:
        """Return what `run` has returned as the answer; raise `ConfigurationError` for what JSON cannot carry."""
        return await outputs.answer_of(action, returned, f"the output of tool {self.name!r}")

    def _bound(self, action: Action) -> Callable[[], Any]:
        if self.signature is None:
            return partial(self.function, action)
        if not self.signature.fields.members:  # some vendors tell more with an action than a handler needs
            positional, named = self.signature.structure({}, action)
            return partial(self.function, *positional, **named) if positional or named else self.function
        from ._handlers.shapes import MisfitError

        try:
            lenient = self.lenient or not self.for_model
            positional, named = self.signature.structure(action.arguments, action, lenient=lenient)
        except MisfitError as error:
            if not self.for_model:  # nobody is there who could call it otherwise
                raise ConfigurationError(
                    f"the handler {self.name!r} cannot be called with what action {action.id} gives it "
                    f"({', '.join(action.arguments) or 'nothing'}): {error}. Let it take the `Action` instead"
                ) from None
            # Neither values nor names that the model made up are for the log.
            logger.warning("the arguments of tool %r do not fit, at `$%s`", self.name, error.path)
            raise ToolError(f"the arguments do not fit: {error}") from None
        return partial(self.function, *positional, **named)


class Tools:
    """
    Handlers by name.

    `@tools.add` registers a function under its own name; `@tools.default` registers one that takes, as an `Action`, all
    that no name matches. Async functions are awaited, others run in a worker thread with the caller's context
    variables.

    What a handler returns becomes the answer: anything that `json.dumps` or pydantic would write, or a `ToolOutput`.
    The text of a `ToolError`, arguments that do not fit and a handler's own timeout become an answer with `is_error`,
    for the model. Any other exception reaches the caller of the stream as it is, and nothing is posted.

    Arguments are taken as the type hints say and no more. *lenient* handlers take numbers and objects that are sent as
    text, and null for what has a default; they drop arguments that they do not know.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        check.boolean("lenient", lenient)
        self._lenient = lenient
        self._tools: dict[str, Tool] = {}
        self._default: Tool | None = None

    def __repr__(self) -> str:
        return f"Tools({', '.join([*self._tools, *(['*'] if self._default else [])])})"

    @overload
    def add(
        self,
        function: F,
        /,
        *,
        name: str | None = ...,
        timeout: float | None = ...,
        repeatable: bool | None = ...,
        hidden: Collection[str] = ...,
        lenient: bool | None = ...,
    ) -> F: ...

    @overload
    def add(
        self,
        /,
        *,
        name: str | None = ...,
        timeout: float | None = ...,
        repeatable: bool | None = ...,
        hidden: Collection[str] = ...,
        lenient: bool | None = ...,
    ) -> Callable[[F], F]: ...

    def add(
        self,
        function: F | None = None,
        /,
        *,
        name: str | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
        hidden: Collection[str] = (),
        lenient: bool | None = None,
    ) -> F | Callable[[F], F]:
        """
        Register *function* and return it as it is; usable as a decorator, with or without arguments.

        *name* is what the model calls, by default the function's own name. Arguments are made by the type hints. A
        parameter that is annotated `Action` gets the action itself, and no model gives it.

        *timeout* is in seconds, from the moment the function is called; None, the default, sets no end but the
        stream's. When it has passed, an async function is cancelled, a thread is left behind, and the model gets the
        answer, with `is_error`, that the tool gave none in time.

        *repeatable* says that running the function again after a crash does no harm; without it, the outcome of a
        handler that was running when its process died is unknown (`ToolOutcomeUnknownError`). Where it is not given,
        the function's own attribute of that name holds, else False.

        *hidden* names parameters with defaults that models neither see nor give, such as a password. *lenient* is as
        for the registry, whose own holds where it is None.

        Raise `ConfigurationError` for a name that is taken or that hosts of models do not take, a method without its
        object, a generator, a signature that has no JSON Schema, or a timeout that is not above zero.
        """
        if function is None:
            return lambda function: self.add(
                function, name=name, timeout=timeout, repeatable=repeatable, hidden=hidden, lenient=lenient
            )
        tool = _tool(function, name, timeout, repeatable, hidden, self._lenient if lenient is None else lenient)
        if tool.name in self._tools:
            raise ConfigurationError(
                f"two tools are called {tool.name!r}; give one another name: `tools.add(function, name=...)`"
            )
        self._tools[tool.name] = tool
        return function

    @overload
    def default(self, function: F, /, *, timeout: float | None = ..., repeatable: bool | None = ...) -> F: ...

    @overload
    def default(self, /, *, timeout: float | None = ..., repeatable: bool | None = ...) -> Callable[[F], F]: ...

    def default(
        self, function: F | None = None, /, *, timeout: float | None = None, repeatable: bool | None = None
    ) -> F | Callable[[F], F]:
        """
        Register *function*, which takes the `Action`, for every action that no name matches, and return it as it is.

        *timeout* and *repeatable* are as in `add`. Raise `ConfigurationError` for a second one, and for a function that
        takes anything but one `Action`.
        """
        if function is None:
            return lambda function: self.default(function, timeout=timeout, repeatable=repeatable)
        if self._default is not None:
            raise ConfigurationError("there are two default handlers; keep one, and let it look at `action.name`")
        seconds = _seconds(timeout, "default")
        from ._handlers.signature import check_default

        check_default(_callable(function))
        self._default = Tool("default", function, None, seconds, _is_repeatable(function, repeatable))
        return function

    @classmethod
    def of(cls, tools: ToolsLike | None) -> Tools:
        """
        Return the registry of what users may pass as `tools`.

        That is a `Tools`, returned as it is; a mapping of names to functions, each added; one function of an `Action`,
        the default; or None, which gives an empty registry. Raise `ConfigurationError` as `add` does.
        """
        if isinstance(tools, Tools):
            return tools
        made = cls()
        if isinstance(tools, Mapping):
            for name, function in tools.items():
                made.add(_callable(function), name=_name(name, function))
        elif tools is not None:
            made.default(tools)
        return made

    def schemas(self) -> tuple[ToolSchema, ...]:
        """
        Return name, description and JSON Schema of every named tool, in the order of registration.

        Raise `ConfigurationError` for a name that hosts of models do not take: handlers of Actions may have any name.
        """
        from ._handlers.docstrings import description
        from ._handlers.signature import check_name

        for name in self._tools:
            check_name(name)
        return tuple(
            ToolSchema(
                tool.name,
                tool.signature.description if tool.signature else description(tool.function),
                tool.signature.schema if tool.signature else {"type": "object"},
            )
            for tool in self._tools.values()
        )

    def find(self, names: Sequence[str]) -> Tool | None:
        """Return the handler for the first of *names* that has one, else the default, else None."""
        return next((self._tools[name] for name in names if name in self._tools), self._default)


ToolsLike: TypeAlias = Tools | Mapping[str, Function] | Callable[[Action], Any]
"""What is accepted as `tools`: a registry, a mapping of names to functions, or one function of an `Action`."""

Handler: TypeAlias = Callable[[Action], Awaitable[ToolOutput]]
"""What answers an action: a `Tool`, or something around one."""


async def answer(handlers: Iterable[tuple[Action, Handler]], answers: MutableMapping[str, ToolOutput]) -> None:
    """
    Run the handlers of one pause concurrently, entering each answer into *answers* as it comes.

    An answer that is already there is kept, and its handler not run. The first exception that is not for the model
    cancels the other handlers and is raised as it is; later ones are added to it as notes. A handler that cancels
    itself leaves no answer, which is an error once the others have ended.
    """

    async def enter(action: Action, tool: Handler) -> None:
        try:
            answers[action.id] = await tool(action)
        except (StopIteration, StopAsyncIteration) as error:  # these would end the stream, or the task, silently
            raise RuntimeError(f"the handler of {action.name!r} raised {type(error).__name__}") from error

    asked = [(action, tool) for action, tool in handlers if action.id not in answers]
    failed: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            for action, tool in asked:
                group.create_task(enter(action, tool))
    except BaseExceptionGroup as together:
        failed.extend(together.exceptions)
    if failed:
        first, *others = failed
        for other in others:
            first.add_note(f"another handler failed too: {other!r}")
        raise first
    silent = [action.name for action, _ in asked if action.id not in answers]
    if silent:
        raise AgentRunsError(
            f"the handler of {', '.join(map(repr, silent))} was cancelled from within; it must return, or raise "
            "ToolError"
        )


async def _call(call: Callable[[], Any], guard: asyncio.Timeout, seconds: float | None) -> Any:
    """
    Call an async function in this loop, any other in a worker thread; a thread cannot be stopped, only left.

    The *guard* is set to so many *seconds* when the call begins: waiting for a free thread is not the tool's time.
    """
    slot = None if _is_async(call) else await threads.acquire()
    async with guard:
        if seconds is not None:
            guard.reschedule(asyncio.get_running_loop().time() + seconds)
        try:
            result = call() if slot is None else await slot.run(call, guard)
            return await result if inspect.isawaitable(result) else result
        except SystemExit as error:  # which would end the loop with all that it runs
            raise threads.ended_by(error) from error


def _is_async(function: Function) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _tool(
    function: Function,
    name: str | None,
    timeout: float | None,
    repeatable: bool | None,
    hidden: Collection[str],
    lenient: bool,
) -> Tool:
    called = _name(name, _callable(function))
    check.boolean("lenient", lenient)
    from ._handlers.signature import Signature, check_name

    signature = Signature.of(function, called, hidden)
    if signature is not None:
        check_name(called)
    seconds = _seconds(timeout, called)
    return Tool(called, function, signature, seconds, _is_repeatable(function, repeatable), lenient)


def _name(name: str | None, function: Function) -> str:
    called = getattr(function, "__name__", None) if name is None else name
    if not isinstance(called, str) or not called or called == "<lambda>":
        raise ConfigurationError(f"{function!r} has no name; give it one: `tools.add(function, name=...)`")
    return called


def _is_repeatable(function: Function, given: bool | None) -> bool:
    if given is not None:
        check.boolean("repeatable", given)
    return getattr(function, "repeatable", False) is True if given is None else given


def _callable(function: Function) -> Function:
    if not callable(function):
        raise ConfigurationError(f"{function!r} cannot be a handler; pass a function, a mapping of them, or Tools()")
    if _lacks_object(function):
        raise ConfigurationError(
            f"{function!r} is a method without its object, which no model can give; register it of an object: "
            "`tools.add(thing.method)`. In the body of a class, leave the decorator out"
        )
    return function


def _lacks_object(function: Function) -> bool:
    """Tell whether this is a method as its class has it: its first parameter waits for the object."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    owner = getattr(inner, "__qualname__", "").rpartition(".")[0]
    if not owner or owner.endswith("<locals>") or inspect.isclass(inner):
        return False
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # which is told of where the signature is needed
        return False
    return first is not None and first.name in {"self", "cls"} and first.default is first.empty


def _seconds(timeout: float | None, name: str) -> float | None:
    if timeout is not None:
        check.number(f"the timeout of tool {name!r}", timeout)
    return timeout
