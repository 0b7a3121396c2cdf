"""What users may pass in by mistake: refused by name, with the remedy, before anything is sent."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import aiohttp
import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Action, Failure, Retry, Run, RunRef, RunStatus, ToolOutput, Tools, connect, middesk, narrative
from agentruns.errors import ConfigurationError
from agentruns.web import Feeds
from tests.kit import CONVERSATION, HEAD, START, Wire, client_of, conversation, run

HALF = "\ud83d"  # half of a character, as a cut in the middle of UTF-16 leaves it
REF = RunRef("run", CONVERSATION)
ACTION = Action("a-1", "book", {"day": "Monday"})
PAUSED = Run(REF, RunStatus.REQUIRES_ACTION, "requires_action", (ACTION,), vendor="narrative")

vendor: Any = narrative  # which is given what its types forbid
TOOL = narrative.Tool("book", "", {"type": "object"})


def config(**fields: Any) -> narrative.Config:
    common = {"model": "m", "data_plane_id": "d", "max_iterations": 1, "max_tokens": 1}
    return vendor.Config(**{**common, "output_format_schema": narrative.TEXT_SCHEMA, **fields})  # type: ignore[no-any-return]


def refused(begin: str, remedy: str) -> Any:
    """Return what expects an error that begins with a field and its value, and goes on to a remedy."""
    return pytest.raises(ConfigurationError, match=f"(?s)^{re.escape(begin)}.*{re.escape(remedy)}")


def book(day: str) -> str:
    """Book a day."""
    return day


async def anything(action: Action) -> str:
    return action.name


# Connecting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "begin", "remedy"),
    [
        ({"base_url": 3}, "base_url is 3; ", "must be a text, or None"),
        ({"base_url": b"https://api.test"}, "base_url is b'https://api.test'; ", "must be a text, or None"),
        (
            {"base_url": f"https://{HALF}.test"},
            "base_url is a text that UTF-8 cannot carry: it has '\\ud83d' at 8, ",
            "errors='replace'",
        ),
        ({"retry": None}, "retry is None; ", "Retry(attempts=4)"),
        ({"retry": 3}, "retry is 3; ", "Retry(attempts=4)"),
        ({"retry": Retry}, f"retry is {Retry!r}; ", "Retry(attempts=4)"),
        ({"session": 3}, "session is 3; ", "leave it out"),
        ({"session": aiohttp.ClientSession}, f"session is {aiohttp.ClientSession!r}; ", "leave it out"),
        ({"insecure": "no"}, "insecure is 'no'; ", "must be True or False"),
        ({"insecure": None}, "insecure is None; ", "must be True or False"),
        ({"insecure": 1}, "insecure is 1; ", "must be True or False"),
    ],
)
def test_an_option_of_another_type_is_refused_when_the_client_is_made(
    options: dict[str, Any], begin: str, remedy: str
) -> None:
    with refused(begin, remedy):
        connect(narrative, **({"token": "t"} | options))


@pytest.mark.parametrize("token", [b"a-token-of-bytes", 8_127_365_412, ["a-token-of-bytes"], True])
def test_a_token_that_is_no_text_is_refused_and_not_shown(token: Any) -> None:
    with refused(f"token is of the type {type(token).__name__}; ", "must be a text") as caught:
        connect(narrative, token=token)

    frames = [frame.frame.f_locals for frame in caught.traceback if frame.name == "connect"]
    assert frames
    assert all(value is not token and str(token) not in repr(value) for each in frames for value in each.values())
    assert str(token) not in str(caught.value)


def test_a_truthy_word_opens_no_plain_http_to_another_host() -> None:
    with refused("insecure is 'no'; ", "must be True or False"):
        connect(narrative, token="t", base_url="http://elsewhere.test", insecure="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="would send the token unencrypted"):
        connect(narrative, token="t", base_url="http://elsewhere.test")
    connect(narrative, token="t", base_url="http://elsewhere.test", insecure=True)


@pytest.mark.asyncio
async def test_a_session_and_a_retry_of_the_users_own_are_taken() -> None:
    class Own(Retry):
        pass

    async with aiohttp.ClientSession() as session:
        connect(narrative, token="t", session=session, retry=Own(attempts=1))


# Flags ----------------------------------------------------------------------------------------------------------------


def flagged(name: str, value: Any) -> None:
    client = client_of(Wire({}))
    calls: dict[str, Callable[[], object]] = {
        "progress": lambda: client.stream(REF, progress=value),
        "events": lambda: client.stream(REF, events=value),
        "ordered": lambda: client.batch([], ordered=value),
        "repeatable": lambda: Tools().add(book, repeatable=value),
        "ToolOutput.is_error": lambda: ToolOutput(ACTION, "x", is_error=value),
        "Tool.strict": lambda: narrative.Tool("a", "", {}, strict=value),
    }
    calls[name]()


@pytest.mark.parametrize("value", ["no", "", 0, 1, [], object])
@pytest.mark.parametrize("name", ["progress", "events", "ordered", "repeatable", "ToolOutput.is_error", "Tool.strict"])
def test_a_flag_is_true_or_false_and_nothing_else(name: str, value: Any) -> None:
    with refused(f"{name} is {value!r}; ", "it must be True or False"):
        flagged(name, value)


@pytest.mark.parametrize("name", ["progress", "ordered", "repeatable", "ToolOutput.is_error", "Tool.strict"])
@pytest.mark.parametrize("value", [True, False])
def test_a_flag_that_is_true_or_false_is_taken(name: str, value: bool) -> None:
    flagged(name, value)


# A message ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "begin", "remedy"),
    [
        ({"tool_choice": "auto"}, "UserMessage.tool_choice is 'auto'; ", "narrative.AUTO"),
        ({"tool_choice": 3}, "UserMessage.tool_choice is 3; ", "narrative.specific_tool(name)"),
        ({"tool_choice": narrative.ToolChoice}, "UserMessage.tool_choice is <class", "narrative.AUTO"),
        ({"config_override": 3}, "UserMessage.config_override is 3; ", "must be a mapping, such as a dict"),
        ({"config_override": "model"}, "UserMessage.config_override is 'model'; ", "must be a mapping"),
        ({"config_override": {3: 1, "x": 2}}, "config_override has 3, x", "it may have model"),
        (
            {"text": f"cut {HALF}"},
            "UserMessage.text is a text that UTF-8 cannot carry: it has '\\ud83d' at 4, ",
            "errors='replace'",
        ),
        (
            {"conversation_id": HALF},
            "UserMessage.conversation_id is a text that UTF-8 cannot carry: it has '\\ud83d' at 0, ",
            "errors='replace'",
        ),
    ],
)
def test_a_message_is_refused_when_it_is_made(fields: dict[str, Any], begin: str, remedy: str) -> None:
    with refused(begin, remedy):
        narrative.UserMessage(**({"conversation_id": CONVERSATION, "text": "Hello"} | fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"config_override": {"temperature": object()}}, "UserMessage.config_override"),
        ({"config_override": {"model": HALF}}, "UserMessage.config_override"),
        ({"tool_choice": {"kind": "specific_tool", "name": object()}}, "UserMessage.tool_choice"),
        ({"tool_choice": {"kind": HALF}}, "UserMessage.tool_choice"),
    ],
)
@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_message_that_json_cannot_carry_is_refused_before_any_request(
    fields: Mapping[str, Any], named: str
) -> None:
    wire = Wire({HEAD: conversation(), START: run("pending")})
    async with client_of(wire) as client:
        with refused(f"{named} is not something that JSON can carry", "Use dicts, lists"):
            await client.start(narrative.UserMessage(CONVERSATION, "Hello", **fields))

    assert wire.asked == []


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (narrative.AUTO, {"kind": "auto"}),
        (narrative.specific_tool("book"), {"kind": "specific_tool", "name": "book"}),
        ({"kind": "specific_tool", "name": "book"}, {"kind": "specific_tool", "name": "book"}),
    ],
)
@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_choice_is_sent_in_either_of_its_forms(choice: Any, sent: Any) -> None:
    wire = Wire({HEAD: conversation(), START: run("pending")})
    async with client_of(wire) as client:
        await client.start(narrative.UserMessage(CONVERSATION, "Hello", tool_choice=choice))

    assert wire.asked[-1][1].json["tool_choice"] == sent


@pytest.mark.parametrize("name", [3, "", b"x"])
def test_a_tool_is_chosen_by_a_name(name: Any) -> None:
    with refused(f"ToolChoice.name is {name!r}; ", "must be a text"):
        narrative.specific_tool(name)


# Answers and parked runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["a-1", None, Action, PAUSED])
def test_an_answer_is_to_an_action(action: Any) -> None:
    with refused(f"ToolOutput.action is {action!r}; it must be of the class Action", "one of `run.actions`"):
        ToolOutput(action, 1)


@pytest.mark.parametrize("text", [3, None, 0, [], {}, PAUSED])
def test_a_run_is_read_from_text_alone(text: Any) -> None:
    with refused(f"{text!r} is not the text of a run", "pass what `Run.to_json` returned"):
        Run.from_json(text)


def test_a_run_is_read_from_text_and_from_bytes() -> None:
    assert Run.from_json(PAUSED.to_json()) == PAUSED
    assert Run.from_json(PAUSED.to_json().encode()) == PAUSED


# A conversation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, "x", b"x", True, {"alias": "u"}, frozenset([3]), iter([])])
@pytest.mark.parametrize("name", ["client_tools", "tools", "mcp_servers"])
def test_what_is_no_list_of_tools_is_refused(name: str, value: Any) -> None:
    with refused(f"Config.{name} is {value!r}; it must be a list of", "narrative."):
        config(**{name: value})


@pytest.mark.parametrize("value", [3, None, "x", {"alias": "u", "tools": []}, narrative.Config])
@pytest.mark.parametrize("name", ["client_tools", "tools", "mcp_servers"])
def test_a_list_of_something_else_is_refused_with_the_place(name: str, value: Any) -> None:
    fitting = {
        "client_tools": narrative.ClientTools("user", [TOOL]),
        "tools": TOOL,
        "mcp_servers": narrative.McpServer("docs", "https://docs.test"),
    }[name]
    config(**{name: [fitting]})
    with refused(f"Config.{name}[1] is {value!r}; it must be of the class {type(fitting).__name__}", "narrative."):
        config(**{name: [fitting, value]})


@pytest.mark.parametrize(
    ("make", "begin"),
    [
        (lambda: config(output_format_schema=3), "Config.output_format_schema is 3"),
        (lambda: config(output_format_schema=None), "Config.output_format_schema is None"),
        (lambda: config(execution_cluster=3), "Config.execution_cluster is 3"),
        (lambda: config(compute_pool_id=3), "Config.compute_pool_id is 3"),
        (lambda: vendor.ClientTools("user", [3]), "ClientTools.tools[0] is 3"),
        (lambda: vendor.ClientTools("user", 3), "ClientTools.tools is 3"),
        (lambda: vendor.McpServer("docs", "https://docs.test", [3]), "McpServer.tools[0] is 3"),
        (lambda: vendor.McpServer("docs", "https://docs.test", None, 3), "McpServer.description is 3"),
        (lambda: vendor.Tool("book", 3, {}), "Tool.description is 3"),
        (lambda: vendor.Tool("book", "", 3), "Tool.input_schema is 3"),
    ],
)
def test_a_declaration_of_other_types_is_refused_when_it_is_made(make: Callable[[], object], begin: str) -> None:
    with refused(begin, "it must be"):
        make()


@pytest.mark.parametrize(
    ("given", "begin", "remedy"),
    [
        ({"config": None}, "config is None; ", "narrative.Config("),
        ({"config": {"model": "m"}}, "config is {'model': 'm'}; ", "narrative.Config("),
        ({"name": 3}, "name is 3; ", "must be a text, or None"),
        ({"system_prompt": b"x"}, "system_prompt is b'x'; ", "must be a text, or None"),
        (
            {"system_prompt": HALF},
            "system_prompt is a text that UTF-8 cannot carry: it has '\\ud83d' at 0, ",
            "errors='replace'",
        ),
    ],
)
@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_conversation_is_refused_before_any_request(given: dict[str, Any], begin: str, remedy: str) -> None:
    wire = Wire({})
    async with client_of(wire) as client:
        with refused(begin, remedy):
            await client.perform(narrative.create_conversation(**({"config": config()} | given)))

    assert wire.asked == []


# Declaring tools ------------------------------------------------------------------------------------------------------


def only_default() -> Tools:
    tools = Tools()
    tools.default(anything)
    return tools


@pytest.mark.parametrize("tools", [anything, only_default()])
def test_a_default_handler_alone_cannot_be_declared(tools: Any) -> None:
    with refused("there is only a default handler", "`tools.add(function)`"):
        narrative.client_tools(tools, alias="user")
    with refused("there is only a default handler", "`tools.add(function)`"):
        narrative.flat_tools(tools)


def test_a_default_handler_beside_others_is_no_hindrance_and_no_tools_are_none() -> None:
    both = only_default()
    both.add(book)

    assert [tool.name for tool in narrative.flat_tools(both)] == ["book"]
    assert [tool.name for tool in narrative.client_tools(both, alias="user").tools] == ["book"]
    assert narrative.flat_tools(Tools()) == ()


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
    with refused(f"{method!r} is a method without its object", "`tools.add(thing.method)`"):
        Tools().add(method, name="book")
    with refused(f"{method!r} is a method without its object", "`tools.add(thing.method)`"):
        Tools().default(method)
    with refused(f"{method!r} is a method without its object", "`tools.add(thing.method)`"):
        Tools.of({"book": method})


def test_a_method_that_is_registered_in_the_body_of_its_class_is_refused() -> None:
    tools = Tools()
    with refused("<function ", "In the body of a class, leave the decorator out"):

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


# Events from outside --------------------------------------------------------------------------------------------------


@pytest.mark.virtual
@pytest.mark.asyncio
async def test_the_id_of_the_last_event_is_a_text_or_none() -> None:
    async with client_of(Wire({})) as client, Feeds(client) as feeds:
        wrong: list[Any] = [3, b"x", []]
        for value in wrong:
            with refused(f"last_event_id is {value!r}; ", "must be a text, or None"):
                feeds.watch(REF, value)
        for text in (None, "", "x", HALF):  # a browser may say anything
            feeds.watch(REF, text)


@pytest.mark.parametrize("body", ["{}", None, 3, {}])
def test_a_webhook_that_is_not_the_bytes_that_came_is_refused(body: Any) -> None:
    with refused(f"body is of the type {type(body).__name__}; ", "the bytes that came"):
        middesk.verify_webhook(body, "0" * 64, "secret")


@pytest.mark.parametrize("signature", [3, b"0" * 64])
def test_a_signature_that_is_no_text_is_refused(signature: Any) -> None:
    with refused(f"signature is {signature!r}; ", "must be a text, or None"):
        middesk.verify_webhook(b"{}", signature, "secret")


# Values that can be kept in sets --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2).map(round) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
ACTIONS = st.builds(
    Action, st.sampled_from("12"), st.sampled_from("xy"), st.dictionaries(st.just("a"), JSON, max_size=1)
)
ANSWERS = st.builds(ToolOutput, ACTIONS, JSON, st.booleans())
RUNS = st.builds(
    Run,
    st.builds(RunRef, st.sampled_from("12")),
    st.sampled_from([RunStatus.COMPLETED, RunStatus.REQUIRES_ACTION]),
    st.just("word"),
    st.lists(ACTIONS, max_size=2).map(tuple),
    JSON,
    st.none() | st.just(Failure("f")),
)


@given(ACTIONS | ANSWERS | RUNS, st.data())
def test_whatever_a_value_holds_it_has_a_hash_that_equal_values_share(one: Any, data: st.DataObject) -> None:
    other = data.draw({Action: ACTIONS, ToolOutput: ANSWERS, Run: RUNS}[type(one)])

    hash(one)
    assert one in {one, other}
    if one == other:
        assert hash(one) == hash(other)
    assert hash(one) == hash(evolve(one))


def test_what_tells_values_apart_is_what_told_them_apart_before() -> None:
    assert evolve(ACTION, arguments={"day": "Friday"}) != ACTION
    assert ToolOutput(ACTION, [1]) != ToolOutput(ACTION, [2])
    assert evolve(PAUSED, output={"a": 1}) != evolve(PAUSED, output={"a": 2})
    assert len({PAUSED, evolve(PAUSED, output={"a": 1}), evolve(PAUSED, output={"a": 1})}) == 2
    assert Action("1", "x", {"n": 1}) == Action("1", "x", {"n": 1.0})
    assert hash(Action("1", "x", {"n": 1})) == hash(Action("1", "x", {"n": 1.0}))
