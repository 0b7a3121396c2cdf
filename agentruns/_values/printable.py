r"""
Text that is safe to print, whoever wrote it: a vendor, a model, or a person by way of them.

Control characters move the cursor, set the clipboard or forge lines of a log; bidi controls make a line read as what it
is not; invisible ones hide what it says. Here each becomes an escape that everybody sees, such as `\x1b` or `\u202e`.
"""

from __future__ import annotations

import re
from typing import Final

_UNSAFE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: ESC and CSI among them
    "\xad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # seen by nobody
    "\u2028-\u202e\u2066-\u206f"  # separators of lines and paragraphs; bidi controls
    "\ud800-\udfff"  # halves of characters, which no encoding carries
    "]"
)
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return *text* on one line, with each character that a terminal or a log would obey or hide as an escape."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""Return JSON *text* of one line that means the same; what `printable` escapes stands in it as `\uXXXX`."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_json_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in _NAMED:
        return _NAMED[match[0]]
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
