"""`agentruns emulate`: vendors on loopback, as slow and as faulty as is asked for, each with a command to try it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from agentruns._connect import connect
from agentruns._values import check, codec
from agentruns._values.minted import minted
from agentruns.dialects import conduit, load, middesk, narrative, origami
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from . import emulators, origins
from .printing import say, shell

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Turn

_LIMITS: Final = {"middesk": ("rate_limit", 1), "origami": ("requests_per_minute", 60)}
"""By vendor, the option of its emulator that limits requests, and how many seconds that counts them in."""

_PLACE: Final = "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11"
"""Any UUID does for a data plane, or a business, that is emulated."""


async def emulate(args: argparse.Namespace) -> int:
    """
    Serve the vendors until Ctrl-C, and return the exit code.

    Raise `ConfigurationError` for a vendor that is not known, an option that it has not, or a port that is taken.
    """
    from agentruns.emulator import Emulator

    names = args.vendor or emulators.emulated_names()
    kinds = {name: emulators.emulator_of(name) for name in names}
    if args.port and len(names) > 1:
        raise ConfigurationError("--port is for one vendor; name it, or leave the ports to chance")
    options = {name: _options(args, name) for name in names}
    alter = _alteration(args)
    async with contextlib.AsyncExitStack() as running:
        try:
            served = {
                name: await running.enter_async_context(Emulator(kind, port=args.port, **options[name]))
                for name, kind in kinds.items()
            }
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"port {args.port} cannot be listened on: {error}. Choose another") from error
        for name, emulator in served.items():
            emulator.alter(alter)
            say(*_lines(name, emulator, await _example(name, emulator), json=args.json))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return 0


def _options(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return the options of a vendor's emulator; raise `ConfigurationError` for one that it has not."""
    options: dict[str, Any] = {}
    if args.slots is not None:
        check.integer("--slots", args.slots, 1)
        if name != "origami":
            raise ConfigurationError(
                f"--slots is for origami; {name} has no slots. Name origami alone, or leave it out"
            )
        options["slots"] = args.slots
    if args.limit is not None:
        check.integer("--limit", args.limit, 1)
        if name not in _LIMITS:
            raise ConfigurationError(
                f"--limit is for {' and '.join(_LIMITS)}; {name} is emulated without a limit. Name one of them, or "
                "leave it out"
            )
        option, seconds = _LIMITS[name]
        options[option] = args.limit * seconds
    return options


def _alteration(args: argparse.Namespace) -> Any:
    """Return what becomes of each run of the script: how long it takes, and whether it fails; None for no change."""
    seconds, share = args.run_seconds, args.fail
    if seconds is not None:
        check.number("--run-seconds", seconds, zero=True)
    if share is not None and not 0 <= share <= 1:
        raise ConfigurationError(f"--fail is {share:g}; it must be the share of runs that fail, from 0 to 1")
    if seconds is None and not share:
        return None
    chance = random.Random(0)  # noqa: S311 - a rehearsal that can be repeated

    def alter(turn: Turn) -> Turn:
        if seconds is not None:
            turn = attrs.evolve(turn, running=seconds)
        if share and chance.random() < share:
            turn = attrs.evolve(turn, text=None, structured=None, calls=(), error="EmulatedFailure")
        return turn

    return alter


async def _example(name: str, emulator: Emulator[Any]) -> Any:
    """Return what starts a run there, with ids that exist; None where the dialect has no example."""
    if name == "narrative":
        config = narrative.Config(
            model="emulated",
            data_plane_id=_PLACE,
            max_iterations=8,
            max_tokens=2048,
            output_format_schema=narrative.TEXT_SCHEMA,
        )
        async with connect("narrative", token=emulator.token, base_url=emulator.base_url) as client:
            conversation = await client.perform(narrative.create_conversation(config))
        return narrative.UserMessage(conversation.id, "Hello.")
    if name == "middesk":
        return middesk.RunRequest("cip_orchestrator", business_id=_PLACE)
    if name == "origami":
        return origami.Prompt("Hello.")
    if name == "conduit":
        return conduit.Dispatch(emulator.state.agent_id, trigger_id=emulator.state.trigger_id)
    vendor = Vendor.of(load(name))
    return None if vendor.example is None else vendor.call("example")


def _given(origin: Any) -> Mapping[str, Any]:
    """Return the fields of an origin that are not at their defaults, as JSON."""
    if origin is None or not attrs.has(type(origin)):
        return {}
    plain = codec.to_jsonable(codec.unstructure(origin, defaults=False), "the example")
    return {name: value for name, value in plain.items() if name not in minted(type(origin))}


def _lines(name: str, emulator: Emulator[Any], origin: Any, *, json: bool) -> list[str]:
    given = _given(origin)
    if json:
        told = {"vendor": name, "base_url": emulator.base_url, "token": emulator.token, "example": given}
        return [codec.encode(told).decode()]
    dialect = load(name)
    words = ["agentruns", "run", name]
    for field, value in given.items():
        words += [origins.option(field), value if isinstance(value, str) else codec.encode(value).decode()]
    return [
        f"{name} is emulated at {emulator.base_url} until Ctrl-C; in another terminal:",
        f"  export {dialect.BASE_URL_VARIABLE}={emulator.base_url} {dialect.TOKEN_VARIABLE}={emulator.token}",
        f"  {shell(words if given else [*words, '--help'])}",
    ]
