"""What the command line understands."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import attrs

from agentruns import _extras as extras
from agentruns._values import codec
from agentruns._values.printable import printable
from agentruns.dialects import NAMES, load
from agentruns.dialects.names import import_place, installed, is_place, shipped
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

from . import parents
from .fields import Kind, either, kind_of

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
        "--vendor", type=_vendor_name, action="append", help=f"whose API to show; {', '.join(NAMES)} by default"
    )
    _output(demo)

    emulate = _command(commands, "emulate", "serve emulated vendors on loopback until Ctrl-C")
    emulate.add_argument("vendor", metavar="VENDOR", nargs="*", help="whose API; by default all that can be emulated")
    emulate.add_argument("--port", type=int, default=0, help="port to listen on, for one vendor; a free one by default")
    emulate.add_argument("--run-seconds", type=float, metavar="S", help="how long each run takes")
    emulate.add_argument("--fail", type=float, metavar="SHARE", help="the share of runs that fail, such as 0.05")
    emulate.add_argument("--slots", type=int, metavar="N", help="runs at once (Origami)")
    emulate.add_argument("--limit", type=int, metavar="N", help="requests per second (Middesk, Origami)")
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
                _origin(vendor, _fill(vendor, name))
            _connection(vendor)
            if command is run:
                _waiting(vendor)
            _output(vendor)

    guesses = _command(commands, "vendors", "what no page of a vendor says, what is taken for it, and how to change it")
    guesses.add_argument("vendor", metavar="VENDOR", nargs="?", type=_vendor_name, help="of all vendors by default")
    guesses.add_argument("--json", action="store_true", help="print one JSON object per guess")

    watch = _command(commands, "watch", "follow a run that exists to its end")
    watch.add_argument("vendor", type=_vendor_name, help="whose run it is")
    watch.add_argument("id", help="the run's id")
    watch.add_argument("--parent", default="", help="its conversation, thread or agent, where the vendor needs it")
    _connection(watch)
    _waiting(watch)
    _output(watch)

    listing = _command(commands, "list", "list the runs of a vendor, newest first where the vendor says so")
    listing.add_argument("vendor", type=_vendor_name, help="whose runs")
    listing.add_argument("--parent", default="", help="only those of this agent or thread; Origami and Conduit need it")
    listing.add_argument("--limit", type=int, default=100, help="how many at the most (default: 100)")
    _connection(listing)
    _output(listing)

    batch = _command(commands, "batch", "run every row of a file, and go on where an earlier call stopped")
    vendors = batch.add_subparsers(dest="vendor", required=True, metavar="VENDOR")
    for name in names:
        vendor = vendors.add_parser(
            name, help=f"runs of {name}", description=_BATCH, epilog=EXIT_CODES, formatter_class=_Raw
        )
        _batch(vendor, _fill(vendor, name) if _is_asked(argv, "batch", name) else None)

    report = _command(commands, "report", "show how a batch went, on one HTML page")
    report.add_argument("output", metavar="OUTPUT", help="what `agentruns batch` wrote")
    report.add_argument("-o", "--html", metavar="PAGE", help="where the page goes (default: OUTPUT with .html)")
    report.add_argument("--png", metavar="PICTURE", help="write the figures as a PNG, too")

    _console(_command(commands, "console", "show the runs of a journal on a web page, and answer what they ask"))
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


def origin(arguments: argparse.Namespace) -> Any:
    """Return the origin that the options describe; raise `ConfigurationError` for a value that does not fit."""
    vendor = Vendor.of(load(arguments.vendor))
    kind, parent = vendor.Origin, parents.field_of(vendor)
    file = getattr(arguments, "parent_file", None)
    if parent is not None:
        is_given = getattr(arguments, f"origin_{parent}") is not None
        is_needed = attrs.fields_dict(kind)[parent].default is attrs.NOTHING
        if is_given == (file is not None) and (is_given or is_needed):
            raise ConfigurationError(
                f"give {option(parent)} of one that exists, or {parents.option_of(vendor)} FILE for a new one"
            )
        if file is not None:
            setattr(arguments, f"origin_{parent}", parents.pending(vendor))
    given = {
        field.name: _value(field, getattr(arguments, f"origin_{field.name}"))
        for field in attrs.fields(kind)
        if getattr(arguments, f"origin_{field.name}") is not None
    }
    return kind(**given)


def templates(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the templates that the options of `batch` give, by field; raise `ConfigurationError` for a strange one."""
    given = {
        field.name: getattr(arguments, f"origin_{field.name}")
        for field in attrs.fields(load(arguments.vendor).Origin)
        if getattr(arguments, f"origin_{field.name}") is not None
    }
    for each in arguments.set:
        name, found, template = each.partition("=")
        if not found:
            raise ConfigurationError(f"--set is {each!r}; it must be FIELD=TEMPLATE, such as agent_id={{agent}}")
        field = name.strip().replace("-", "_")
        if field in given:
            raise ConfigurationError(f"--set {field} is given twice, or beside {option(field)}; leave one of them out")
        given[field] = template
    return {field: text_of(template, option(field)) for field, template in given.items()}


def text_of(given: str, name: str) -> str:
    """
    Return what an option gives: its text, or that of the file FILE for @FILE; @@ at the beginning stands for one @.

    Raise `ConfigurationError`, naming the option, for a file that cannot be read.
    """
    if not given.startswith("@") or given.startswith("@@"):
        return given[1:] if given.startswith("@@") else given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigurationError(
            f"{name} is {given!r}, and that file cannot be read: {error}. A text that begins with @ is given with @@"
        ) from error


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
"invalid", with null as their key. A row whose run failed is done; --retry-failed starts it again. A row that asks for
something else than when it was begun (its texts, or the file of which its parent is made) is left as it is and told,
with exit code 2: --again starts it, --keep takes what there is. The exit code is the highest that any row asks for, 4
at least after --max-failures and its like, or 130 after Ctrl-C: the first takes no more rows and waits for those in
flight, the second leaves them.

In a template {column} stands for the row's column, {#} for its line, {{ and }} for braces; @FILE takes it from a file.
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


def _batch(parser: argparse.ArgumentParser, vendor: Vendor | None) -> None:
    """Offer what `batch` takes for one vendor."""
    parser.add_argument("input", metavar="INPUT", help="a file: .jsonl, .csv, .tsv (UTF-8, with a header), or .parquet")
    parser.add_argument("-o", "--output", metavar="OUTPUT", help="where JSON lines are appended; a dry run needs none")
    if vendor is not None:
        _origin(parser, vendor, templates=True)
    parser.add_argument(
        "--set", metavar="FIELD=TEMPLATE", action="append", default=[], help="the same, for any field; may be repeated"
    )
    parser.add_argument(
        "--key",
        metavar="TEMPLATE",
        help="what names a row over several calls; by default its line and what is made of it, so that a row that "
        "changed or moved is another one. Give a column of ids if rows may move",
    )
    parser.add_argument("--delimiter", metavar="CHARACTER", help="between the cells of a CSV file (default: a comma)")
    parser.add_argument("--encoding", metavar="NAME", help="of a CSV or JSONL file, such as latin-1 (default: UTF-8)")
    parser.add_argument(
        "--columns", metavar="NAMES", help="columns of INPUT that the output has, too, with commas between; * for all"
    )
    parser.add_argument("--first", metavar="N", type=int, help="take the first N rows of INPUT only, as a sample")
    parser.add_argument("--tools", metavar="MODULE:NAME", help="handlers: module:name or file.py:name")
    parser.add_argument("--limit", type=int, default=64, help="runs in flight at once, at most (default: 64)")
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="who follows the runs (default: this process)"
    )
    parser.add_argument("--workers", type=int, help="of Ray (default: 2, or one for each of its machines)")
    parser.add_argument("--batch-name", metavar="NAME", help="of Ray: what ids derive from (default: OUTPUT's path)")
    parser.add_argument("--budget", type=float, help="requests per second, at most (default: the vendor's limit)")
    parser.add_argument(
        "--timeout", type=float, help="seconds for each run (default: as long as the vendor says that one may take)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how long to wait for a vendor that does not answer (default: an hour); nothing is given up meanwhile",
    )
    journal = parser.add_mutually_exclusive_group()
    journal.add_argument("--journal", metavar="PATH", help="what keeps work across a crash (default: OUTPUT.journal)")
    journal.add_argument(
        "--no-journal", action="store_true", help="keep none: after a crash, runs in flight are started again"
    )
    parser.add_argument(
        "--keep-days", metavar="DAYS", type=float, help="first take out of the journal what has been done for longer"
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="start rows again whose run failed, or is gone at the vendor",
    )
    changed = parser.add_mutually_exclusive_group()
    changed.add_argument(
        "--again", action="store_true", help="start rows again that ask for something else than when they were begun"
    )
    changed.add_argument("--keep", action="store_true", help="take such rows as they are")
    parser.add_argument(
        "--max-failures", metavar="N", type=int, help="take no more rows once N have failed in this call"
    )
    parser.add_argument(
        "--max-total-tokens", metavar="N", type=int, help="take no more rows once all of OUTPUT have used N tokens"
    )
    parser.add_argument(
        "--max-total-cost",
        metavar="X",
        type=float,
        help="the same for the cost, in the vendor's unit",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look at every row, send nothing, show the first request"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    _connection(parser)
    parser.add_argument("--json", action="store_true", help="show progress as one JSON object per line")


def _origin(parser: argparse.ArgumentParser, vendor: Vendor, *, templates: bool = False) -> None:
    """Offer an option for each field of what starts a run, its value or a template, and one that makes its parent."""
    group = parser.add_argument_group(f"what starts a run of {vendor.NAME} ({vendor.Origin.__name__})")
    parent = parents.field_of(vendor)
    for field in attrs.fields(vendor.Origin):
        needed = field.default is attrs.NOTHING
        group.add_argument(
            option(field.name),
            dest=f"origin_{field.name}",
            required=needed and not templates and field.name != parent,
            metavar="TEMPLATE" if templates else "JSON" if kind_of(field) is Kind.JSON else "TEXT",
            help=_help(field, needed=needed) if templates else _words(field, needed=needed),
        )
    if parent is not None:
        told = f"for each row, {parents.help_of(vendor)}" if templates else parents.help_of(vendor)
        group.add_argument(parents.option_of(vendor), dest="parent_file", metavar="FILE", help=told)


def option(name: str) -> str:
    """Return the option of a field of what starts a run; one whose name another option has gets a prefix."""
    plain = f"--{name.replace('_', '-')}"
    return f"--origin-{plain[2:]}" if plain in _reserved() else plain


@cache
def _reserved() -> frozenset[str]:
    parser = argparse.ArgumentParser()
    _batch(parser, None)
    other = argparse.ArgumentParser()
    for offer in (_connection, _waiting, _output):
        offer(other)
    return frozenset({*parser._option_string_actions, *other._option_string_actions})


def _words(field: attrs.Attribute[Any], *, needed: bool) -> str:
    told = field.metadata.get("help")
    words = [*([str(told)] if told else []), str(kind_of(field))]
    if needed:
        words.append("required")
    elif field.default is not None and not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        words.append(f"by default {field.default!r}")
    return "; ".join(words).replace("%", "%%")


def _vendor_name(name: str) -> str:
    try:
        Vendor.of(load(name))
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def _names(argv: Sequence[str] | None) -> Sequence[str]:
    """Return the vendors that a command offers, and the one from elsewhere that is asked for."""
    if argv is None:
        return NAMES
    others = {*installed(), *shipped(), *(each for each in argv[1:2] if is_place(each))}
    return (*NAMES, *sorted(others - {*NAMES}))


def _is_asked(argv: Sequence[str] | None, command: str, vendor: str) -> bool:
    """Tell whether *argv* is of that command and names the vendor: only then is the dialect loaded for its options."""
    return argv is None or ([*argv[:1]] == [command] and vendor in argv)


def _help(field: attrs.Attribute[Any], *, needed: bool) -> str:
    kind = kind_of(field)
    return f"{kind}; by default the column {field.name}" if needed else str(kind)


def _console(parser: argparse.ArgumentParser) -> None:
    """Offer what `console` takes."""
    parser.add_argument("journal", metavar="JOURNAL", nargs="?", help="what `agentruns batch` or a client has kept")
    parser.add_argument(
        "--emulator", metavar="VENDOR", type=_vendor_name, help="instead of a journal, try it on an emulated vendor"
    )
    parser.add_argument("--vendor", type=_vendor_name, help="follow and answer runs of this vendor only")
    parser.add_argument(
        "--token-env", metavar="NAME", help="the environment variable with the token of --vendor, if not the usual one"
    )
    parser.add_argument("--base-url", help="another base URL than that of --vendor")
    parser.add_argument("--insecure", action="store_true", help="allow the token over plain http to another host")
    _proxy(parser)
    parser.add_argument(
        "--answers", metavar="FILE", help="JSON: by the name of a tool, the JSON Schema of what it answers"
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; a free one by default")
    parser.add_argument(
        "--expose", action="store_true", help="allow a --host that others can reach: they see what you see, unencrypted"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def _connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-url", help="another base URL than the vendor's (the token comes from the environment)")
    parser.add_argument("--insecure", action="store_true", help="allow the token over plain http to another host")
    _proxy(parser)


def _proxy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--proxy",
        metavar="URL",
        type=_proxy_url,
        help="go through an HTTP proxy: its URL, without a password, or `env` for that in HTTPS_PROXY, with one",
    )


def _proxy_url(text: str) -> str:
    if "@" in text:  # others see command lines, and what is typed is shown again
        raise argparse.ArgumentTypeError("it has a password; put the URL into HTTPS_PROXY, and use `--proxy env`")
    return text


def _waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=float, help="seconds for the whole wait (default: as long as the vendor says a run may take)"
    )
    parser.add_argument("--tools", metavar="MODULE:NAME", help="handlers: module:name or file.py:name")
    parser.add_argument("--progress", action="store_true", help="show states that differ in progress alone too")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object per state")


def _value(field: attrs.Attribute[Any], text: str) -> Any:
    kind = kind_of(field)
    if kind is not Kind.JSON:
        given = text_of(text, option(field.name))
        return given if kind is Kind.TEXT else either(given)
    try:
        value: Mapping[str, Any] | list[Any] | str | float | None = codec.decode(text)
    except codec.CodecError as error:
        raise ConfigurationError(f"--{field.name.replace('_', '-')} is {text!r}, which is not JSON: {error}") from error
    return value
