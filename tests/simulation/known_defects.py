"""
Defects that the simulation has found and that are not mended yet: what is not looked at meanwhile.

Each has a name, under which the laws ask `World.knows` before they complain, and a story of its own in `test_found.py`,
marked `@known(name)`. When one is mended, strike it out here: from then on the simulation looks at it, too.
`--unknown NAME` looks at one of them, `--strict` at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KNOWN: Final[Mapping[str, str]] = {}
