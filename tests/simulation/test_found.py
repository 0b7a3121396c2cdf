"""
What the simulation has found, each as a story of its own: the few steps that matter, in fine weather but for the faults
that are planned. What is not mended yet stands in `known_defects`, and is expected to fail.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from attrs import evolve

from agentruns import (
    Action,
    AgentRunsError,
    ConflictError,
    OutcomeUnknownError,
    Retry,
    Run,
    RunStatus,
    ToolOutput,
    Tools,
    middesk,
    narrative,
)
from agentruns._values.exchange import RateLimit

from .callers import CALLER, Caller
from .invariants import Flaw
from .known_defects import KNOWN
from .play_seed import rehearse
from .process import Process, Setup
from .simulated_vendors import Intent, Pause
from .simulated_world import NIGHT, World

T = TypeVar("T")
Story = Callable[[World], Awaitable[None]]


MARKED: set[str] = set()


def known(name: str) -> pytest.MarkDecorator:
    """Expect a story to fail whose defect stands in `known_defects`; raise for one that does not."""
    reason = KNOWN[name]
    MARKED.add(name)
    raises = (AssertionError, AgentRunsError, pytest.fail.Exception)
    return pytest.mark.xfail(reason=reason, raises=raises, strict=True)


def work(
    world: World,
    *,
    pauses: int = 0,
    questions: int = 1,
    number: int = 0,
    seconds: float = 2.0,
    place: str | None = None,
) -> Intent:
    """Add a piece of work that pauses so often, and be the one who wants it done."""
    intent = Intent(f"w{number}", (Pause(questions),) * pauses, False, ((0.0, seconds),) * 4, place=place)
    world.add(intent)
    mine(world, intent)
    return intent


def mine(world: World, intent: Intent) -> None:
    CALLER.set(Caller(world, intent, "follow"))


def process(world: World, **changes: Any) -> Process:
    return Process(world, evolve(Setup.drawn(world.chance, None, calm=True), **changes))


def within(inside: Process, intent: Intent, step: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Take a step within a process that is to be killed."""
    inside.context.run(mine, inside.world, intent)
    return inside.context.run(asyncio.get_running_loop().create_task, step)


def origin(world: World, intent: Intent) -> Any:
    """Return what starts the work, with ids of its own, as a program makes it that was started again."""
    return world.stand.origin(intent, minted=True)


def says(world: World, text: str = "yes", seconds: float = 0.0) -> Callable[[Action], Awaitable[str]]:
    """Return a handler that answers every question with its mark and *text*."""

    async def handler(action: Action) -> str:
        await asyncio.sleep(seconds)
        return given(world, action, text)

    return handler


def given(world: World, action: Action, text: str) -> str:
    mark = world.stand.mark(action) or ""
    world.laws.given[mark].add(f"{mark}={text}")
    return f"{mark}={text}"


def by_hand(world: World, run: Run) -> list[ToolOutput]:
    return [ToolOutput(action, given(world, action, "by hand")) for action in run.actions]


async def last(stream: Any) -> Run:
    async for _ in stream:
        pass
    run: Run = stream.run
    return run


def holds(vendor: str, story: Story, **options: Any) -> World:
    """Play a story, and check that every law was kept."""
    world = rehearse(vendor, story, **options)

    assert not world.laws.breaches, world.laws.breaches
    return world


# Starts ---------------------------------------------------------------------------------------------------------------


def test_a_start_that_was_lost_and_then_refused_is_not_forgotten() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/runs", "lost after"), ("POST", "*/runs", "denied")]
        async with process(world).client as client:
            with pytest.raises(AgentRunsError):
                await client.result(origin(world, intent), key=intent.key)
            await client.result(origin(world, intent), key=intent.key)

    holds("narrative", story)


def test_a_start_that_was_taken_over_and_then_refused_is_not_forgotten() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/runs", "silent after")]
        first = process(world)
        await within(first, intent, first.client.__aenter__())
        within(first, intent, first.client.result(origin(world, intent), key=intent.key))
        await asyncio.sleep(1)
        await first.kill()
        world.weather.planned = [("GET", "/agents/conversations/*", "denied")]
        async with process(world).client as client:
            with pytest.raises(AgentRunsError):
                await client.result(origin(world, intent), key=intent.key)
            await client.result(origin(world, intent), key=intent.key)

    holds("narrative", story)


def test_a_start_that_was_lost_is_not_forgotten_when_the_budget_refuses_to_try_again() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/runs", "lost after"), ("GET", "/agents/conversations", "429 wait 90")]
        async with process(world).client as client:
            begun = asyncio.create_task(client.result(origin(world, intent), key=intent.key))
            await asyncio.sleep(0.3)
            for refused in (client.perform(narrative.list_conversations()), begun):
                with pytest.raises(AgentRunsError):
                    await refused
        async with process(world).client as client:
            await client.result(origin(world, intent), key=intent.key)

    holds("narrative", story)


def test_a_start_of_origami_that_was_lost_and_then_held_back_for_long_is_not_forgotten() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/agents*", "lost after"), ("POST", "*/agents*", "429 wait 90")]
        async with process(world).client as client:
            with pytest.raises(AgentRunsError):
                await client.result(origin(world, intent), key=intent.key)
            await asyncio.sleep(90)
            await client.result(origin(world, intent), key=intent.key)

    holds("origami", story)


def test_a_start_of_origami_that_was_lost_and_then_could_not_be_sent_again_is_not_forgotten() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/agents*", "lost after"), *[("POST", "*/agents*", "refused")] * 3]
        async with process(world, retry=Retry(attempts=1)).client as client:
            with pytest.raises(AgentRunsError):
                await client.result(origin(world, intent), key=intent.key)
            await client.result(origin(world, intent), key=intent.key)

    holds("origami", story)


def test_a_stream_that_is_closed_as_it_takes_over_a_start_leaves_it_to_the_next() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/run", "silent after")]
        async with process(world, timeout=3.0).client as client:
            stream = client.stream(origin(world, intent), key=intent.key)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 2.0)
            await stream.aclose()
            first = client.stream(origin(world, intent), key=intent.key)
            begun = asyncio.create_task(first.__anext__())
            await asyncio.sleep(0)
            second = asyncio.create_task(client.result(origin(world, intent), key=intent.key))
            await asyncio.sleep(world.chance.choice([0.06, 1.5]) * world.chance.random())
            await first.aclose()
            await asyncio.wait([begun])
            begun.cancelled() or begun.exception()
            assert (await second).status is RunStatus.COMPLETED

    for seed in range(10):
        holds("conduit", story, seed=seed)


def test_a_start_that_origami_took_and_answered_with_its_own_500_is_not_begun_anew_under_its_key() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/agents*", "own error after")]
        async with process(world).client as client:
            for _ in range(2):
                with suppress(OutcomeUnknownError):
                    await client.result(origin(world, intent), key=intent.key)

    holds("origami", story)


def test_a_start_that_origami_took_is_found_although_its_run_was_answered_since() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        world.weather.planned = [("POST", "*/agents", "own error after")]
        async with process(world).client as client:
            with pytest.raises(OutcomeUnknownError):
                await client.result(origin(world, intent), key=intent.key)
            await asyncio.sleep(5)
            run = await client.fetch(world.runs_of(intent.name)[0])
            await client.resume(run, by_hand(world, run))
            with suppress(OutcomeUnknownError):
                await client.result(origin(world, intent), key=intent.key, tools=says(world))

    holds("origami", story)


def test_a_key_of_origami_that_was_refused_is_not_left_for_others() -> None:
    async def story(world: World) -> None:
        world.stand.vendor.options = evolve(world.stand.vendor.options, slots=1)
        world.stand.vendor._state.options = world.stand.vendor.options
        world.stand.vendor._keys._below = 300
        busy = work(world, number=1, seconds=7.0)
        intent = work(world, seconds=1.0)
        same = world.stand.origin(intent, minted=False)
        async with process(world).client as client, process(world).client as other:
            mine(world, busy)
            await client.start(origin(world, busy))
            mine(world, intent)
            first = asyncio.create_task(client.result(same))
            await asyncio.sleep(8)
            await asyncio.gather(first, other.result(same))

    holds("origami", story)


def test_an_old_refusal_of_origami_is_not_taken_for_one_of_today() -> None:
    async def story(world: World) -> None:
        world.stand.vendor.options = evolve(world.stand.vendor.options, slots=1)
        world.stand.vendor._state.options = world.stand.vendor.options
        busy = work(world, number=1, seconds=7.0)
        intent = work(world, seconds=1.0)
        async with process(world).client as client:
            mine(world, busy)
            await client.start(origin(world, busy))
            mine(world, intent)
            await client.result(origin(world, intent))

    holds("origami", story)


def test_a_start_that_waited_for_its_turn_when_its_process_was_killed_is_made_by_the_next() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        first = process(world, limit=RateLimit(1, 60.0))  # for the thread, and then for the run
        await within(first, intent, first.client.__aenter__())
        within(first, intent, first.client.result(origin(world, intent), key=intent.key))
        await asyncio.sleep(10)
        await first.kill()
        async with process(world).client as client:
            await client.result(origin(world, intent), key=intent.key)

    holds("middesk", story)


def test_a_start_that_was_refused_and_waited_when_its_process_was_killed_is_made_by_the_next() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/runs", "429 wait 10")]
        first = process(world)
        await within(first, intent, first.client.__aenter__())
        within(first, intent, first.client.result(origin(world, intent), key=intent.key))
        await asyncio.sleep(5)
        await first.kill()
        async with process(world).client as client:
            await client.result(origin(world, intent), key=intent.key)

    holds("middesk", story)


def test_a_start_that_died_in_line_keeps_no_other_of_its_group_from_being_made() -> None:
    async def story(world: World) -> None:
        first, second = work(world, place="shared"), work(world, number=1, place="shared")
        dies = process(world, limit=RateLimit(1, 60.0))  # for the look at the list, and then for the run
        await within(dies, first, dies.client.__aenter__())
        within(dies, first, dies.client.result(origin(world, first), key=first.key))
        await asyncio.sleep(10)
        await dies.kill()
        async with process(world).client as client:
            mine(world, second)
            other = asyncio.create_task(client.result(origin(world, second), key=second.key))
            await asyncio.sleep(0)
            mine(world, first)
            await client.result(origin(world, first), key=first.key)
            await other

    holds("conduit", story)


def test_a_start_that_died_yesterday_is_not_begun_anew_at_who_has_forgotten() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/agents*", "silent after")]
        first = process(world)
        await within(first, intent, first.client.__aenter__())
        within(first, intent, first.client.result(origin(world, intent), key=intent.key))
        await asyncio.sleep(1)
        await first.kill()
        await asyncio.sleep(NIGHT)
        async with process(world).client as client:
            with pytest.raises(OutcomeUnknownError, match="longer ago"):
                await client.result(origin(world, intent), key=intent.key)

    holds("origami", story)


def test_two_starts_of_one_client_whose_answers_are_lost_find_each_its_own_run() -> None:
    async def story(world: World) -> None:
        world.weather.planned = [("POST", "*/run", "lost after")] * 2
        results = {}
        async with process(world).client as client:
            for intent in (work(world, place="shared"), work(world, number=1, place="shared")):
                mine(world, intent)
                results[intent.name] = asyncio.create_task(client.result(origin(world, intent)))
            for name, result in results.items():
                assert world.whose((await result).id) == name

    holds("conduit", story)


def test_a_run_is_not_found_for_another_key_of_the_same_journal() -> None:
    async def story(world: World) -> None:
        world.shared = True
        one, other = work(world), work(world, number=1)
        world.weather.planned = [("POST", "*/run", "silent before")]
        first = process(world)
        await within(first, one, first.client.__aenter__())
        within(first, one, first.client.result(origin(world, one), key=one.key))
        await asyncio.sleep(2)
        await first.kill()
        async with process(world).client as client:
            streams = {}
            for intent in (other, one):
                mine(world, intent)
                streams[intent.name] = asyncio.create_task(client.result(origin(world, intent), key=intent.key))
                await asyncio.sleep(0.5)
            ended = await asyncio.gather(*streams.values(), return_exceptions=True)
        for name, end in zip(streams, ended, strict=True):
            assert isinstance(end, OutcomeUnknownError) or world.whose(end.id) == name  # type: ignore[union-attr]

    holds("conduit", story)


def test_a_run_is_not_taken_for_that_of_a_start_whose_process_died_just_before() -> None:
    async def story(world: World) -> None:
        world.shared = True
        one, other = work(world), work(world, number=1)
        state = world.stand.vendor._state
        state.options = world.stand.vendor.options = evolve(world.stand.vendor.options, shown_after=3.0)
        world.weather.planned = [("POST", "*/run", "silent after")]
        first = process(world)
        await within(first, one, first.client.__aenter__())
        within(first, one, first.client.result(origin(world, one), key=one.key))
        await asyncio.sleep(2)
        await first.kill()
        mine(world, other)
        async with process(world).client as client:
            with suppress(OutcomeUnknownError):
                run = await client.result(origin(world, other), key=other.key)
                assert world.whose(run.id) == other.name

    holds("conduit", story)


def test_work_that_was_told_which_run_it_is_can_be_told_again() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        world.weather.planned = [("POST", "*/runs", "lost before")]
        async with process(world).client as client:
            with pytest.raises(OutcomeUnknownError):
                await client.result(origin(world, intent), key=intent.key)
            run = await client.start(origin(world, intent))
            for _ in range(2):
                assert (await client.result(run.ref, key=intent.key)).status is RunStatus.COMPLETED

    holds("middesk", story)


# Answers --------------------------------------------------------------------------------------------------------------


def test_two_streams_of_one_key_that_answer_in_place_both_go_on() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1, questions=2)
        tools = says(world, seconds=1.0)
        async with process(world).client as one, process(world).client as other:
            ended = await asyncio.gather(
                *(client.result(origin(world, intent), key=intent.key, tools=tools) for client in (one, one, other))
            )
        assert {each.status for each in ended} == {RunStatus.COMPLETED}

    holds("middesk", story)


def test_the_rest_of_a_pause_is_answered_of_which_the_first_answer_was_posted() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1, questions=2)
        async with process(world).client as client:
            stream = client.stream(origin(world, intent), key=intent.key, tools=says(world))
            while stream.run is None or stream.run.status is not RunStatus.REQUIRES_ACTION:
                await anext(stream)
            world.weather.planned = [("GET", "/v1/runs/*", "silent before")]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 5.0)
            await stream.aclose()
        async with process(world).client as client:
            tools = says(world)
            assert (await client.result(origin(world, intent), key=intent.key, tools=tools)).output is not None

    holds("middesk", story)


def test_a_handler_is_not_run_beside_itself_when_work_was_taken_over_and_given_back_meanwhile() -> None:
    async def story(world: World) -> None:
        intent, begun = work(world, pauses=1), []

        async def slow(action: Action) -> str:
            begun.append(action.id)
            await asyncio.sleep(20)
            return given(world, action, "yes")

        tools = Tools()
        tools.default(slow, repeatable=True)
        first = process(world)
        await within(first, intent, first.client.__aenter__())
        held = first.client.stream(origin(world, intent), key=intent.key)
        await within(first, intent, anext(held))
        async with process(world).client as client:
            one = asyncio.create_task(client.result(origin(world, intent), key=intent.key, tools=tools))
            await asyncio.sleep(10)
            await first.kill()
            cut = client.stream(origin(world, intent), key=intent.key)
            step = asyncio.create_task(cut.__anext__())
            await asyncio.sleep(0.001)  # the work is being taken over
            await cut.aclose()
            await asyncio.wait([step])
            step.cancelled() or step.exception()
            other = asyncio.create_task(client.result(origin(world, intent), key=intent.key, tools=tools))
            assert (await one).status is RunStatus.COMPLETED
            assert (await other).status is RunStatus.COMPLETED
        assert len(begun) == 1

    holds("middesk", story)


def test_a_handler_whose_stream_is_closed_as_it_is_about_to_be_run_is_run_for_the_next() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        tools = says(world)
        inside: Any = process(world)
        async with inside.client as client:
            stream = client.stream(origin(world, intent), key=intent.key, tools=tools)
            while stream.run is None or stream.run.status is not RunStatus.REQUIRES_ACTION:
                await anext(stream)
            inside.journal._desk._slow = 1.0
            step = asyncio.create_task(stream.__anext__())
            await asyncio.sleep(2 * world.chance.random())  # its handler is being entered in the journal
            await stream.aclose()
            await asyncio.wait([step])
            step.cancelled() or step.exception()
            assert (await client.result(origin(world, intent), key=intent.key, tools=tools)).output is not None

    for seed in range(10):
        holds("middesk", story, seed=seed)


def test_a_pause_that_was_answered_here_is_still_shown_where_the_answer_is_another_run() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        async with process(world).client as client:
            run = await client.start(world.stand.origin(intent, minted=False))
            held = client.stream(run)
            await anext(held)
            assert (await client.result(run, tools=says(world))).status is RunStatus.COMPLETED
            assert (await last(client.stream(run, timeout=100))).status is RunStatus.REQUIRES_ACTION
            assert (await last(held)).status is RunStatus.REQUIRES_ACTION

    holds("narrative", story)


def test_the_first_answer_of_a_person_stands() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        async with process(world).client as client, process(world).client as other:
            run = await last(client.stream(origin(world, intent), key=intent.key))
            await client.resume(run, by_hand(world, run))
            with pytest.raises(ConflictError):
                await other.resume(run, [ToolOutput(action, given(world, action, "another")) for action in run.actions])

    holds("narrative", story)


def test_a_handler_is_not_run_again_by_a_stream_whose_answer_was_refused() -> None:
    async def story(world: World) -> None:
        intent, handled = work(world, pauses=1), []

        async def handler(action: Action) -> str:
            handled.append(action.id)
            return given(world, action, "yes")

        world.weather.planned = [("POST", "*/resume", "denied")]
        async with (
            process(world).client as client,
            client.stream(world.stand.origin(intent, minted=False), tools=handler) as stream,
        ):
            with pytest.raises(AgentRunsError):
                await last(stream)
            await last(stream)
        assert len(handled) == 1

    holds("middesk", story)


def test_an_answer_by_hand_that_died_half_way_is_the_answer() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        first = process(world)
        await within(first, intent, first.client.__aenter__())
        run = await within(first, intent, last(first.client.stream(origin(world, intent), key=intent.key)))
        world.weather.planned = [("POST", "*/runs", "silent after")]
        within(first, intent, first.client.resume(run, by_hand(world, run)))
        await asyncio.sleep(1)
        await first.kill()
        async with process(world).client as client:
            ended = await client.result(origin(world, intent), key=intent.key, tools=says(world))
            assert ended.status is RunStatus.COMPLETED

    holds("origami", story)


def test_a_pause_that_was_answered_in_other_words_does_not_end_the_work_of_a_key() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        async with process(world).client as client:
            run = await last(client.stream(world.stand.origin(intent, minted=False)))
            await client.resume(run, by_hand(world, run))
            ended = await client.result(run, key=intent.key, tools=says(world))
            assert ended.status is RunStatus.COMPLETED

    holds("origami", story)


def test_an_answer_that_origami_took_and_answered_with_its_own_500_is_looked_for_before_it_is_given_again() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        tools = says(world)
        async with process(
            world, retry=evolve(Setup.drawn(world.chance, None, calm=True).retry, attempts=1)
        ).client as one:
            await last(one.stream(origin(world, intent), key=intent.key))
            world.weather.planned = [
                ("POST", "*/runs", "own error after"),
                ("GET", "/api/v2/agents/" + 36 * "?", "denied"),
            ]
            with pytest.raises(OutcomeUnknownError):
                await one.result(origin(world, intent), key=intent.key, tools=tools)
            await asyncio.sleep(60)
            assert (await one.result(origin(world, intent), key=intent.key, tools=tools)).status is RunStatus.COMPLETED

    holds("origami", story)


def test_an_answer_by_hand_that_origami_has_forgotten_is_looked_for_before_a_stream_gives_it_again() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        async with process(world, retry=Retry(attempts=1)).client as client:
            run = await last(client.stream(origin(world, intent), key=intent.key))
            world.weather.planned = [
                ("POST", "*/runs", "own error after"),
                ("GET", "/api/v2/agents/" + 36 * "?", "denied"),
            ]
            with pytest.raises(OutcomeUnknownError):
                await client.resume(run, by_hand(world, run))
            await asyncio.sleep(60)
            with suppress(OutcomeUnknownError):
                await client.result(origin(world, intent), key=intent.key, tools=says(world))

    holds("origami", story)


def test_answers_that_were_posted_yesterday_are_not_posted_again_to_who_has_forgotten() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        tools = says(world)
        first = process(world)
        await within(first, intent, first.client.__aenter__())
        await within(first, intent, last(first.client.stream(origin(world, intent), key=intent.key)))
        world.weather.planned = [("POST", "*/runs", "silent after")]
        within(first, intent, first.client.result(origin(world, intent), key=intent.key, tools=tools))
        await asyncio.sleep(5)
        await first.kill()
        await asyncio.sleep(NIGHT)
        async with process(world).client as client:
            with suppress(OutcomeUnknownError, ConflictError):
                await client.result(origin(world, intent), key=intent.key, tools=tools)

    holds("origami", story)


def test_an_answer_that_somebody_else_has_posted_is_a_conflict_although_the_run_cannot_be_read() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        async with process(world, retry=Retry(attempts=1)).client as client:
            run = await last(client.stream(world.stand.origin(intent, minted=False)))
            await client.resume(run, by_hand(world, run))
            world.weather.planned = [("GET", "/v1/runs/*", "408")]
            with pytest.raises((ConflictError, OutcomeUnknownError)):
                await client.perform(middesk.resume(run, by_hand(world, run)))

    holds("middesk", story)


def test_a_run_that_is_over_when_it_is_looked_at_again_is_done() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)
        async with process(world).client as client:
            run = await last(client.stream(origin(world, intent), key=intent.key))
        async with Process(world, Setup.drawn(world.chance, None, calm=True), journal=False).client as other:
            await last(other.stream(await other.resume(run, by_hand(world, run))))
        async with process(world).client as client:
            assert (await client.result(origin(world, intent), key=intent.key)).status is RunStatus.COMPLETED
            assert [each.key async for each in client.unfinished()] == []

    holds("middesk", story)


# Reading --------------------------------------------------------------------------------------------------------------


def test_a_run_that_was_started_here_is_borne_with_when_its_name_is_followed() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        async with process(world).client as client:
            run = await client.start(world.stand.origin(intent, minted=False))
            world.weather.planned = [("GET", "/agents/runs/*", "not found")]
            assert (await last(client.stream(run.ref))).status is RunStatus.COMPLETED

    holds("narrative", story)


def test_steps_that_are_cut_off_before_the_journal_has_written_come_to_an_end() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        inside: Any = process(world)
        async with inside.client as client:
            inside.journal._desk._slow = 1.0
            stream = client.stream(origin(world, intent), key=intent.key, timeout=20.0)
            while stream.run is None or stream.run.status is not RunStatus.COMPLETED:
                with suppress(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.05)
                assert world.now < 30

    holds("narrative", story)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_stream_that_lost_contact_is_let_go_of(keyed: bool) -> None:
    async def story(world: World) -> None:
        intent = work(world, seconds=1000.0)
        async with process(world).client as client:
            key = intent.key if keyed else None
            stream = client.stream(world.stand.origin(intent, minted=False), patience=0.0, key=key)
            await anext(stream)
            world.weather.planned = [("GET", "/agents/runs/*", "refused")]
            with suppress(AgentRunsError):
                await last(stream)
            del stream
            await asyncio.sleep(1)  # the loop, too, lets go of it
            gc.collect()
            await asyncio.sleep(1)
            assert client.stats().watched == 0

    holds("narrative", story)


def test_a_stream_whose_handler_raised_is_let_go_of_before_the_handler_would_have_timed_out() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1)

        async def broken(action: Action) -> str:
            raise Flaw(action.id)

        tools = Tools()
        tools.default(broken, timeout=600.0)
        async with process(world).client as client:
            stream = client.stream(world.stand.origin(intent, minted=False), tools=tools)
            with suppress(Flaw):
                await last(stream)
            del stream
            await asyncio.sleep(1)
            gc.collect()
            await asyncio.sleep(1)
            assert client.stats().watched == 0

    holds("narrative", story)


def test_a_stream_on_a_run_that_exists_says_that_its_client_is_closed() -> None:
    async def story(world: World) -> None:
        intent = work(world)
        client = process(world).client
        async with client:
            run = await client.start(world.stand.origin(intent, minted=False))
        with pytest.raises(AgentRunsError):
            await asyncio.wait_for(anext(client.stream(run.ref)), 100)

    holds("narrative", story)


def test_an_old_read_of_an_answered_pause_changes_nothing() -> None:
    async def story(world: World) -> None:
        intent = work(world, pauses=1, seconds=20.0)
        async with process(world).client as client:
            stream = client.stream(world.stand.origin(intent, minted=False), tools=says(world))
            seen = []
            async for run in stream:
                seen.append(run.vendor_status)
                if run.status is RunStatus.REQUIRES_ACTION:
                    world.weather.planned = [("GET", "/v1/runs/?*-*", "past")] * 3
        assert seen == ["running", "interrupted", "running", "completed"]

    holds("middesk", story)


def test_a_stream_of_events_that_is_refused_gives_the_vendor_rest() -> None:
    async def story(world: World) -> None:
        intent = work(world, seconds=20.0)
        world.weather.planned = [("GET", "*/stream", "429 wait 10")]
        async with process(world).client as client:
            await client.result(world.stand.origin(intent, minted=False), events=True)

    holds("middesk", story)


def test_a_run_is_not_read_while_no_step_of_its_stream_waits() -> None:
    async def story(world: World) -> None:
        intent = work(world, seconds=60.0)
        async with process(world).client as client:
            stream = client.stream(await client.start(origin(world, intent)))
            with suppress(TimeoutError):
                async with asyncio.timeout(20.0):
                    await last(stream)
            sent = world.exchanges
            await asyncio.sleep(20.0)
            assert world.exchanges == sent > 1
            await last(stream)

    holds("middesk", story)


def test_a_read_of_a_run_that_nobody_follows_any_more_is_ended() -> None:
    async def story(world: World) -> None:
        intent = work(world, seconds=60.0)
        async with process(world).client as client:
            stream = client.stream(await client.start(origin(world, intent)))
            world.weather.planned = [("GET", "*", "slow")]
            waits = asyncio.create_task(last(stream))
            await asyncio.sleep(6.0)
            assert not world.weather.planned, "the read is under way"
            await stream.aclose()
            await asyncio.wait([waits])
            await asyncio.sleep(20.0)

    holds("middesk", story)


def test_a_request_that_waits_for_a_connection_gives_the_vendor_rest() -> None:
    async def story(world: World) -> None:
        work(world)
        world.weather.planned = [("GET", "/v1/threads", "429 wait 10")]
        async with process(world, connections=1).client as client:
            await asyncio.gather(*(client.perform(middesk.list_threads()) for _ in range(3)))

    holds("middesk", story)


# The list -------------------------------------------------------------------------------------------------------------


def test_every_defect_that_is_known_has_its_story() -> None:
    assert set(KNOWN) == MARKED, "strike the marks of what is mended"


def test_a_story_is_expected_to_fail_only_while_its_defect_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        known("mended long ago")
    assert "mended long ago" not in MARKED
    monkeypatch.setattr(f"{__package__}.test_found.MARKED", set())
    monkeypatch.setattr(f"{__package__}.test_found.KNOWN", {"open": "nobody has mended it"})

    assert known("open").kwargs["strict"]
    assert known("open").kwargs["reason"] == "nobody has mended it"
    assert "open" in MARKED
