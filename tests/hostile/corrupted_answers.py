"""How to spoil an answer; each choice is made by a function that is passed in, so chance and hypothesis both can."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import evolve

from tests.hostile.recorded_answers import Answer

Below: TypeAlias = Callable[[int], int]
"""Chooses a whole number from 0 on, below the one that is given."""

Path: TypeAlias = tuple[str | int, ...]


def nested(depth: int, kind: str = "list") -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


JUNK: Final[Sequence[Any]] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        7.5,
        -0.0,
        1e308,
        5e-324,
        2**31,
        2**53 + 1,
        2**63,
        2**64,
        2**64 + 1,
        -(2**63) - 1,
        10**300,
    ),
    *(
        "",
        " ",
        "x",
        "null",
        "true",
        "0",
        "-1",
        "1e3",
        "NaN",
        "..",
        ".",
        "/",
        "../../x",
        "%2f",
        "?",
        "#",
        "run_x",
        "x" * 5000,
    ),
    *("\x00", "\x1b[31m", "\r\nX: 1", "\u2028", "\ufeff", "\ufffe", "é", "e\u0301", "\U0001f600", "９", "\u202e", "𝟙"),
    *("2026-06-02T08:15:09", "2026-06-02", "2026-06-02T08:15:09.123456789Z", "20260602T081509Z", "2026-W23-2"),
    *(
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-02-30T00:00:00Z",
        "2026-06-02T24:00:00Z",
        "1780388109",
    ),
    *("running", "pending", "completed", "failed", "requires_action", "interrupted", "error", "accepted", "COMPLETED"),
    *("needs_input", "incomplete", "step_cap_hit", "errored", "timed_out", "cancelled", "meditating", "confirm"),
    *(
        [],
        {},
        [[]],
        [{}],
        [None],
        [1, "a", None],
        {"": None},
        {"id": 1},
        {"id": "x"},
        {"a": {"b": []}},
        {"message": []},
    ),
    *(nested(60), nested(60, "object"), [0] * 40, [{}] * 40, {str(each): each for each in range(40)}),
)

KEYS: Final = (
    "",
    "id",
    "run",
    "data",
    "status",
    "error",
    "items",
    "run_id",
    "object",
    "steps",
    "__class__",
    "self",
    "é",
    "\x00",
    "next_cursor",
)

STATUSES: Final = (
    *(0, 199, 200, 201, 202, 203, 204, 206, 226, 299, 300, 301, 302, 304, 307, 399, 400, 401, 402, 403, 404, 408, 409),
    *(410, 418, 422, 429, 451, 499, 500, 501, 502, 503, 504, 520, 599, 600, 799, 999),
)

HEADERS: Final[Sequence[Mapping[str, str]]] = (
    *(
        {"retry-after": value}
        for value in ("0", "5", "59", "61", "-1", "1e308", "NaN", "x", "Fri, 31 Dec 9999 23:59:59 GMT")
    ),
    *({"idempotency-replay": value} for value in ("true", "false", "x")),
    *({"content-type": value} for value in ("text/html", "application/json; charset=utf-16")),
    {"location": "https://elsewhere.test/"},
    {"x-request-id": "x" * 5000},
)

REFUSALS: Final[Sequence[tuple[int, Mapping[str, Any]]]] = (
    (500, {"error": "Internal error", "code": "INTERNAL_ERROR"}),
    (503, {"error": "Down", "code": "SERVICE_UNAVAILABLE", "details": None}),
    (409, {"error": "Busy", "code": "AGENT_BUSY", "currentRun": {"id": "v2_run-1"}}),
    (409, {"error": "Busy", "code": "AGENT_BUSY", "details": {"currentRun": {"id": 1}}}),
    (409, {"error": "Busy", "code": "AGENT_BUSY", "currentRun": "v2_run-1"}),
    (409, {"error": "In flight", "code": "IDEMPOTENCY_ERROR"}),
    (429, {"error": "No slot", "code": "CONCURRENT_LIMIT_EXCEEDED", "limit": None}),
    (429, {"error": "Slow down", "code": "RATE_LIMIT_EXCEEDED"}),
    (402, {"error": "Pay", "code": "INSUFFICIENT_CREDITS", "handoff": {"url": 1}, "topUpUrl": []}),
    (422, {"errors": [{"message": 1, "parameter": None}, None, "x", {"message": "No", "parameter": "type"}]}),
    (404, {"errors": {"message": "No"}}),
    (409, {"type": "https://docs.narrative.io/errors/version-conflict", "title": 1, "detail": None, "log_id": {}}),
    (400, {"type": "https://", "title": "", "detail": "", "logId": ""}),
    (403, {"error": {"message": "No"}, "error_description": ["x"]}),
)


# Trees ----------------------------------------------------------------------------------------------------------------


def paths(node: Any, here: Path = ()) -> Iterator[Path]:
    """Go through all that is in a JSON value, the value itself first."""
    yield here
    inside: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, each in inside:
        yield from paths(each, (*here, key))


def at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def put(node: Any, path: Path, value: Any) -> Any:
    """Return *node* with *value* at *path*; what is on the way is copied, the rest is shared."""
    if not path:
        return value
    key, *rest = path
    copy: Any = dict(node) if isinstance(node, dict) else list(node)
    copy[key] = put(node[key], tuple(rest), value)
    return copy


def without(node: Any, path: Path) -> Any:
    """Return *node* without what is at *path*."""
    if not path:
        return None
    *above, key = path
    owner = at(node, tuple(above))
    copy: Any = dict(owner) if isinstance(owner, dict) else list(owner)
    del copy[key]
    return put(node, tuple(above), copy)


def twisted(tree: Any, below: Below) -> Any:
    """Return *tree*, changed in one place."""
    places = list(paths(tree))
    path = places[below(len(places))]
    value = at(tree, path)
    way = below(12)
    if way <= 2:
        return put(tree, path, JUNK[below(len(JUNK))])
    if way == 3:
        return without(tree, path)
    if way == 4:
        return put(tree, path, at(tree, places[below(len(places))]))
    if way == 5:
        return put(tree, path, [value] * (1 + below(3)) if below(2) else {"value": value})
    if way == 6:
        return put(tree, path, nested(below(150), "list" if below(2) else "object"))
    if way == 7 and isinstance(value, dict) and value:
        key = list(value)[below(len(value))]
        renamed = (key.upper(), f"{key}_", key[:-1], f" {key}", KEYS[below(len(KEYS))])[below(5)]
        return put(tree, path, {renamed if each == key else each: inner for each, inner in value.items()})
    if way == 8 and isinstance(value, dict):
        return put(tree, path, {**value, KEYS[below(len(KEYS))]: JUNK[below(len(JUNK))]})
    if way == 9 and isinstance(value, list):
        return put(tree, path, value * (2 + below(30)) if below(2) else [*value, JUNK[below(len(JUNK))]])
    if way == 10 and isinstance(value, str):
        return put(tree, path, (value[: below(len(value) + 1)], value + value, value.upper(), f" {value}")[below(4)])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return put(tree, path, (-value, value * 10**18, value + 0.5, str(value), float(value))[below(5)])
    return put(tree, path, None)


# Bodies and answers ---------------------------------------------------------------------------------------------------


def written(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def torn(body: bytes, below: Below) -> bytes:
    """Return *body* with no regard to what it means."""
    place = below(len(body) + 1)
    way = below(7)
    if way == 0:
        return body[:place]
    if way == 1:
        return body[:place] + bytes([below(256)]) + body[place:]
    if way == 2:
        return body[:place] + body[min(place + 1 + below(40), len(body)) :]
    if way == 3:
        return body[place:] + body[:place]
    if way == 4:
        return body + (b"", b"\x00", body, b"}", b" \n")[below(5)]
    if way == 5:
        return (b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"[", b"\x00")[below(5)] + body
    return body.decode("utf-8", "replace").encode(("utf-16", "utf-32", "utf-7")[below(3)])


def spoilt(answer: Answer, below: Below) -> Answer:
    """Return *answer*, spoiled in one way or in several."""
    if answer.status == 0:
        return answer
    way = below(20)
    if way == 0:
        return evolve(answer, status=STATUSES[below(len(STATUSES))])
    if way == 1:
        status, body = REFUSALS[below(len(REFUSALS))]
        headers = HEADERS[below(len(HEADERS))] if below(3) == 0 else {}
        tree = body if below(2) else twisted(body, below)
        return evolve(answer, status=status, headers=headers, body=written(tree))
    if way == 2:
        return evolve(answer, body=torn(answer.body, below))
    if way == 3:
        answer = evolve(answer, headers={**answer.headers, **HEADERS[below(len(HEADERS))]})
    try:
        tree = json.loads(answer.body)
    except ValueError:
        return evolve(answer, body=torn(answer.body, below))
    for _ in range(1 + (below(3) if below(2) else 0)):
        tree = twisted(tree, below)
    return evolve(answer, body=written(tree))


def every_twist(answer: Answer) -> Iterator[Answer]:
    """Change each part of a body into each piece of junk in turn, and leave each part out."""
    try:
        tree = json.loads(answer.body)
    except ValueError:
        return
    for path in paths(tree):
        yield evolve(answer, body=written(without(tree, path)))
        for junk in JUNK:
            yield evolve(answer, body=written(put(tree, path, junk)))
    for status in STATUSES:
        yield evolve(answer, status=status)
    for cut in range(0, len(answer.body), 7):
        yield evolve(answer, body=answer.body[:cut])
