"""What the command line understands."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import attrs

from agentruns import _extras as extras
from agentruns._values.printable import printable
from agentruns.dialects import NAMES, load
from agentruns.dialects.names import import_place, installed, is_place, shipped
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

from . import options, origins

EXIT_CODES = """\
exit codes:
  0 completed   1 the run failed   2 wrong usage   3 action required
  4 deadline    5 API or transport error   141 nobody reads the output
"""


class _SafeParser(argparse.ArgumentParser):
    """One that says what is wrong safely: it quotes what it was given, which a script may have from elsewhere."""

    def error(self, message: str) -> NoReturn:
        """Say it in one line, and exit with 2."""
        super().error(printable(message))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for; exit with 2, and say why, if it cannot be understood."""
    return _parser(argv).parse_args(argv)


def completion(shell: str) -> str:
    """Return the script that completes commands and options in a shell, for the vendors of this package."""
    with extras.require("cli", "completion needs"):
        import shtab

    script: str = shtab.complete(_parser(None), shell)
    return script


def _parser(argv: Sequence[str] | None) -> argparse.ArgumentParser:
    """Return the parser for a command line, with the options that it may need; all that there are for None."""
    parser = _SafeParser(
        prog="agentruns",
        description="Start, follow and answer runs of AI agents.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"agentruns {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = _command(commands, "demo", "run the whole story on an embedded emulator: no key, no network")
    demo.add_argument(
        "--vendor", type=options.vendor_name, action="append", help=f"whose API to show; {', '.join(NAMES)} by default"
    )
    options.add_output(demo)

    emulate = _command(commands, "emulate", "serve emulated vendors on loopback until Ctrl-C")
    emulate.add_argument("vendor", metavar="VENDOR", nargs="*", help="whose API; by default all that can be emulated")
    emulate.add_argument("--port", type=int, default=0, help="port to listen on, for one vendor; a free one by default")
    emulate.add_argument("--run-seconds", type=float, metavar="S", help="how long each run takes")
    emulate.add_argument("--fail", type=float, metavar="SHARE", help="the share of runs that fail, such as 0.05")
    emulate.add_argument("--slots", type=int, metavar="N", help="runs at once, where the vendor has slots")
    emulate.add_argument("--limit", type=int, metavar="N", help="requests per second, where the vendor limits them")
    emulate.add_argument(
        "--json", action="store_true", help="print vendor, base_url, token and an example of what starts a run as JSON"
    )

    start = _command(commands, "start", "start a run and print its first state")
    run = _command(commands, "run", "start a run and follow it to its end")
    names = _names(argv)  # looked up once: it looks through all packages that are installed
    for word, command in (("start", start), ("run", run)):
        vendors = command.add_subparsers(dest="vendor", required=True, metavar="VENDOR")
        for name in names:
            vendor = vendors.add_parser(name, help=f"a run of {name}", epilog=EXIT_CODES, formatter_class=_Raw)
            if _is_asked(argv, word, name):
                origins.add_options(vendor, _fill(vendor, name))
            options.add_connection(vendor)
            if command is run:
                options.add_waiting(vendor)
            options.add_output(vendor)

    guesses = _command(commands, "vendors", "what no page of a vendor says, what is taken for it, and how to change it")
    guesses.add_argument(
        "vendor", metavar="VENDOR", nargs="?", type=options.vendor_name, help="of all vendors by default"
    )
    guesses.add_argument("--json", action="store_true", help="print one JSON object per guess")

    watch = _command(commands, "watch", "follow a run that exists to its end")
    watch.add_argument("vendor", type=options.vendor_name, help="whose run it is")
    watch.add_argument("id", help="the run's id")
    watch.add_argument("--parent", default="", help="its conversation, thread or agent, where the vendor needs it")
    options.add_connection(watch)
    options.add_waiting(watch)
    options.add_output(watch)

    listing = _command(commands, "list", "list the runs of a vendor, newest first where the vendor says so")
    listing.add_argument("vendor", type=options.vendor_name, help="whose runs")
    listing.add_argument("--parent", default="", help="only those of this agent or thread; Origami and Conduit need it")
    listing.add_argument("--limit", type=int, default=100, help="how many at the most (default: 100)")
    options.add_connection(listing)
    options.add_output(listing)

    batch = _command(commands, "batch", "run every row of a file, and go on where an earlier call stopped")
    vendors = batch.add_subparsers(dest="vendor", required=True, metavar="VENDOR")
    for name in names:
        vendor = vendors.add_parser(
            name, help=f"runs of {name}", description=_BATCH, epilog=EXIT_CODES, formatter_class=_Raw
        )
        options.add_batch(vendor)
        if _is_asked(argv, "batch", name):
            origins.add_options(vendor, _fill(vendor, name), templates=True)

    report = _command(commands, "report", "show how a batch went, on one HTML page")
    report.add_argument("output", metavar="OUTPUT", help="what `agentruns batch` wrote")
    report.add_argument("-o", "--html", metavar="PAGE", help="where the page goes (default: OUTPUT with .html)")
    report.add_argument("--png", metavar="PICTURE", help="write the figures as a PNG, too")

    options.add_console(
        _command(commands, "console", "show the runs of a journal on a web page, and answer what they ask")
    )
    complete = _command(commands, "completion", "print what completes commands and options in a shell")
    complete.add_argument(
        "shell", choices=("bash", "zsh", "tcsh"), help='for bash: eval "$(agentruns completion bash)"'
    )
    return parser


def _fill(parser: argparse.ArgumentParser, name: str) -> Vendor:
    """Return the dialect *name*, to offer its options; end with a word on what is wrong with it."""
    try:
        vendor = Vendor.of(load(name))
        if not attrs.has(vendor.Origin):
            raise ConfigurationError(
                f"{vendor.NAME} starts a run from {vendor.Origin.__name__}, which is no attrs class and has no options"
            )
    except ConfigurationError as error:
        parser.error(str(error))
    return vendor


def tools(spec: str | None) -> Tools | None:
    """Return the handlers that `--tools module:name` or `--tools file.py:name` points at."""
    if spec is None:
        return None
    place, _, name = spec.rpartition(":")
    if not place:
        raise ConfigurationError(f"--tools is {spec!r}; it must be module:name or file.py:name")
    try:
        module = import_place(place)
        return Tools.of(getattr(module, name))
    except SystemExit as error:
        raise ConfigurationError(f"--tools {spec!r} cannot be loaded: it ends the process ({error.code!r})") from error
    except Exception as error:  # what the file itself raises, too: it is the user's, and a traceback helps nobody
        words = "" if isinstance(error, ImportError | AttributeError | OSError) else f"{type(error).__name__}: "
        raise ConfigurationError(f"--tools {spec!r} cannot be loaded: {words}{error}") from error


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("agentruns")
    except PackageNotFoundError:  # run from its source
        return "(not installed)"


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keep the epilog's lines, and show as needed what only a dry run may leave out."""

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None = None
    ) -> None:
        """Add the line that begins with "usage"."""
        super().add_usage(usage, [_needed(each) if each.dest in _NEEDED else each for each in actions], groups, prefix)


_NEEDED = frozenset({"output"})


def _needed(action: argparse.Action) -> argparse.Action:
    shown = copy.copy(action)
    shown.required = True
    return shown


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary.capitalize()}.", epilog=EXIT_CODES, formatter_class=_Raw
    )
    return made


_BATCH = """\
Run every row of INPUT, never more than --limit at once, and append one JSON line per row to OUTPUT, in the order in
which they end: key, line, status, output, failure, usage, cost, started, ended, durations (seconds), attempts, actions,
run, vendor, digest (of what was asked for), earlier (what attempts before this one have used), and with --columns also
columns. The status is completed, failed, requires_action, unfinished (its timeout has passed), unstarted (the vendor
answers 401, 402 or 403, and no further row is begun), error (see failure) or invalid. A call that takes up a row again
writes a further line for it, and puts a file with the last lines alone in the place of OUTPUT when it ends.

A second call goes on where the first stopped: rows that are done are left out, runs that were started are followed,
not started again (that is in the journal). Rows that cannot be used are reported by line and field, and entered as
"invalid", with null as their key; their failure has the key that they would have. A row whose run failed is done;
--retry-failed starts it again. A row that asks for something else than when it was begun (its texts, or the file of
which its parent is made) is left as it is and told, with exit code 2: --again starts it, --keep takes what there is.
The exit code is the highest that any row asks for, 4 at least after --max-failures and its like, or 130 after Ctrl-C
and 143 after SIGTERM: the first takes no more rows and waits for those in flight, the second leaves them.

In a template {column} stands for the row's column, {a.b} and {a[0]} for what is within it, {#} for its line, {{ and }}
for braces; @FILE takes it from a file.
In a field of JSON the template is JSON whose texts are templates; "{column}" alone is the column's own value. A
required field without a template is taken from the column of its name. An optional field whose one column is empty is
left out.

With --engine ray (extra: ray) workers of Ray follow the runs, on this machine or on the cluster that RAY_ADDRESS names;
--limit and --budget are for all of them together. A worker that dies is started again, and attaches to the runs that it
had started: on one machine by the journal, else by an id of the start, which derives from the batch, the row's key and
what it asks for. Where the vendor knows no such ids, and there is no journal that all machines share, a row whose
worker dies is not started again, and reported as OutcomeUnknownError. Without a journal, a handler that a dead worker
ran may be run again, and if this call itself dies, the next one starts rows with a new parent again that were in
flight. Ctrl-C works as above. The token is read from the environment of the workers, --tools from their disks.
"""


def _names(argv: Sequence[str] | None) -> Sequence[str]:
    """Return the vendors that a command offers, and the one from elsewhere that is asked for."""
    if argv is None:
        return NAMES
    others = {*installed(), *shipped(), *(each for each in argv[1:2] if is_place(each))}
    return (*NAMES, *sorted(others - {*NAMES}))


def _is_asked(argv: Sequence[str] | None, command: str, vendor: str) -> bool:
    """Tell whether *argv* is of that command and names the vendor: only then is the dialect loaded for its options."""
    return argv is None or ([*argv[:1]] == [command] and vendor in argv)
