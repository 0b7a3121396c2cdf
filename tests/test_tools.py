"""Tools: registering handlers, and what becomes of what they return and raise."""

import asyncio
import contextlib
import contextvars
import enum
import functools
import math
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import pytest
from attrs import field, frozen

from agentruns import Action, AgentRunsError, ConfigurationError, ToolError, ToolOutput, Tools
from agentruns.tools import Tool, ToolSchema, answer
from tests.scripted_wire import refuses


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Any:
    return pytest.mark.asyncio(pytest.mark.virtual(test))


def pay(amount: int) -> int:
    """Pay an amount."""
    return amount


async def ask(question: str) -> str:
    """Ask a person."""
    return question


def tool_of(function: Callable[..., Any], **options: Any) -> Tool:
    tools = Tools()
    tools.add(function, name="it", **options)
    return found(tools, "it")


def found(tools: Tools, *names: str) -> Tool:
    tool = tools.find(names)
    assert tool is not None
    return tool


def action(name: str = "it", id: str = "call-1", **arguments: Any) -> Action:  # noqa: A002
    return Action(id, name, arguments)


async def answered(handlers: Mapping[str, Any], answers: dict[str, ToolOutput] | None = None) -> dict[str, ToolOutput]:
    """Let each handler answer an action of its own name and id."""
    answers = {} if answers is None else answers
    tools = Tools.of(handlers)
    await answer([(action(name, name), found(tools, name)) for name in handlers], answers)
    return answers


# Registering ----------------------------------------------------------------------------------------------------------


def test_functions_are_added_with_and_without_arguments_and_stay_what_they_are() -> None:
    tools = Tools()

    @tools.add
    def first(a: int) -> int:
        return a

    @tools.add(name="second_one", timeout=5, repeatable=True)
    async def second() -> None: ...

    @tools.add()
    def third() -> None: ...

    @tools.default(timeout=7.5, repeatable=True)
    def rest(action: Action) -> str:
        return action.name

    tools.add(pay, name="fourth", timeout=None)

    assert first(1) == 1
    assert rest(action("x")) == "x"
    assert [each.name for each in tools.schemas()] == ["first", "second_one", "third", "fourth"]
    assert repr(tools) == "Tools(first, second_one, third, fourth, *)"
    assert (found(tools, "second_one").timeout, found(tools, "second_one").repeatable) == (5, True)
    assert (found(tools, "first").timeout, found(tools, "first").repeatable) == (None, False)
    assert (found(tools, "other").name, found(tools, "other").timeout) == ("default", 7.5)
    assert found(tools, "other").repeatable
    assert "first" not in repr(found(tools, "first")).replace("name='first'", "")


def test_the_first_name_that_has_a_handler_is_found_else_the_default_else_nothing() -> None:
    tools = Tools.of({"whole-name": pay, "name": ask})

    assert found(tools, "whole-name", "name").function is pay
    assert found(tools, "other-name", "name").function is ask
    assert tools.find(["nobody"]) is None
    tools.default(lambda action: None)
    assert found(tools, "nobody").name == "default"
    assert found(tools, "nobody", "name").function is ask


def test_a_name_can_be_taken_only_once() -> None:
    tools = Tools()
    tools.add(pay)

    with pytest.raises(ConfigurationError, match=r"two tools are called 'pay'; give one another name: `tools\.add"):
        tools.add(pay)
    tools.add(pay, name="pay_again")
    with pytest.raises(ConfigurationError, match="two tools are called 'pay_again'"):
        tools.add(ask, name="pay_again")


def test_there_is_one_default() -> None:
    tools = Tools()
    tools.default(lambda action: None)

    with pytest.raises(ConfigurationError, match="there are two default handlers; keep one"):
        tools.default(lambda action: None)


class Caller:
    def __call__(self, a: int) -> int:
        return a


@pytest.mark.parametrize("function", [lambda: None, functools.partial(pay), Caller()])
def test_what_has_no_name_of_its_own_must_be_given_one(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"has no name; give it one: `tools\.add\(function, name=\.\.\.\)`"):
        Tools().add(function)
    Tools().add(function, name="named")


@pytest.mark.parametrize("name", ["", 7, b"pay", "<lambda>"])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no name"):
        Tools().add(pay, name=name)
    with pytest.raises(ConfigurationError, match="has no name"):
        Tools.of({name: pay})


@pytest.mark.parametrize("thing", ["pay", 7, [pay], object()])
def test_what_cannot_be_called_is_refused(thing: Any) -> None:
    for register in (Tools().add, Tools().default, Tools.of, lambda it: Tools.of({"it": it})):
        with pytest.raises(
            ConfigurationError, match="cannot be a handler; pass a function, a mapping of them, or Tools"
        ):
            register(thing)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "5", True])
def test_a_timeout_that_cannot_work_is_refused_by_the_tools_name(seconds: Any) -> None:
    for register in (Tools().add, Tools().default):
        with pytest.raises(ConfigurationError, match=r"the timeout of tool '(pay|default)' is .*; it must be a finite"):
            register(pay, timeout=seconds)


def test_a_refused_function_is_not_registered() -> None:
    tools = Tools()

    def star(*everything: int) -> None: ...

    for unfit in (star, "pay"):
        with pytest.raises(ConfigurationError):
            tools.add(unfit)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError):
        tools.add(pay, timeout=-1)
    assert tools.schemas() == ()
    tools.add(pay)


def test_a_registry_a_mapping_a_function_or_nothing_may_be_passed_as_tools() -> None:
    tools = Tools()

    assert Tools.of(tools) is tools
    assert repr(Tools.of({"pay": pay, "ask": ask})) == "Tools(pay, ask)"
    assert repr(Tools.of(lambda action: None)) == "Tools(*)"
    assert repr(Tools.of(None)) == "Tools()"


def test_schemas_name_and_describe_each_tool_in_order() -> None:
    def review(action: Action) -> str:
        """Review anything."""
        return action.name

    tools = Tools.of({"pay": pay, "review": functools.partial(review), "quiet": lambda: 1})
    tools.default(review)

    assert tools.schemas() == (
        ToolSchema(
            "pay",
            "Pay an amount.",
            {
                "type": "object",
                "properties": {"amount": {"type": "integer"}},
                "required": ["amount"],
                "additionalProperties": False,
            },
        ),
        ToolSchema("review", "Review anything.", {"type": "object"}),
        ToolSchema("quiet", "", {"type": "object", "properties": {}, "required": [], "additionalProperties": False}),
    )


# Calling --------------------------------------------------------------------------------------------------------------


@frozen
class Line:
    no: int
    price: float = 0.0


@frozen
class Receipt:
    line: Line
    at: datetime
    notes: list[str] = field(factory=list)


class Colour(enum.Enum):
    RED = "red"


@in_virtual_time
async def test_arguments_arrive_as_the_types_of_the_hints_and_outputs_leave_as_plain_json() -> None:
    async def book(line: Line, colour: Colour, *, at: datetime) -> Any:
        assert isinstance(line, Line)
        return [Receipt(line, at), colour, {Colour.RED: {1}}, (None, 2.5)]

    given = action(line={"no": 1}, colour="red", at="2026-06-02T00:00:00Z")

    assert await tool_of(book)(given) == ToolOutput(
        given,
        [
            {"line": {"no": 1, "price": 0.0}, "at": "2026-06-02T00:00:00Z", "notes": []},
            "red",
            {"red": [1]},
            [None, 2.5],
        ],
    )


@in_virtual_time
async def test_arguments_that_do_not_fit_are_an_error_for_the_model_that_names_the_path() -> None:
    async def book(lines: list[Line]) -> None:
        raise AssertionError("it was called")

    misfits: list[tuple[dict[str, Any], str]] = [
        ({"lines": [{"no": 1}, {"no": "2"}]}, "Expected `int`, got `str` - at `$.lines[1].no`"),
        ({}, "Object missing required field `lines`"),
        ({"lines": [], "more": 1}, "Object contains unknown field `more`"),
    ]
    for arguments, reason in misfits:
        output = await tool_of(book)(action(**arguments))
        assert output == ToolOutput(action(**arguments), f"the arguments do not fit: {reason}", is_error=True)


@in_virtual_time
async def test_a_handler_of_actions_gets_the_action_whatever_its_arguments_are() -> None:
    async def anything(action: Action) -> Any:
        return [action.id, action.name, dict(action.arguments)]

    tools = Tools.of(anything)

    assert (await found(tools, "x")(action("x", "7", a=1))).output == ["7", "x", {"a": 1}]
    assert (await tool_of(anything)(action("x", "7", a=1))).output == ["7", "x", {"a": 1}]


@in_virtual_time
async def test_methods_partials_and_objects_can_be_handlers() -> None:
    class Desk:
        async def add(self, a: int) -> int:
            return a + 1

        async def __call__(self, a: int) -> int:
            return a + 2

    @functools.wraps(ask)
    async def wrapped(*given: Any, **named: Any) -> str:
        return "wrapped " + await ask(*given, **named)

    assert (await tool_of(Desk().add)(action(a=1))).output == 2
    assert (await tool_of(Desk())(action(a=1))).output == 3
    assert (await tool_of(functools.partial(Desk()))(action(a=1))).output == 3
    assert (await tool_of(functools.partial(Desk().add, 5))(action())).output == 6
    described = functools.partial(Desk())
    described.__doc__ = "Add two."
    assert (await tool_of(described)(action(a=1))).output == 3
    assert (await tool_of(wrapped)(action(question="who?"))).output == "wrapped who?"


@in_virtual_time
async def test_an_async_function_runs_in_the_loop() -> None:
    async def where() -> bool:
        return asyncio.get_running_loop() is loop and threading.get_ident() == thread

    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    assert (await tool_of(where)(action())).output is True


# In threads, on a real loop -------------------------------------------------------------------------------------------

LONGEST = 30.0
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


class Held:
    """A sync handler that tells the loop when it runs and waits until it is let go."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.running = asyncio.Event()
        self.let_go = threading.Event()
        self.ended = asyncio.Event()

    def __call__(self) -> int:
        self.loop.call_soon_threadsafe(self.running.set)
        assert self.let_go.wait(LONGEST)
        self.loop.call_soon_threadsafe(self.ended.set)
        return threading.get_ident()


@pytest.mark.asyncio
async def test_a_sync_function_never_runs_on_the_loops_thread_and_the_loop_goes_on_meanwhile() -> None:
    held = Held()
    task = asyncio.create_task(tool_of(held)(action()))
    await held.running.wait()  # which a blocked loop would never see
    assert not task.done()
    held.let_go.set()

    assert (await task).output != threading.get_ident()


@pytest.mark.asyncio
async def test_a_sync_function_sees_the_callers_context_variables() -> None:
    def read() -> str:
        seen = request_id.get()
        request_id.set("changed")
        return seen

    request_id.set("req-7")

    assert (await tool_of(read)(action())).output == "req-7"
    assert request_id.get() == "req-7"


@pytest.mark.asyncio
async def test_what_a_sync_function_returns_to_be_awaited_is_awaited_in_the_loop() -> None:
    thread = threading.get_ident()

    async def inner(a: int) -> list[bool]:
        return [threading.get_ident() == thread, a == 1]

    @functools.wraps(inner)
    def hidden(*given: Any, **named: Any) -> Any:
        assert threading.get_ident() != thread
        return inner(*given, **named)

    assert (await tool_of(hidden)(action(a=1))).output == [True, True]
    assert (await tool_of(lambda: inner(1))(action())).output == [True, True]


@pytest.mark.asyncio
async def test_sync_handlers_of_one_pause_run_at_the_same_time() -> None:
    meeting = threading.Barrier(5, timeout=LONGEST)

    def meet() -> int:
        return meeting.wait()

    answers = await answered({f"guest-{number}": meet for number in range(5)})

    assert sorted(each.output for each in answers.values()) == [0, 1, 2, 3, 4]


@pytest.mark.asyncio
async def test_a_sync_function_that_exceeds_its_timeout_is_left_behind_with_an_error_for_the_model() -> None:
    held = Held()
    output = await tool_of(held, timeout=0.02)(action())

    assert output == ToolOutput(action(), "the tool gave no answer within 0.02 s", is_error=True)
    assert not held.ended.is_set()
    held.let_go.set()
    await held.ended.wait()


@pytest.mark.asyncio
async def test_a_cancelled_wait_does_not_wait_for_the_thread() -> None:
    held = Held()
    task = asyncio.create_task(answered({"held": held}))
    await held.running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not held.ended.is_set()
    held.let_go.set()
    await held.ended.wait()


@pytest.mark.asyncio
async def test_leaving_a_scope_of_anyio_does_not_wait_for_the_thread_either() -> None:
    held = Held()
    with anyio.move_on_after(0.02):
        await tool_of(held)(action())

    assert not held.ended.is_set()
    held.let_go.set()
    await held.ended.wait()


@pytest.mark.asyncio
async def test_what_a_sync_function_raises_is_treated_as_that_of_an_async_one() -> None:
    bug = ZeroDivisionError("a bug")
    own = TimeoutError("the bank's")

    def fail(error: Exception) -> Callable[[], None]:
        def handler() -> None:
            raise error

        return handler

    assert (await tool_of(fail(ToolError("no such invoice")))(action())).output == "no such invoice"
    for error in (bug, own):
        with pytest.raises(type(error)) as caught:
            await tool_of(fail(error), timeout=60)(action())
        assert caught.value is error
        assert any(entry.name == "handler" for entry in caught.traceback)


# Timeouts -------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_async_function_that_exceeds_its_timeout_is_cancelled_with_an_error_for_the_model() -> None:
    ended = False

    async def slow() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(1000)
        finally:
            ended = True

    output = await tool_of(slow, timeout=2.5)(action())

    assert output == ToolOutput(action(), "the tool gave no answer within 2.5 s", is_error=True)
    assert asyncio.get_running_loop().time() == 2.5
    assert ended


@in_virtual_time
async def test_an_answer_within_the_timeout_counts() -> None:
    async def brisk() -> str:
        await asyncio.sleep(2.4)
        return "done"

    assert await tool_of(brisk, timeout=2.5)(action()) == ToolOutput(action(), "done")


@in_virtual_time
@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_timeout_of_the_functions_own_is_not_taken_for_the_tools(timeout: float | None) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(1000)

    with pytest.raises(TimeoutError) as caught:
        await tool_of(impatient, timeout=timeout)(action())
    assert any(entry.name == "impatient" for entry in caught.traceback)


@in_virtual_time
async def test_the_default_handler_has_a_timeout_too() -> None:
    tools = Tools()

    @tools.default(timeout=1)
    async def person(action: Action) -> None:
        await asyncio.sleep(1000)

    assert (await found(tools, "x")(action())).is_error


# What reaches the model -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_text_of_a_tool_error_reaches_the_model() -> None:
    class RefusedError(ToolError):
        pass

    async def refuse(text: str) -> None:
        raise RefusedError(text) if text else ToolError

    assert await tool_of(refuse)(action(text="not on Sundays")) == ToolOutput(
        action(text="not on Sundays"), "not on Sundays", is_error=True
    )
    assert (await tool_of(refuse)(action(text=""))).output == "the tool failed and gave no reason"


def _cyclic() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@in_virtual_time
@pytest.mark.parametrize(
    "output",
    [math.nan, [math.inf], object(), {object()}, {"?": 0, "\ud800": 1}, {(1, 2): 3}, {1: 1, "1": 1}, _cyclic(), print],
    ids=lambda output: type(output).__name__,
)
async def test_an_output_that_json_cannot_carry_is_a_bug_of_the_tool_that_is_named(output: Any) -> None:
    async def produce() -> Any:
        return output

    with pytest.raises(ConfigurationError, match=r"^the output of tool 'it' is not something that JSON can carry"):
        await tool_of(produce)(action())


@in_virtual_time
async def test_bytes_leave_as_base64_text() -> None:
    async def produce() -> bytes:
        return b"abc"

    assert (await tool_of(produce)(action())).output == "YWJj"


# Several at once ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_handlers_of_one_pause_run_concurrently() -> None:
    def waiting(seconds: float) -> Callable[[], Awaitable[float]]:
        async def wait() -> float:
            await asyncio.sleep(seconds)
            return seconds

        return wait

    answers = await answered({"a": waiting(3), "b": waiting(1), "c": waiting(2)})

    assert asyncio.get_running_loop().time() == 3
    assert {name: output.output for name, output in answers.items()} == {"a": 3, "b": 1, "c": 2}
    assert list(answers) == ["b", "c", "a"]


async def quick() -> str:
    return "done"


@in_virtual_time
async def test_an_answer_that_is_there_is_kept_and_its_handler_not_run() -> None:
    async def never() -> None:
        raise AssertionError("it was run")

    kept = ToolOutput(action("old", "old"), "from before")
    answers = await answered({"old": never, "new": quick}, {"old": kept})

    assert answers["old"] is kept
    assert answers["new"].output == "done"


@in_virtual_time
async def test_a_failure_is_raised_as_it_is_and_cancels_the_others_but_keeps_their_answers() -> None:
    bug = KeyError("a bug")
    cancelled: list[str] = []

    async def broken() -> None:
        await asyncio.sleep(1)
        raise bug

    async def slow() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append("slow")
            raise

    answers: dict[str, ToolOutput] = {}
    with pytest.raises(KeyError) as caught:
        await answered({"quick": quick, "broken": broken, "slow": slow}, answers)

    assert caught.value is bug
    assert any(entry.name == "broken" for entry in caught.traceback)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "ExceptionGroup" not in "".join(traceback.format_exception(caught.value))
    assert cancelled == ["slow"]
    assert asyncio.get_running_loop().time() == 1
    assert {name: each.output for name, each in answers.items()} == {"quick": "done"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_a_second_failure_is_noted_on_the_first() -> None:
    async def first() -> None:
        await asyncio.sleep(1)
        raise KeyError("first")

    async def second() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise ValueError("second")

    with pytest.raises(KeyError, match="first") as caught:
        await answered({"second": second, "first": first})

    assert caught.value.__notes__ == ["another handler failed too: ValueError('second')"]


@in_virtual_time
async def test_a_group_that_a_handler_raises_reaches_the_caller_as_it_is() -> None:
    group = ExceptionGroup("mine", [ValueError("a"), ToolError("b")])

    async def broken() -> None:
        raise group

    with pytest.raises(ExceptionGroup) as caught:
        await answered({"broken": broken, "quick": quick})
    assert caught.value is group


@in_virtual_time
async def test_an_error_for_the_model_does_not_disturb_the_others() -> None:
    async def refuse() -> None:
        raise ToolError("no")

    async def slow() -> str:
        await asyncio.sleep(5)
        return "late"

    answers = await answered({"refuse": refuse, "slow": slow})

    assert [(each.output, each.is_error) for each in answers.values()] == [("no", True), ("late", False)]


@in_virtual_time
async def test_a_handler_that_cancels_itself_is_an_error_that_names_it() -> None:
    async def raising() -> None:
        raise asyncio.CancelledError

    async def cancelling() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    for handler in (raising, cancelling):
        for timeout in (None, 60):
            tools, answers = Tools.of({"quick": quick}), dict[str, ToolOutput]()
            tools.add(handler, name="odd", timeout=timeout)
            with pytest.raises(AgentRunsError, match=r"the handler of 'odd' was cancelled from within; it must return"):
                await answer([(action(name, name), found(tools, name)) for name in ("quick", "odd")], answers)
            assert list(answers) == ["quick"]


@in_virtual_time
async def test_cancelling_the_wait_cancels_the_handlers_and_keeps_the_answers() -> None:
    ended: list[float] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.get_running_loop().time())

    answers: dict[str, ToolOutput] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(7):
            await answered({"quick": quick, "slow": slow}, answers)
            raise AssertionError("it was not cancelled")

    assert ended == [7]
    assert list(answers) == ["quick"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_no_handlers_is_no_work() -> None:
    assert await answered({}) == {}


@pytest.mark.asyncio
async def test_waiting_for_a_worker_thread_does_not_use_up_the_tools_timeout() -> None:
    tools = Tools()
    gate = threading.Barrier(1)

    @tools.default(timeout=2)
    def look_up(action: Action) -> str:
        gate.wait()
        time.sleep(1.2)
        return action.id

    tool: Any = tools.find([])
    outputs = await asyncio.gather(*(tool(Action(str(number), "look_up")) for number in range(64)))

    assert [output for output in outputs if output.is_error] == []


# Methods --------------------------------------------------------------------------------------------------------------


@frozen
class Desk:
    floor: int = 1

    def book(self, day: str) -> str:
        return f"{day} on {self.floor}"

    async def decide(self, action: Action) -> str:
        return action.name

    @classmethod
    def made(cls, day: str) -> str:
        return day

    @staticmethod
    def free(day: str) -> str:
        return day

    def __call__(self, day: str) -> str:
        return day


@pytest.mark.parametrize("method", [Desk.book, Desk.decide, Desk.__call__, str.upper, partial(Desk.book, day="Monday")])
def test_a_method_without_its_object_is_refused(method: Any) -> None:
    with refuses(f"{method!r} is a method without its object", "`tools.add(thing.method)`"):
        Tools().add(method, name="book")
    with refuses(f"{method!r} is a method without its object", "`tools.add(thing.method)`"):
        Tools().default(method)
    with refuses(f"{method!r} is a method without its object", "`tools.add(thing.method)`"):
        Tools.of({"book": method})


def test_a_method_that_is_registered_in_the_body_of_its_class_is_refused() -> None:
    tools = Tools()
    with refuses("<function ", "In the body of a class, leave the decorator out"):

        class Thing:
            @tools.add
            def turn(self, by: int) -> int:
                return by


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (Desk().book, ["day"]),
        (Desk.made, ["day"]),
        (Desk.free, ["day"]),
        (Desk(), ["day"]),
        (Desk, ["floor"]),
        (partial(Desk.book, Desk()), ["day"]),
        (partial(Desk.book, self=Desk()), ["day"]),
    ],
)
def test_a_method_with_its_object_is_taken(method: Any, parameters: list[str]) -> None:
    tools = Tools()
    tools.add(method, name="book")

    assert list(tools.schemas()[0].input_schema["properties"]) == parameters


def test_a_function_may_call_a_parameter_self() -> None:
    def pick(self: str) -> str:
        return self

    tools = Tools()
    tools.add(pick)

    assert list(tools.schemas()[0].input_schema["properties"]) == ["self"]
