"""How an answer leaves the server: whole, in half, in chunks, or not at all; and how faults change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs
import msgspec
from aiohttp import web

from .faults import Fault
from .schema import JSON
from .vendor import Reply, Vendor

_CHUNK = 64 * 1024
_LOOK_EVERY = 0.01  # seconds between two questions for more; real ones, since a clock moved by hand wakes nobody


def struck(fault: Fault, reply: Reply, vendor: Vendor, path: str) -> Reply | None:
    """Return what is left of a reply under a fault, None for no answer at all."""
    if reply.follow is not None and fault.kind in {"malformed", "huge"}:
        reply = attrs.evolve(reply, content=b"{}", follow=None)  # these spoil whole bodies
    match fault.kind:
        case "drop":
            return None
        case "cut":
            return attrs.evolve(reply, half=True)
        case "answer":
            return _answer(fault, vendor, path)
        case "malformed":
            return _spoiled(fault, reply)
        case "redirect":
            return Reply(status=fault.status or 302, headers={"Location": fault.target})
        case "huge":
            return attrs.evolve(reply, content=_padded(reply.content, fault.size), chunked=True)
        case _:
            return reply


async def send(request: web.BaseRequest, reply: Reply | None) -> web.StreamResponse:
    """Send a reply; where the connection is cut, aiohttp quietly fails to send the response returned here."""
    if reply is None:
        if request.transport is not None:  # else the caller has left before
            request.transport.abort()
        return web.Response()
    headers = {"Content-Type": reply.content_type, **reply.headers}
    if not (reply.half or reply.chunked or reply.follow):
        return web.Response(status=reply.status, body=reply.content, headers=headers)
    response = web.StreamResponse(status=reply.status, headers=headers)
    if reply.chunked or reply.follow is not None:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(reply.content)
    await response.prepare(request)
    if reply.follow is not None:
        await _follow(request, response, reply.follow, once=reply.half)
    end = len(reply.content) // 2 if reply.half else len(reply.content)
    for start in range(0, end, _CHUNK):
        await response.write(reply.content[start : min(start + _CHUNK, end)])
    if reply.half and request.transport is not None:
        request.transport.close()
    return response


async def _follow(
    request: web.BaseRequest, response: web.StreamResponse, follow: Callable[[], bytes | None], *, once: bool
) -> None:
    """Send what comes until there is no more, the caller has left or, with `once`, the first of it is sent."""
    while request.transport is not None and (more := follow()) is not None:
        if more:
            await response.write(more)
            if once:
                return
        await asyncio.sleep(_LOOK_EVERY)


def _answer(fault: Fault, vendor: Vendor, path: str) -> Reply:
    status = fault.status or 500
    if fault.content is None:
        reply = vendor.refusal(status, "Planned by the emulator's user.", path)
    else:
        reply = Reply(status=status, content=fault.content)
    wait = fault.retry_after_text()
    return attrs.evolve(reply, headers={**fault.headers, **({"Retry-After": wait} if wait else {})})


def _spoiled(fault: Fault, reply: Reply) -> Reply:
    match fault.shape:
        case "not_json":
            return attrs.evolve(reply, content=b'{"id": "this is not JSON')
        case "html":
            page = b"<!DOCTYPE html><html><body><h1>Welcome to the proxy</h1></body></html>"
            return attrs.evolve(reply, content=page, content_type="text/html")
        case "empty":
            return attrs.evolve(reply, content=b"")
        case "wrong_shape":
            return attrs.evolve(reply, content=b'["not", "what", "you", "expect"]')
        case _:
            body = msgspec.json.decode(reply.content)
            _spoil_field(body, fault.target.split("."), remove=fault.shape == "missing_field")
            return attrs.evolve(reply, content=msgspec.json.encode(body))


def _spoil_field(body: JSON, path: list[str], *, remove: bool) -> None:
    parent = body
    for name in path[:-1]:
        parent = _inner(parent, name)
    if not isinstance(parent, dict):
        return
    if remove:
        parent.pop(path[-1], None)
    else:
        parent[path[-1]] = {"not": "the documented type"}


def _inner(body: JSON, name: str) -> JSON:
    """Return what stands under a name in an object, or at a place in a list."""
    if isinstance(body, dict):
        return body.get(name)
    if isinstance(body, list) and name.isdigit() and int(name) < len(body):
        inner: JSON = body[int(name)]
        return inner
    return None


def _padded(content: bytes, size: int) -> bytes:
    padding = b'"padding":"' + b"x" * size + b'"'
    return b"{" + padding + b"," + content[1:]
