"""`connect`: from what a user passes, or the environment says, to a client; whatever cannot work is refused here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload
from urllib.parse import urlsplit

from ._api.accounts import account_of
from ._api.address import address_of, base_url_of
from ._api.channel import Channel
from ._api.defaults import defaults_of
from ._api.given import GivenTransport
from ._api.limiter import RateLimiter, rate_limit
from ._api.located import LocatedChannel
from ._api.proxy import proxy_of
from ._api.retry import Retry, Schedule, is_schedule
from ._api.transport import MAX_BODY, AiohttpTransport
from ._keeping.budget import SharedBudget
from ._values import check
from ._values.auth import Auth, NoAuth, TokenSource
from ._values.exchange import RateLimit, Transport
from ._values.generic import DetailT, OriginT
from ._values.secret import Secret
from .client import Client
from .dialects import load
from .dialects.protocol import Dialect
from .dialects.vendor import Vendor
from .errors import ConfigurationError

if TYPE_CHECKING:  # imported when they are first used: `import agentruns` stays light
    import aiohttp

    from ._keeping.journal import Journal
    from .dialects import a2a, conduit, langgraph, middesk, narrative, openai_responses, origami


class ConnectOptions(TypedDict, total=False):
    """What `connect` takes beside the dialect, for those who pass it on."""

    token: str | TokenSource | None
    base_url: str | None
    session: aiohttp.ClientSession | None
    timeout: float
    retry: Retry
    schedule: Schedule | None
    budget: float | RateLimit | RateLimiter | None
    insecure: bool
    journal: str | os.PathLike[str] | None
    connections: int
    max_body: int
    headers: Mapping[str, str] | None
    params: Mapping[str, str] | None
    auth: Auth | None
    proxy: str | None
    trust_env: bool
    transport: Transport | None


@overload
def connect(
    dialect: Literal["narrative"], **options: Unpack[ConnectOptions]
) -> Client[narrative.UserMessage, narrative.NarrativeRun]: ...
@overload
def connect(
    dialect: Literal["middesk"], **options: Unpack[ConnectOptions]
) -> Client[middesk.RunRequest, middesk.MiddeskRun]: ...
@overload
def connect(
    dialect: Literal["origami"], **options: Unpack[ConnectOptions]
) -> Client[origami.Prompt, origami.RunDetail]: ...
@overload
def connect(
    dialect: Literal["conduit"], **options: Unpack[ConnectOptions]
) -> Client[conduit.Dispatch, conduit.ConduitRun]: ...
@overload
def connect(
    dialect: Literal["langgraph"], **options: Unpack[ConnectOptions]
) -> Client[langgraph.Invocation, langgraph.GraphRun]: ...
@overload
def connect(
    dialect: Literal["openai_responses"], **options: Unpack[ConnectOptions]
) -> Client[openai_responses.ResponseRequest, openai_responses.ResponseDetail]: ...
@overload
def connect(dialect: Literal["a2a"], **options: Unpack[ConnectOptions]) -> Client[a2a.Send, a2a.Task]: ...
@overload
def connect(dialect: str, **options: Unpack[ConnectOptions]) -> Client: ...
@overload
def connect(dialect: Dialect[OriginT, DetailT], **options: Unpack[ConnectOptions]) -> Client[OriginT, DetailT]: ...
def connect(
    dialect: Dialect[OriginT, DetailT] | str,
    *,
    token: str | TokenSource | None = None,
    base_url: str | None = None,
    session: aiohttp.ClientSession | None = None,
    timeout: float = 30.0,
    retry: Retry = Retry(),  # noqa: B008 - frozen
    schedule: Schedule | None = None,
    budget: float | RateLimit | RateLimiter | None = None,
    insecure: bool = False,
    journal: str | os.PathLike[str] | None = None,
    connections: int = 100,
    max_body: int = MAX_BODY,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    auth: Auth | None = None,
    proxy: str | None = None,
    trust_env: bool = False,
    transport: Transport | None = None,
) -> Client[OriginT, DetailT]:
    """
    Return a client of one vendor, to be opened with `async with`.

    - *dialect* is a module such as `agentruns.narrative`, its name, or anything that satisfies the `Dialect` protocol.
    - *token* is a text, or a function (async or not) that gives one: it is asked before the first request, and again
      when the vendor has answered 401. By default it is read from the vendor's environment variable, such as
      `NARRATIVE_TOKEN`.
    - *base_url* is what the vendor's paths hang on, version included; by default from the vendor's environment
      variable, such as `NARRATIVE_BASE_URL`, else the production URL.
    - *session* is borrowed and never closed; by default the client opens one of its own.
    - *timeout* is in seconds, for one HTTP exchange; connecting may take no more than 10 of them.
    - *retry* says how often one request is sent, and how long to wait between.
    - *schedule* says when to poll; by default that is learned from how long runs take.
    - *budget* is how many requests per second may be sent, a `RateLimit` such as `RateLimit(90, 60.0)`, or a
      `RateLimiter` that several clients share; by default the vendor's documented limit with headroom, or none where
      none is documented. Processes that have one *journal*
      open and ask for the same divide it among them, unless it is a `RateLimiter`.
    - *insecure* allows sending the token over plain http to another host than this one.
    - *journal* is the path of a file (SQLite) that keeps what is begun under a `key`, so that it outlives this process;
      made if it is not there. It needs `pip install 'agentruns[journal]'`, else entering the client raises
      `ConfigurationError`. Or it is the URL of a PostgreSQL database, `postgresql://...`, for processes on many
      machines; that needs `agentruns[postgres]`.
    - *connections* is the most connections, and the most requests in flight, at a time.
    - *max_body* is the most bytes that an answer may have, 8 MiB; a longer one is a `TransportError`.
    - *headers* and *params* are sent with every request, beside its own: `x-origami-project`, or `workspace_id` of
      Conduit. A header that the client sets itself, such as the token's, is refused.
    - *auth* is how the token is sent, where that is not as the vendor documents it, such as behind a gateway:
      `agentruns.dialects.Header("x-api-key")`.
    - *proxy* is the URL of an HTTP proxy, with `user:password@` if need be; *trust_env* takes the one that the
      environment names (`HTTPS_PROXY` and `NO_PROXY`, as they are now), if there is one.
    - *transport* carries the requests in place of a session: an async function of a `Request` that returns a
      `Response`, such as `agentruns.testing.ScriptedTransport`. No token is needed then.

    Nothing is sent before the first call. Raise `ConfigurationError` for what cannot work: no token, a token over plain
    http (unless *insecure*), an unknown dialect, a text that is no URL, a number that is out of range.
    """
    token, proxy = _hidden(token), _hidden(proxy)
    _check_secret("token", token, may_be_function=True)
    _check_secret("proxy", proxy)
    known = Vendor.of(load(dialect) if isinstance(dialect, str) else dialect)
    check.number("timeout", timeout)
    check.integer("connections", connections, 1)
    check.integer("max_body", max_body, 1)
    check.instance("retry", retry, Retry, "`Retry(attempts=4)`; with one attempt nothing is sent again")
    check.boolean("insecure", insecure)
    check.boolean("trust_env", trust_env)
    if auth is not None:
        check.instance("auth", auth, Auth, '`agentruns.dialects.Header("x-api-key")`, or leave it out')
    if session is not None:
        _check_session(session)
    if schedule is not None:
        is_schedule("schedule", schedule)
    if isinstance(budget, RateLimit):
        check.integer("the count of budget", budget.count, 1)
        check.number("the seconds of budget", budget.seconds)
    elif budget is not None and not isinstance(budget, RateLimiter):
        check.number("budget", budget)
    limit: RateLimit | RateLimiter | SharedBudget | None
    if transport is None:
        address = address_of(known, base_url, token, auth, insecure=insecure)
        make = partial(
            AiohttpTransport,
            session=session,
            timeout=timeout,
            connections=connections,
            max_body=max_body,
            defaults=defaults_of(known, headers, params, auth),
            proxy=proxy_of(proxy, address.base_url, trust_env=trust_env, insecure=insecure),
        )
        url, sender = address.base_url, address.token
        channel: Channel = make(address) if known.locate is None else LocatedChannel(known, address, make, auth)
    else:
        _check_transport(transport, token=token, session=session, auth=auth, proxy=proxy, trust_env=trust_env or None)
        url, sender = base_url_of(known, base_url), None
        channel = GivenTransport(transport, url, timeout, defaults_of(known, headers, params, NoAuth()))
    if budget is None:
        limit = known.BUDGET
    else:
        limit = budget if isinstance(budget, RateLimit | RateLimiter) else rate_limit(budget)
    kept = None if journal is None else _journal(journal, known)
    if kept is not None and isinstance(limit, RateLimit):
        limit = SharedBudget(kept.budgets, f"{known.NAME} {urlsplit(url).netloc}", limit)
    return Client(
        known,
        channel,
        retry=retry,
        schedule=schedule,
        limit=limit,
        connections=connections,
        journal=kept,
        base_url=url,
        account=account_of(known.NAME, url, sender, budget if isinstance(budget, RateLimiter) else None),
    )


class _Unfit:
    """What was passed where a secret is wanted; it may be one, so only its type is kept."""

    def __init__(self, given: object) -> None:
        self.kind = type(given).__name__


def _hidden(given: Any) -> Any:
    """Return what no report of local variables shows."""
    if given is None or callable(given):
        return given
    return Secret(given) if isinstance(given, str) else _Unfit(given)


def _check_secret(name: str, given: object, *, may_be_function: bool = False) -> None:
    if isinstance(given, _Unfit) or not (given is None or isinstance(given, str) or may_be_function):
        kind = given.kind if isinstance(given, _Unfit) else type(given).__name__
        wanted = "a text, such as that in a variable" + (", or a function that gives one" if may_be_function else "")
        raise ConfigurationError(f"{name} is of the type {kind}; it must be {wanted}", field=name)


def _journal(path: str | os.PathLike[str], dialect: Dialect) -> Journal:
    from ._keeping.journal import Journal
    from ._keeping.origins import check_class

    check_class(dialect.Origin)
    return Journal(path, dialect.NAME)


def _check_transport(transport: object, **others: object) -> None:
    if not callable(transport):
        raise ConfigurationError(
            f"transport is of the type {type(transport).__name__}; it must be an async function of a Request that "
            "returns a Response",
            field="transport",
        )
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ConfigurationError(f"transport and {given[0]} are given; a transport has its own", field=given[0])


def _check_session(session: object) -> None:
    import aiohttp  # which whoever has a session has imported before

    check.instance("session", session, aiohttp.ClientSession, "leave it out, and the client opens one of its own")
