"""What the command line understands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from agentruns import codec
from agentruns.dialect import Dialect
from agentruns.dialects import NAMES, load
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

EXIT_CODES = """\
exit codes:
  0 completed   1 the run failed   2 wrong usage   3 action required
  4 deadline    5 API or transport error
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for; exit with 2, and say why, if it cannot be understood."""
    parser = argparse.ArgumentParser(
        prog="agentruns",
        description="Start, follow and answer runs of AI agents.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = _command(commands, "demo", "run the whole story on an embedded emulator: no key, no network")
    demo.add_argument("--vendor", choices=NAMES, action="append", help="whose API to show; all of them by default")
    _output(demo)

    emulate = _command(commands, "emulate", "serve emulated vendors on loopback until Ctrl-C")
    emulate.add_argument("vendor", metavar="VENDOR", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    emulate.add_argument("--port", type=int, default=0, help="port to listen on, for one vendor; a free one by default")
    emulate.add_argument("--json", action="store_true", help="print vendor, base_url and token, one JSON object each")

    start = _command(commands, "start", "start a run and print its first state")
    run = _command(commands, "run", "start a run and follow it to its end")
    for command in (start, run):
        vendors = command.add_subparsers(dest="vendor", required=True, metavar="VENDOR")
        for name in NAMES:
            vendor = vendors.add_parser(name, help=f"a run of {name}", epilog=EXIT_CODES, formatter_class=_Raw)
            if name in argv:
                _origin(vendor, load(name))
            _connection(vendor)
            if command is run:
                _waiting(vendor)
            _output(vendor)

    watch = _command(commands, "watch", "follow a run that exists to its end")
    watch.add_argument("vendor", choices=NAMES, help="whose run it is")
    watch.add_argument("id", help="the run's id")
    watch.add_argument("--parent", default="", help="its conversation, thread or agent, where the vendor needs it")
    _connection(watch)
    _waiting(watch)
    _output(watch)

    listing = _command(commands, "list", "list the runs of a vendor, newest first where the vendor says so")
    listing.add_argument("vendor", choices=NAMES, help="whose runs")
    listing.add_argument("--parent", default="", help="only those of this agent or thread; Origami and Conduit need it")
    listing.add_argument("--limit", type=int, default=100, help="how many at the most (default: 100)")
    _connection(listing)
    _output(listing)
    return parser.parse_args(argv)


def origin(arguments: argparse.Namespace) -> Any:
    """Return the origin that the options describe; raise `ConfigurationError` for a value that does not fit."""
    kind = load(arguments.vendor).Origin
    given = {
        field.name: _value(field, getattr(arguments, field.name))
        for field in attrs.fields(kind)
        if getattr(arguments, field.name) is not None
    }
    return kind(**given)


def tools(spec: str | None) -> Tools | None:
    """Return the handlers that `--tools module:name` or `--tools file.py:name` points at."""
    if spec is None:
        return None
    place, _, name = spec.rpartition(":")
    if not place:
        raise ConfigurationError(f"--tools is {spec!r}; it must be module:name or file.py:name")
    try:
        module = _module(place)
        return Tools.of(getattr(module, name))
    except (ImportError, AttributeError, OSError) as error:
        raise ConfigurationError(f"--tools {spec!r} cannot be loaded: {error}") from error


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, "")
        return importlib.import_module(place)
    path = Path(place).resolve(strict=True)
    sys.path.insert(0, str(path.parent))
    return importlib.import_module(path.stem)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keep the epilog's lines."""


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary.capitalize()}.", epilog=EXIT_CODES, formatter_class=_Raw
    )
    return made


def _origin(parser: argparse.ArgumentParser, dialect: Dialect) -> None:
    """Offer an option for each field of what starts a run."""
    group = parser.add_argument_group(f"what starts a run of {dialect.NAME} ({dialect.Origin.__name__})")
    for field in attrs.fields(dialect.Origin):
        needed = field.default is attrs.NOTHING
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            required=needed,
            metavar="TEXT" if _is_text(field) else "JSON",
            help="required" if needed else None,
        )


def _connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-url", help="another base URL than the vendor's (the token comes from the environment)")
    parser.add_argument("--insecure", action="store_true", help="allow the token over plain http to another host")


def _waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the whole wait (default: 600)")
    parser.add_argument("--tools", metavar="MODULE:NAME", help="handlers: module:name or file.py:name")
    parser.add_argument("--progress", action="store_true", help="show states that differ in progress alone too")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object per state")


def _is_text(field: attrs.Attribute[Any]) -> bool:
    return field.type in {str, str | None, "str", "str | None"}  # by name, or evaluated, as the class may have been


def _value(field: attrs.Attribute[Any], text: str) -> Any:
    if _is_text(field):
        return text
    try:
        value: Mapping[str, Any] | list[Any] | str | float | None = codec.decode(text)
    except codec.CodecError as error:
        raise ConfigurationError(f"--{field.name.replace('_', '-')} is {text!r}, which is not JSON: {error}") from error
    return value
