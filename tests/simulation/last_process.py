"""Who comes at the end, in fine weather, and goes through with what has a key: nothing may be lost by then."""

from __future__ import annotations

from agentruns import (
    AlreadyAnsweredError,
    ConfigurationError,
    JournalError,
    OutcomeUnknownError,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolOutcomeUnknownError,
)

from .callers import CALLER, Caller, Sight, run_of
from .invariants import Flaw
from .process import Process


class Finisher(Caller):
    """Goes through with one piece of work, deciding what only a person can."""

    async def run(self, process: Process) -> None:
        self.process = process
        CALLER.set(self)
        world, intent, laws = self.world, self.intent, self.world.laws
        sight = Sight(len(laws.sights) + 1, intent, "the end", True, True)
        laws.sights.append(sight)
        known: RunRef | None = None
        for _ in range(12):
            process.waits[self] = None
            try:
                origin = known or self.origin()
                run = await process.client.result(origin, key=intent.key, tools=self.tools(), timeout=1e5)
            except RunFailedError as error:
                run = run_of(error)
            except ToolOutcomeUnknownError as error:
                world.note("%s: %s", sight, repr(error)[:300])
                laws.was_cut(sight, error)
                await self._decide(process, run_of(error), sight)
                continue
            except OutcomeUnknownError as error:
                world.note("%s: %s", sight, repr(error)[:300])
                self._look_for_it(sight, error)
                found = self._found()
                if found is None:
                    return
                laws.check(known is None, f"the end: {sight} was told which run it is, and raised {error}")
                known = found
                continue
            except Flaw:
                continue
            except Exception as error:
                laws.broken(f"the end: in fine weather, {sight} raised {type(error).__name__}: {error}")
                return
            finally:
                process.waited[process.waits.pop(self)] = world.now
            self.sees(sight, run)
            self.over(sight)
            laws.check(run.status is not RunStatus.REQUIRES_ACTION, f"the end: {sight} ended at a pause")
            world.done.add(intent.key)
            await self._come_as_a_stranger(process)
            return
        laws.broken(f"the end: {sight} comes to no end")

    async def _decide(self, process: Process, run: Run, sight: Sight) -> None:
        try:
            try:
                await self.decide(process, run)
            except AlreadyAnsweredError as error:  # of some of the questions only: what stands is given again
                await self.decide(process, run, error.standing)
        except (ConfigurationError, JournalError) as error:
            self.world.laws.broken(f"the end: {sight} cannot decide: {error}")
        except Exception as error:
            self.world.note("%s: deciding: %s", sight, repr(error)[:300])

    async def _come_as_a_stranger(self, process: Process) -> None:
        """Come with the key, and with other work."""
        others = [each for each in self.world.intents if each.place != self.intent.place]
        if not others:
            return
        origin = self.world.stand.origin(others[0], minted=False)
        try:
            await process.client.stream(origin, key=self.intent.key).__anext__()
        except ConfigurationError:
            pass
        else:
            self.world.laws.broken(f"keys: {self.intent.key!r} was taken for {others[0].name}")

    def _found(self) -> RunRef | None:
        """Find the run of a start that could not be settled, as a person can."""
        starting = {row["key"] for row in self.world.disk.rows("work") if row["state"] == "starting"}
        runs = self.world.runs_of(self.intent.name)
        return runs[0] if runs and self.intent.key in starting else None

    def _look_for_it(self, sight: Sight, error: OutcomeUnknownError) -> None:
        """Look whether the outcome of the start is truly unknown."""
        world, laws = self.world, self.world.laws
        if world.stand.has_keys:
            # Origami's own failures, after which nobody can tell; and its keys, which are good for a day.
            unclear = world.weather.struck.keys() & {"own error after", "error before", "503 wait"} or world.nights
            laws.check(unclear and world.stand.name == "origami", f"the end: {sight} raised {error}")
            return
        born = any(birth.intent == self.intent.name for _, birth in world.stand.lives())
        laws.check(not born or world.shared, f"the end: {sight} did not find the run that was started: {error}")
        # A process may be killed between its note and its request, and a disk may be too full to take that back.
        unsure = self.intent.killed or world.disk.failed or self.intent.name in laws.sent
        laws.check(unsure, f"the end: nothing of {sight} was ever sent, and it raised {error}")
