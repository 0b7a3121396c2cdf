"""
Answers that no vendor documents: names, what a server sends, and how a read that meets it has to end.

Each of them tells the token back wherever it fits: in a header, in the reason, in the body.
"""

import asyncio
import gzip
import json
import socket
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen

from agentruns import APIError, ProtocolError, Run, ServerError, TransportError
from tests.hostile.hostile_servers import TOKEN, Twist


@frozen
class Hostile:
    """
    A twist, and what a single read of a run ends in that meets it: one of these errors, or a `Run`.

    `lost` says that whoever reads on takes it for lost contact, so that all is well when the next answer is honest.
    With `idle`, the vendor behind does not do what it was asked for: the answer says so, and is believed.
    """

    twist: Twist
    ends: tuple[type, ...]
    lost: bool = False
    idle: bool = False


SURVIVED: Final = (Run,)
LOST: Final = (TransportError,)
WRONG: Final = (ProtocolError,)
REFUSED: Final = (APIError,)
FAILED: Final = (ServerError,)
UNCLEAR: Final = (TransportError, ProtocolError)
"""Where it is a matter of taste whether there was an answer."""
EITHER: Final = (*UNCLEAR, Run)
"""Where a lenient reader may take the answer for one."""


def fine(twist: Twist) -> Hostile:
    return Hostile(twist, SURVIVED)


def lost(twist: Twist) -> Hostile:
    return Hostile(twist, LOST, lost=True)


def unclear(twist: Twist) -> Hostile:
    return Hostile(twist, UNCLEAR, lost=True)


def either(twist: Twist) -> Hostile:
    return Hostile(twist, EITHER, lost=True)


# Ways to send ---------------------------------------------------------------------------------------------------------

Make = Callable[[bytes], bytes]
"""The bytes to send, made of the body of the honest answer."""


def sends(make: Make | bytes) -> Twist:
    """Send, and listen on."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        writer.write(make if isinstance(make, bytes) else make(honest))
        await writer.drain()

    return twist


def hangs_up_after(make: Make | bytes) -> Twist:
    """Send, and close."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        await sends(make)(writer, honest)
        writer.close()

    return twist


def falls_silent_after(make: Make | bytes) -> Twist:
    """Send, and say no more, but keep the connection."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        await sends(make)(writer, honest)
        await asyncio.Event().wait()

    return twist


def breaks_after(make: Make | bytes) -> Twist:
    """Send, and reset the connection."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        await sends(make)(writer, honest)
        found: socket.socket = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return twist


def half_closes_after(make: Make | bytes) -> Twist:
    """Send, say that there is no more to come, and read on."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        await sends(make)(writer, honest)
        writer.write_eof()
        await asyncio.Event().wait()

    return twist


def drips(make: Make, size: int = 1) -> Twist:
    """Send *size* bytes a second."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        data = make(honest)
        for begin in range(0, len(data), size):
            writer.write(data[begin : begin + size])
            await writer.drain()
            await asyncio.sleep(1.0)

    return twist


def repeats(first: bytes, then: bytes, gap: float | None = None) -> Twist:
    """Send the same again and again, as fast as it is taken, or now and then."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        writer.write(first)
        while True:
            writer.write(then)
            await writer.drain()
            await asyncio.sleep(gap or 0)

    return twist


# Heads and bodies -----------------------------------------------------------------------------------------------------


def head(*lines: str, status: str = "200 Said", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{version} {status} to {TOKEN}", f"X-Echo: Bearer {TOKEN}", *lines, "", ""]).encode()


def whole(body: bytes, *lines: str, status: str = "200 Said", version: str = "HTTP/1.1") -> bytes:
    return head(f"Content-Length: {len(body)}", *lines, status=status, version=version) + body


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


CHUNKED: Final = "Transfer-Encoding: chunked"
JUNK: Final = json.dumps({"error": f"bad token {TOKEN}", "detail": TOKEN, "errors": [{"message": TOKEN}]}).encode()
HTML: Final = f"<html><head><title>Sign in</title></head><body>Bearer {TOKEN} is not known here</body></html>".encode()


def with_field(text: bytes) -> Make:
    """Put a field that nobody knows before the others: of the object, and of those that vendors put into it."""

    def make(honest: bytes) -> bytes:
        novelty = b'{"novelty":' + text + b","
        body = honest.replace(b"{", novelty, 1)
        for name in (b'"run":{', b'"data":{'):
            body = body.replace(name, name[:-1] + novelty)
        return whole(body)

    return make


def framed(*lines: str, status: str = "200 Said", version: str = "HTTP/1.1") -> Make:
    """Put the honest body behind another head."""
    return lambda honest: whole(honest, *lines, status=status, version=version)


def around(before: bytes, after: bytes = b"") -> Make:
    """Send the honest answer, and something before and after it."""
    return lambda honest: before + whole(honest) + after


def packed(encoding: str, pack: Make) -> Make:
    return lambda honest: whole(pack(honest), f"Content-Encoding: {encoding}")


def chunked(pack: Make) -> Make:
    return lambda honest: head(CHUNKED) + pack(honest)


def deflated(body: bytes, wbits: int, blocks: int = 1) -> bytes:
    """Pack *blocks* times *body*; every block after the first costs no time."""
    packer = zlib.compressobj(6, zlib.DEFLATED, wbits)
    first = packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (blocks - 1) + packer.flush()


def bomb(wbits: int) -> bytes:
    """Pack a gigabyte into a megabyte."""
    return deflated(b" " * 2**20, wbits, 1024)


# Bodies ---------------------------------------------------------------------------------------------------------------


def not_json() -> Mapping[str, bytes]:
    text, deep = TOKEN.encode(), 100_000
    return {
        "html": HTML,
        "text": text,
        "half a text": b'"' + text,
        "cut in a key": JUNK[:4],
        "cut in a value": JUNK[:20],
        "cut at the end": JUNK[:-1],
        "more after the end": JUNK + b" " + JUNK,
        "a comment": b"/* " + text + b" */" + JUNK,
        "single quotes": JUNK.replace(b'"', b"'"),
        "a trailing comma": JUNK[:-1] + b",}",
        "NaN": b'{"detail": NaN}',
        "Infinity": b'{"detail": Infinity}',
        "minus Infinity": b'{"detail": -Infinity}',
        "a number beyond floats": b'{"detail": 1e999}',
        "a leading zero": b'{"detail": 007}',
        "a hundred thousand digits": b'{"detail": ' + b"9" * 100_000 + b"}",
        "deep arrays": b"[" * deep + b"]" * deep,
        "deep arrays, open": b"[" * deep,
        "deep objects": b'{"a":' * deep + b"1" + b"}" * deep,
        "UTF-16": JUNK.decode().encode("utf-16"),
        "UTF-16 without a mark": JUNK.decode().encode("utf-16-be"),
        "UTF-32": JUNK.decode().encode("utf-32"),
        "latin-1": b'{"detail": "\xfcber ' + text + b'"}',
        "invalid UTF-8": b'{"detail": "\xff\xfe ' + text + b'"}',
        "invalid UTF-8 in a key": b'{"\xc3\x28": "' + text + b'"}',
        "overlong UTF-8": b'{"detail": "\xc0\xaf ' + text + b'"}',
        "a surrogate in UTF-8": b'{"detail": "\xed\xa0\x80 ' + text + b'"}',
        "a NUL": b'{"detail": "\x00 ' + text + b'"}',
        "NULs": b"\x00" * 64,
        "an escape that is none": b'{"detail": "\\x41 ' + text + b'"}',
        "two marks": b"\xef\xbb\xbf\xef\xbb\xbf" + JUNK,
        "only a mark": b"\xef\xbb\xbf",
        "events": b"data: " + JUNK + b"\n\n",
        "an XSSI guard": b")]}',\n" + JUNK,
    }


def other_json() -> Mapping[str, bytes]:
    escaped = "".join(f"\\u{ord(each):04x}" for each in TOKEN).encode()
    lists = (b"submitted_inference_job_ids", b"pending_tool_calls", b"interrupts", b"steps", b"data")
    everywhere = dict.fromkeys(("id", "status", "started_at", "created_at", "object", "agentId", TOKEN), TOKEN)
    return {
        "nothing": b"",
        "null": b"null",
        "true": b"true",
        "a number": b"17",
        "a text in JSON": json.dumps(TOKEN).encode(),
        "an array": b"[" + JUNK + b"]",
        "an empty object": b"{}",
        "another object": JUNK,
        "the token, all escaped": b'{"id": "' + escaped + b'", "status": 7, "started_at": "' + escaped + b'"}',
        "the token in every place": json.dumps(everywhere).encode(),
        "five hundred misfits": b"{" + b",".join(b'"%s":[%s0]' % (name, b"0," * 500) for name in lists) + b"}",
        "a long misfit": json.dumps({"id": "x", "started_at": "x" * 2**20, "created_at": "x" * 2**20}).encode(),
    }


def of_bodies() -> Mapping[str, Hostile]:
    fields = {
        "2**64+1": str(2**64 + 1),
        "minus 2**63-1": str(-(2**63) - 1),
        "300 digits": "9" * 300,
        "a hundred brackets": "[" * 100 + "]" * 100,
        "NULs": '"' + "\\u0000" * 100 + '"',
        "half an emoji": r'"\ud83d\ude00 \ud83d"',
        "a long key": '{"' + "k" * 100_000 + '":1}',
    }
    mark, twice = b"\xef\xbb\xbf", b'{"status":[],"data":3,"run":null,'
    in_utf_16 = "Content-Type: application/json; charset=utf-16"
    return {
        **{name: lost(sends(whole(body))) for name, body in not_json().items()},
        **{name: Hostile(sends(whole(body)), WRONG) for name, body in other_json().items()},
        **{f"a field of {name}": fine(sends(with_field(text.encode()))) for name, text in fields.items()},
        "blanks": Hostile(sends(whole(b" \n" * 1000)), UNCLEAR),
        "many blanks": fine(sends(lambda honest: whole(b" " * 2**20 + honest + b"\n" * 2**20))),
        "a UTF-8 mark": fine(sends(lambda honest: whole(mark + honest))),
        "UTF-16, declared": Hostile(
            sends(lambda honest: whole(honest.decode().encode("utf-16"), in_utf_16)), UNCLEAR, lost=True
        ),
        "a charset that is none": fine(sends(framed("Content-Type: application/json; charset=klingon"))),
        "a key that comes twice": fine(sends(lambda honest: whole(honest[:-1] + b"," + honest[1:]))),
        "a key that comes twice, otherwise": fine(sends(lambda honest: whole(twice + honest[1:]))),
    }


# Statuses -------------------------------------------------------------------------------------------------------------


def of_statuses() -> Mapping[str, Hostile]:
    long = JUNK.replace(TOKEN.encode(), b"long" * 2**18)
    refusals = {
        **{
            f"{status} html": (status, HTML)
            for status in (400, 401, 402, 403, 407, 409, 411, 417, 418, 421, 422, 451, 499)
        },
        **{f"{status} json": (status, JUNK) for status in (400, 401, 418)},
        "400, at length": (400, long),
        "403, at length": (403, HTML + b"x" * 2**20),
    }
    failures = {
        **{f"{status} html": (status, HTML) for status in (500, 501, 502, 503, 504, 511, 520, 599)},
        **{f"{status} json": (status, JUNK) for status in (500, 502)},
        **{f"{status} deep": (status, b"[" * 100_000) for status in (500, 502)},
        **{f"{status} nothing": (status, b"") for status in (500, 502)},
        "500, at length": (500, long),
    }
    strange, none = (
        ("099", "600", "666", "799", "999"),
        ("", "0", "20", "1000", "20000", "-200", "2e2", "abc", "２００", "2" * 21),
    )
    nowhere = (300, 301, 302, 303, 305, 306, 307, 308, 399)
    upgraded, hello = head("Upgrade: websocket", "Connection: Upgrade", status="101 Go"), b"\x81\x05hello"
    wait, early = head(status="102 Wait"), head("Link: </evil.css>; rel=preload", status="103 Early")
    return {
        **{name: Hostile(sends(whole(body, status=f"{code} No")), REFUSED) for name, (code, body) in refusals.items()},
        **{
            name: Hostile(sends(whole(body, status=f"{code} No")), FAILED, lost=True)
            for name, (code, body) in failures.items()
        },
        "408": Hostile(sends(whole(HTML, status="408 Slow")), REFUSED, lost=True),
        **{code: Hostile(sends(whole(JUNK, status=f"{code} What")), (APIError, *UNCLEAR)) for code in strange},
        **{
            f"{code}, as if fine": fine(sends(framed(status=f"{code} So")))
            for code in (201, 202, 203, 206, 207, 226, 299)
        },
        "204, with a body": Hostile(sends(framed(status="204 None")), UNCLEAR),
        "205": Hostile(sends(whole(b"", status="205 Reset")), WRONG),
        "304": Hostile(sends(head(status="304 Same")), (APIError, *UNCLEAR)),
        "304, with a body": Hostile(sends(framed(status="304 Same")), (APIError, *UNCLEAR)),
        **{
            f"{code} without a place to go": Hostile(sends(whole(HTML, status=f"{code} Go")), (APIError, *UNCLEAR))
            for code in nowhere
        },
        **{f"status {code or 'none'}": unclear(hangs_up_after(framed(status=code))) for code in none},
        "no reason": fine(sends(lambda honest: b"HTTP/1.1 200\r\nContent-Length: %d\r\n\r\n" % len(honest) + honest)),
        "102, a thousand times": fine(sends(around(wait * 1000))),
        "103, before the answer": fine(sends(around(early))),
        "100, unasked": fine(sends(around(head(status="100 Continue")))),
        "100, for ever": lost(repeats(b"", head(status="100 Continue"), 1.0)),
        "103, for ever": lost(repeats(b"", early, 1.0)),
        "199, and nothing after": unclear(falls_silent_after(head(status="199 Hm"))),
        "101": Hostile(falls_silent_after(upgraded + hello), UNCLEAR),
        "101, and an answer": Hostile(sends(around(upgraded)), UNCLEAR),
    }


# Heads ----------------------------------------------------------------------------------------------------------------


def not_http() -> Mapping[str, bytes]:
    text = TOKEN.encode()
    return {
        "garbage": b"\x00\x01\x02" + text + b"\r\n\r\n",
        "garbage before the status": b"\x00garbage" + text + b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "blanks for a status": b"x" + b" " * 12_000 + b"\r\n\r\n",
        "every byte": bytes(range(256)) * 4,
        "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
        "an SSH banner": b"SSH-2.0-OpenSSH_9.6 " + text + b"\r\n",
        "an SMTP banner": b"220 mail.test ESMTP " + text + b"\r\n",
        "a request": b"GET /" + text + b" HTTP/1.1\r\nHost: us\r\n\r\n",
        "bare JSON": JUNK,
        "HTTP/0.9": HTML,
        "HTTP/1.1, cut": b"HTTP/1.1 2",
        "a head, cut": b"HTTP/1.1 200 OK\r\nX-Echo: " + text,
        "no length that is a number": head(f"Content-Length: {TOKEN}") + JUNK,
        "a negative length": head("Content-Length: -1") + JUNK,
        "a length of plus": head("Content-Length: +2") + b"{}",
        "a length beyond words": head(f"Content-Length: {2**64}") + b"{}",
        "two lengths": head("Content-Length: 2", "Content-Length: 5") + b"{}   ",
        "a list of lengths": head("Content-Length: 2, 5") + b"{}   ",
        "a longer length": head("Content-Length: 4096") + JUNK,
        "a length and chunks": head("Content-Length: 2", CHUNKED) + chunk(JUNK) + chunk(b""),
        "no such chunk": head(CHUNKED) + b"zz\r\n" + JUNK,
        "a chunk of minus": head(CHUNKED) + b"-5\r\n" + JUNK,
        "a chunk beyond words": head(CHUNKED) + b"f" * 17 + b"\r\n" + JUNK,
        "a chunk that is longer than it says": head(CHUNKED) + b"2\r\n" + JUNK + b"\r\n0\r\n\r\n",
        "a chunk that never ends": head(CHUNKED) + b"fffffff\r\n" + JUNK,
        "no last chunk": head(CHUNKED) + chunk(JUNK),
        "an empty size before a chunk": head(CHUNKED) + b"\r\n" + chunk(JUNK) + chunk(b""),
        "chunks, and more": head(CHUNKED, "Transfer-Encoding: gzip") + chunk(JUNK) + chunk(b""),
        "a header of 100 KB": head(f"X-Long: {TOKEN * 4000}", "Content-Length: 2") + b"{}",
        "a header name of 100 KB": head(f"{'x' * 100_000}: {TOKEN}", "Content-Length: 2") + b"{}",
        "a reason of 100 KB": b"HTTP/1.1 200 " + text * 4000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        "10,000 headers": head(*(f"X-Many-{each}: y" for each in range(10_000)), "Content-Length: 2") + b"{}",
        "one header 10,000 times": head(*["Vary: y"] * 10_000, "Content-Length: 2") + b"{}",
        "a header with a NUL": head(f"X-Nul: \x00{TOKEN}", "Content-Length: 2") + b"{}",
        "a header without a name": head(f": {TOKEN}", "Content-Length: 2") + b"{}",
        "a header that is none": head(TOKEN, "Content-Length: 2") + b"{}",
        "a header name with blanks": head(f"X Y Z: {TOKEN}", "Content-Length: 2") + b"{}",
        "a blank before a colon": head(f"Content-Length : 2{TOKEN}") + b"{}",
        "bare carriage returns": b"HTTP/1.1 200 OK\rContent-Length: 2\r\r{}",
    }


def endless() -> Mapping[str, tuple[bytes, bytes]]:
    return {
        "a status line": (b"HTTP/1.1 200 ", b"x" * 4096),
        "a header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096),
        "headers": (b"HTTP/1.1 200 OK\r\n", b"".join(b"X-%d: y\r\n" % each for each in range(400))),
        "empty lines": (b"", b"\r\n" * 4096),
        "garbage": (b"", b"\x00\xff" * 4096),
        "a chunk size": (head(CHUNKED), b"0" * 4096),
        "a chunk extension": (head(CHUNKED) + b"2;", b"x" * 4096),
        "trailers": (head(CHUNKED) + b"2\r\n{}\r\n0\r\n", b"X-Trailer: y\r\n" * 400),
    }


def of_heads() -> Mapping[str, Hostile]:
    versions = ("HTTP/2.0", "HTTP/3.7", "HTTP/11.1", "HTTP/1.", "HTTP/x.y", "ICY", "http/1.1", "HTTPS/1.1", "RTSP/1.0")
    cookies = (
        *(f"session={TOKEN}", f"a{{b}}={TOKEN}", f"{TOKEN}=1", f"={TOKEN}", f"x={TOKEN}; Domain=.example.com"),
        *(f"y={TOKEN}; Max-Age={TOKEN}; Expires={TOKEN}", f'z="{TOKEN}', "a" * 5000, f"b c={TOKEN}; d e; f"),
    )
    trailer = b"0\r\nX-Trailer: " + TOKEN.encode() + b"\r\n\r\n"
    return {
        **{name: unclear(hangs_up_after(data)) for name, data in not_http().items()},
        **{f"{name} without an end": unclear(repeats(*parts, 0.5)) for name, parts in endless().items()},
        **{version: either(hangs_up_after(framed(version=version))) for version in versions},
        "folded headers": either(sends(framed("X-Fold: a\r\n b\r\n\tc"))),
        "bare line feeds": either(sends(lambda honest: whole(honest).replace(b"\r\n", b"\n"))),
        "HTTP/1.0": fine(hangs_up_after(framed(version="HTTP/1.0"))),
        "HTTP/1.0, without a length": fine(hangs_up_after(lambda honest: head(version="HTTP/1.0") + honest)),
        "HTTP/1.0, kept open": fine(sends(framed("Connection: keep-alive", version="HTTP/1.0"))),
        "no length": fine(hangs_up_after(lambda honest: head() + honest)),
        "chunks of one byte": fine(
            sends(chunked(lambda honest: b"".join(chunk(bytes([each])) for each in honest) + chunk(b"")))
        ),
        "chunks with extensions": fine(
            sends(chunked(lambda honest: b"%x;a=b\r\n%s\r\n0;c=d\r\n\r\n" % (len(honest), honest)))
        ),
        "a trailer": fine(sends(chunked(lambda honest: chunk(honest) + trailer))),
        "cookies": fine(sends(framed(*(f"Set-Cookie: {cookie}" for cookie in cookies)))),
    }


# Packed bodies --------------------------------------------------------------------------------------------------------


def of_packing() -> Mapping[str, Hostile]:
    return {
        "gzip": fine(sends(packed("gzip", gzip.compress))),
        "x-gzip": either(sends(packed("x-gzip", gzip.compress))),
        "deflate": fine(sends(packed("deflate", zlib.compress))),
        "raw deflate": fine(sends(packed("deflate", lambda honest: deflated(honest, -15)))),
        "gzip that is none": unclear(sends(packed("gzip", lambda _: JUNK))),
        "gzip, cut": unclear(sends(packed("gzip", lambda honest: gzip.compress(honest)[:-20]))),
        "gzip, and garbage": either(sends(packed("gzip", lambda honest: gzip.compress(honest) + b"\x00garbage"))),
        "gzip with a wrong sum": unclear(
            sends(packed("gzip", lambda honest: gzip.compress(honest)[:-8] + b"\x00" * 8))
        ),
        "gzip twice": unclear(sends(packed("gzip, gzip", lambda honest: gzip.compress(gzip.compress(honest))))),
        "gzip of nothing": Hostile(sends(packed("gzip", lambda _: b"")), UNCLEAR),
        "brotli that is none": unclear(sends(packed("br", lambda _: JUNK))),
        "zstd that is none": unclear(sends(packed("zstd", lambda _: JUNK))),
        "an encoding that is none": unclear(sends(packed("klingon", lambda honest: honest[::-1]))),
    }


# Connections ----------------------------------------------------------------------------------------------------------


def of_connections() -> Mapping[str, Hostile]:
    def part(share: float) -> Make:
        return lambda honest: whole(honest)[: int(len(whole(honest)) * share)]

    long = head("Content-Length: 9999")
    idle = whole(b"", "Connection: close", status="408 Idle")
    return {
        "a reset": lost(breaks_after(b"")),
        "a reset after the head": lost(breaks_after(long)),
        "a reset in the body": lost(breaks_after(long + JUNK)),
        "a reset after the answer": Hostile(breaks_after(whole(JUNK)), UNCLEAR),
        "no answer": lost(hangs_up_after(b"")),
        "no answer, half closed": lost(half_closes_after(b"")),
        "half an answer, half closed": lost(half_closes_after(part(0.9))),
        "an answer, half closed": fine(half_closes_after(whole)),
        "half of the answer": lost(hangs_up_after(part(0.9))),
        "a tenth of the answer": lost(hangs_up_after(part(0.1))),
        "all but one byte": lost(hangs_up_after(lambda honest: whole(honest)[:-1])),
        "silence": lost(falls_silent_after(b"")),
        "silence after the head": lost(falls_silent_after(long)),
        "silence in the body": lost(falls_silent_after(part(0.9))),
        "silence without a length": lost(falls_silent_after(lambda honest: head() + honest)),
        "a byte a second": lost(drips(whole)),
        "a byte a second after the head": lost(repeats(long, b" ", 1.0)),
        "a byte a second, chunked": lost(repeats(head(CHUNKED), chunk(b" "), 1.0)),
        "a byte a second of a header": lost(repeats(b"HTTP/1.1 200 OK\r\nX: ", b"x", 1.0)),
        "an answer that takes its time": fine(drips(whole, size=200)),
        "two answers": fine(sends(around(b"", whole(JUNK)))),
        "an answer, and a refusal, and the end": fine(hangs_up_after(around(b"", idle))),
        "an answer, and garbage": either(sends(around(b"", b"\x00" * 100))),
        "a shorter length": either(sends(around(b"", JUNK))),
    }


# Waits ----------------------------------------------------------------------------------------------------------------


def of_waits() -> Mapping[str, Hostile]:
    wishes = {
        wish[:12]: f"Retry-After: {wish}" for wish in ("1e309", "-1", "NaN", "inf", "1,5", TOKEN, "Xyz, 99", "0x10")
    }
    slow = {name: sends(whole(JUNK, wish, status="429 Slow")) for name, wish in wishes.items()}
    down = {name: sends(whole(JUNK, wish, status="503 Down")) for name, wish in wishes.items()}
    return {
        **{f"429, retry after {name}": Hostile(twist, REFUSED, lost=True, idle=True) for name, twist in slow.items()},
        **{f"503, retry after {name}": Hostile(twist, FAILED, lost=True) for name, twist in down.items()},
        **{f"200, retry after {name}": fine(sends(framed(wish))) for name, wish in wishes.items()},
    }


TWISTS: Final[Mapping[str, Hostile]] = {
    **of_bodies(),
    **of_statuses(),
    **of_heads(),
    **of_packing(),
    **of_connections(),
    **of_waits(),
}

CORE: Final = (
    *of_connections(),
    *(
        "html",
        "cut at the end",
        "deep objects",
        "UTF-16",
        "nothing",
        "an array",
        "another object",
        "a field of 2**64+1",
    ),
    *("five hundred misfits", "400, at length", "401 html", "408", "500 json", "502 html", "599 html", "600"),
    *("299, as if fine", "204, with a body", "101", "307 without a place to go", "100, for ever", "garbage"),
    *("a header of 100 KB", "two lengths", "headers without an end", "gzip, cut"),
    *("429, retry after 1e309", "503, retry after NaN"),
)
"""What vendors differ in their answers to; by the rest only the transport is put to the test."""
