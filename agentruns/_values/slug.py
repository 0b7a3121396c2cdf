"""
One text for several, safe in a URL: `vendor.parent.id`.

Letters and digits of ASCII, "-" and "_" stand as they are. Of anything else each byte of its UTF-8 is "~" and two
digits of base 16. So each run has one such text, in any path, query or fragment.
"""

from __future__ import annotations

import re
from typing import Final

from .base import ConfigurationError

_LONGEST: Final = 2000
"""Characters of the longest slug that is read; browsers and servers take no longer URLs for sure."""

_PARTS: Final = 3
_PLAIN: Final = re.compile(r"[^A-Za-z0-9_-]")
_SLUG: Final = re.compile(r"(?:[A-Za-z0-9_.-]|~[0-9A-F]{2})*")


def make_slug(vendor: str, parent: str, run_id: str) -> str:
    """Return the text that names a run."""
    return ".".join(_PLAIN.sub(_escaped, each) for each in (vendor, parent, run_id))


def parse_slug(slug: str) -> tuple[str, str, str]:
    """Return the vendor, the parent and the id that a slug names; raise `ConfigurationError` for any other text."""
    parts = slug.split(".")
    if len(slug) <= _LONGEST and len(parts) == _PARTS and _SLUG.fullmatch(slug) and parts[-1]:
        try:
            vendor, parent, run_id = (_read(each) for each in parts)
        except UnicodeDecodeError:
            pass
        else:
            if make_slug(vendor, parent, run_id) == slug:
                return vendor, parent, run_id
    raise ConfigurationError(
        f"{slug[:80]!r} names no run", field="slug", remedy="pass what `run.slug` gives, as in `vendor.parent.id`"
    )


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _read(part: str) -> str:
    pieces = re.split("~(..)", part)
    body = b"".join(bytes.fromhex(each) if place % 2 else each.encode() for place, each in enumerate(pieces))
    return body.decode("utf-8", "surrogatepass")
