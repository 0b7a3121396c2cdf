"""Where and how an agent is asked: what its card says, and the binding of JSON-RPC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from attrs import evolve

from agentruns._values.auth import Auth, Basic, Bearer, Header, Query
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.place import Place
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, NotFoundError

from .objects import AgentCard, Interface
from .reading import unwrapped

HTTP: Final = "HTTP+JSON"
RPC: Final = "JSONRPC"
CARD_PATH: Final = "/.well-known/agent-card.json"


def locate() -> Flow[Place]:
    """
    Read the card of the agent below the base URL, and return where and how it is asked.

    Without a card, the base URL is that of an agent that speaks HTTP+JSON. Raise `ConfigurationError` for an agent that
    speaks neither binding of A2A 1.0.
    """
    try:
        response = yield Request("GET", CARD_PATH)
    except NotFoundError:
        return Place()
    card = wire.read(response, AgentCard)
    for binding in (HTTP, RPC):
        for interface in card.supported_interfaces:
            if interface.protocol_binding == binding and interface.protocol_version in {"", "1.0"}:
                return _place(interface, auth_of(card))
    offers = ", ".join(f"{each.protocol_binding} {each.protocol_version}" for each in card.supported_interfaces)
    raise ConfigurationError(
        f"the agent {card.name!r} offers {offers or 'no interface of A2A 1.0'}; spoken is A2A 1.0 by {HTTP} or {RPC}",
        field="base_url",
    )


def _place(interface: Interface, auth: Auth | None) -> Place:
    if interface.protocol_binding == HTTP:
        tenant = wire.path(interface.tenant) if interface.tenant else ""
        return Place(interface.url.rstrip("/") + tenant, auth)
    try:
        parts = urlsplit(interface.url)
    except ValueError:
        return Place(interface.url)  # which is refused as what it is
    return Place(f"{parts.scheme}://{parts.netloc}", auth, _AsRpc(parts.path or "/", interface.tenant))


def get_extended_card() -> Flow[AgentCard]:
    """Return the card that the agent shows to those whose token it knows (Get Extended Agent Card)."""
    response = yield Request("GET", "/extendedAgentCard")
    raw, _ = unwrapped(response)
    return wire.structure(raw, AgentCard, response)


def auth_of(card: AgentCard) -> Auth | None:
    """Return how the token is sent: by the first requirement that one token meets; None where none does."""
    for requirement in card.security_requirements:
        if len(requirement.schemes) == 1:
            scheme = wire.mapping(card.security_schemes.get(next(iter(requirement.schemes))))
            for kind, told in scheme.items():
                found = _auth(kind, wire.mapping(told))
                if found is not None:
                    return found
    return None


def _auth(kind: str, told: Mapping[str, Any]) -> Auth | None:
    if kind == "apiKeySecurityScheme":
        kinds = {"header": Header, "query": Query}
        made = kinds.get(str(told.get("location")))
        return None if made is None else made(str(told.get("name")), optional=True)
    if kind == "httpAuthSecurityScheme" and str(told.get("scheme")).lower() == "basic":
        return Basic(optional=True)
    if kind in {"httpAuthSecurityScheme", "oauth2SecurityScheme", "openIdConnectSecurityScheme"}:
        return Bearer(optional=True)
    return None  # of mutual TLS, the session has the certificate


# JSON-RPC -------------------------------------------------------------------------------------------------------------

_METHODS: Final = (
    ("POST", "/message:send", "SendMessage"),
    ("GET", "/tasks", "ListTasks"),
    ("GET", "/tasks/(?P<id>[^/:]+)", "GetTask"),
    ("POST", "/tasks/(?P<id>[^/:]+):cancel", "CancelTask"),
    ("POST", "/tasks/(?P<id>[^/:]+):subscribe", "SubscribeToTask"),
    ("POST", "/tasks/(?P<taskId>[^/]+)/pushNotificationConfigs", "CreateTaskPushNotificationConfig"),
    ("GET", "/tasks/(?P<taskId>[^/]+)/pushNotificationConfigs", "ListTaskPushNotificationConfigs"),
    ("GET", "/tasks/(?P<taskId>[^/]+)/pushNotificationConfigs/(?P<id>[^/]+)", "GetTaskPushNotificationConfig"),
    ("DELETE", "/tasks/(?P<taskId>[^/]+)/pushNotificationConfigs/(?P<id>[^/]+)", "DeleteTaskPushNotificationConfig"),
    ("GET", "/extendedAgentCard", "GetExtendedAgentCard"),
)
"""Method and path of the binding HTTP+JSON, and what the same is called in JSON-RPC (section 9.4)."""

_TYPED: Final[Mapping[str, Any]] = {"pageSize": int, "historyLength": int, "includeArtifacts": "true".__eq__}


class _AsRpc:
    """Put a request of HTTP+JSON as a call of JSON-RPC, which goes to *path*."""

    def __init__(self, path: str, tenant: str) -> None:
        self._path = path
        self._tenant = tenant

    def __call__(self, request: Request) -> Request:
        """Return the call; raise `ConfigurationError` for a request that has none."""
        for method, pattern, name in _METHODS:
            found = re.fullmatch(pattern, request.path) if method == request.method else None
            if found is not None:
                names = {key: unquote(value) for key, value in found.groupdict().items()}
                return self._call(request, name, names)
        raise ConfigurationError(f"{request.line} has no counterpart in the binding {RPC}, which this agent speaks")

    def _call(self, request: Request, name: str, names: Mapping[str, Json]) -> Request:
        asked = {key: _TYPED.get(key, str)(value) for key, value in request.params.items()}
        tenant = {"tenant": self._tenant} if self._tenant else {}
        params = {**wire.mapping(request.json), **asked, **names, **tenant}
        call = {"jsonrpc": "2.0", "id": 1, "method": name, "params": params}
        kept = {key: value for key, value in request.headers.items() if key.lower() != "content-type"}
        return evolve(request, method="POST", path=self._path, params={}, json=call, headers=kept)
