"""What authors of dialects get wrong, and what they are told: at `connect`, or with the function and the request."""

import os
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from agentruns import Client, Retry, Run, RunRef, RunStatus, connect
from agentruns.dialects import NAMES, Problem, Request, SkippedRows, known, load
from agentruns.dialects.vendor import CAPABILITIES, Vendor
from agentruns.errors import ConfigurationError, ProtocolError, ServerError, UnsupportedError
from tests.conformance import acme
from tests.scripted_wire import STEADY, Answer, Wire
from tests.tiny_vendor import tiny


def dialect(**names: Any) -> Any:
    """Return the tiny dialect with other names; None takes one away."""
    kept = {**vars(tiny(lists=True)), **names}
    return SimpleNamespace(**{name: value for name, value in kept.items() if value is not ...})


# At the door ----------------------------------------------------------------------------------------------------------


def resume_(run: Any, outputs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            os,
            "is no dialect: it lacks NAME, BASE_URL, TOKEN_VARIABLE, BASE_URL_VARIABLE, BUDGET, Origin, start, fetch,",
        ),
        (dialect(handler_names=...), "it lacks handler_names."),
        (dialect(BUDGET=...), "it lacks BUDGET."),
        (dialect(fetch=..., fetch_=resume_), "it lacks fetch. It has `fetch_`: did you mean `fetch`?"),
        (dialect(resume_=resume_), "It has `resume_`: did you mean `resume`?"),
        (dialect(cancle=resume_), "It has `cancle`: did you mean `cancel`?"),
        (dialect(parseRun=resume_), "It has `parseRun`: did you mean `parse_run`?"),
        (dialect(start=lambda: None), "`start` must be a function of (origin), and is a function of ()"),
        (dialect(fetch=lambda ref: None), "`fetch` must be a function of (ref, params), and is a function of (ref)"),
        (dialect(times=3), "`times` must be a function of (run), and is 3"),
        (dialect(page=lambda number: None), "a helper that is something else needs another name"),
        (dialect(page=...), "`list_parent` is of no use without `page`"),
        (dialect(FETCH_MANY_LIMIT=0), "FETCH_MANY_LIMIT is 0; it must be a number above 0"),
        (dialect(NAME=""), "NAME is ''; it must be a text that is not empty"),
        (dialect(BASE_URL=None), "BASE_URL is None; it must be a text"),
        (dialect(BUDGET=90), "BUDGET is 90; it must be `RateLimit(count, seconds)`, or None"),
        (dialect(Origin=lambda: None), "it must be the class of what starts a run"),
    ],
)
def test_what_is_wrong_with_a_dialect_is_told_at_connect(made: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)) as refused:
        connect(made, token="t")
    assert refused.value.field == "dialect"


@pytest.mark.parametrize("made", [*map(load, NAMES), acme, tiny(), dialect(pages=resume_)])
def test_a_dialect_that_is_right_is_a_vendor_once(made: Any) -> None:
    vendor = Vendor.of(made)

    assert Vendor.of(vendor) is vendor
    assert vendor.capabilities == tuple(name for name in CAPABILITIES if hasattr(made, name))


class Proxy:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Logged(Proxy):
    """A proxy that does one thing itself, and calls all else where it stands."""

    def start(self, origin: Any) -> Any:
        return self._inner.start(origin)


@pytest.mark.parametrize("kind", [Proxy, Logged])
@pytest.mark.parametrize("inner", [*map(load, NAMES), acme])
def test_a_proxy_keeps_every_capability(inner: Any, kind: type[Proxy]) -> None:
    assert Vendor.of(kind(inner)).capabilities == Vendor.of(inner).capabilities
    assert Vendor.of(kind(inner)).KEY_SECONDS == Vendor.of(inner).KEY_SECONDS


async def _unsupported(client: Client) -> None:
    with pytest.raises(UnsupportedError, match="tiny has no way to cancel runs"):
        await client.cancel(RunRef("1"))


@pytest.mark.asyncio
async def test_what_a_vendor_cannot_do_is_told_before_any_request() -> None:
    wire = Wire({})
    async with Client(tiny(), wire, retry=Retry(attempts=1)) as client:
        await _unsupported(client)
    assert wire.asked == []


# In use ---------------------------------------------------------------------------------------------------------------


def one(request: Request, then: Callable[[Any], Any]) -> Any:
    """Return a function of a dialect that sends *request* and does *then* with the answer."""

    def flow(*_: Any) -> Any:
        return then((yield request).value)

    return flow


def yields(value: Any) -> Any:
    def flow(*_: Any) -> Any:
        yield value

    return flow


async def coroutine(*_: Any) -> Any: ...


def run(status: Any = RunStatus.COMPLETED) -> Run:
    return Run(RunRef("1"), status, "word")


READ = Request("GET", "/runs/1")


@pytest.mark.asyncio
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("fetch", "told"),
    [
        (one(READ, lambda body: body["nothing"]), "failed on the answer to GET /runs/1 with KeyError: 'nothing'"),
        (one(READ, lambda body: body.state), "failed on the answer to GET /runs/1 with AttributeError"),
        (one(READ, lambda body: None), "tiny.fetch returned None, which is no Run"),
        (one(READ, lambda body: body), "tiny.fetch returned {'id': '1'}, which is no Run"),
        (
            one(READ, lambda body: run("done")),
            "tiny.fetch returned a run whose status is 'done', which is no RunStatus",
        ),
        (yields("GET /runs/1"), "flow yielded 'GET /runs/1', which is no Request"),
        (yields(None), "yielded 'None', which is no Request"),
        (lambda ref, params: run(), "which is no flow: write it as a function that yields requests"),
        (coroutine, "tiny.fetch returned <coroutine object"),
        (lambda ref, params: ref.nothing, "tiny.fetch failed with AttributeError"),
    ],
)
async def test_a_mistake_in_a_flow_names_the_function_and_the_request(fetch: Any, told: str) -> None:
    wire = Wire({"GET /runs/1": Answer({"id": "1"})})
    async with Client(dialect(fetch=fetch), wire, retry=Retry(attempts=1)) as client:
        with pytest.raises(ProtocolError, match=re.escape(told)):
            await client.fetch(RunRef("1"))


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            {"parse_run": lambda response: response.value["nothing"]},
            "tiny.parse_run failed on the answer to GET /runs/1",
        ),
        ({"parse_run": lambda response: run("done")}, "tiny.parse_run returned a run whose status is 'done'"),
        ({"fetch": one(READ, lambda body: body["nothing"])}, "failed on the answer to GET /runs/1 with KeyError"),
        ({"fetch": yields(SkippedRows("x", ()))}, "tiny.fetch failed with ValueError: this flow makes no request"),
        ({"fetch": lambda ref, params: None}, "tiny.fetch returned None, which is no flow"),
    ],
)
async def test_a_mistake_met_by_a_poll_reaches_whoever_waits(names: Any, told: str) -> None:
    wire = Wire({"GET /runs/1": Answer({"id": "1"})})
    async with Client(dialect(**names), wire, retry=Retry(attempts=1), schedule=STEADY) as client:
        with pytest.raises(ProtocolError, match=re.escape(told)):
            await client.result(RunRef("1"))


@pytest.mark.asyncio
async def test_a_mistake_in_problem_hides_neither_the_status_nor_itself() -> None:
    made = dialect(problem=lambda response: Problem(response.value["why"]))
    wire = Wire({"GET /runs/1": Answer(b"<html>Bad gateway</html>", 502)})
    async with Client(made, wire, retry=Retry(attempts=1)) as client:
        with pytest.raises(ServerError, match=r"Bad gateway.*tiny\.problem failed with") as caught:
            await client.fetch(RunRef("1"))
    assert caught.value.status == 502


@pytest.mark.asyncio
async def test_a_mistake_in_error_status_is_named() -> None:
    made = dialect(error_status=lambda response: response.value["error"]["code"])
    async with Client(made, Wire({"GET /runs/1": Answer({})}), retry=Retry(attempts=1)) as client:
        with pytest.raises(ProtocolError, match=r"tiny\.error_status failed with KeyError: 'error'"):
            await client.fetch(RunRef("1"))


@pytest.mark.asyncio
async def test_a_page_that_is_none_is_named() -> None:
    made = dialect(page=one(Request("GET", "/lists/a"), lambda body: body))
    async with Client(made, Wire({"GET /lists/a": Answer({})}), retry=Retry(attempts=1)) as client:
        with pytest.raises(ProtocolError, match=r"tiny\.page returned \{\}, which is no Page"):
            _ = [each async for each in client.runs("a")]


@pytest.mark.asyncio
async def test_what_a_flow_of_the_users_own_raises_is_raised_as_it_is() -> None:
    made = dialect(problem=lambda response: Problem("no"))
    async with Client(made, Wire({"GET /runs/1": Answer({})}), retry=Retry(attempts=1)) as client:
        with pytest.raises(KeyError, match="nothing"):
            await client.perform(one(READ, lambda body: body["nothing"])())


def test_a_dialect_says_what_its_parent_is_called_and_what_shows_the_steps_of_a_run() -> None:
    connect(dialect(NAME="told", PARENT="project", TRACE_INCLUDE="log"), token="t")
    connect(dialect(NAME="silent"), token="t")
    shown = {name: known(name) for name in ("told", "silent", "narrative", "middesk", "origami", "conduit")}

    assert {name: vendor and (vendor.PARENT, vendor.TRACE_INCLUDE) for name, vendor in shown.items()} == {
        "told": ("project", "log"),
        "silent": ("parent", None),
        "narrative": ("conversation", None),
        "middesk": ("thread", "steps"),
        "origami": ("agent", "transcript"),
        "conduit": ("agent", None),
    }
    assert known("of nobody") is None
