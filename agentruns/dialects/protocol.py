"""
What a vendor module must offer: a few names, and generator functions that yield requests and never wait.

A module satisfies the protocol as it is. What a vendor cannot do, its module simply does not have: the capability
protocols below are looked for at run time, and `UnsupportedError` is raised before any request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, Protocol, runtime_checkable

from attrs import frozen

from agentruns._values.auth import Auth
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, RateLimit, Request, Response, ServerEvent
from agentruns._values.generic import DetailT, DetailT_co, Json, OriginT, OriginT_co, OriginT_contra
from agentruns._values.place import Place
from agentruns._values.run import Action, Page, Run, RunRef, ToolOutput
from agentruns.tools import Tools

from .show import Artifact, Question, Step, Tool


class Dialect(Protocol[OriginT, DetailT_co]):
    """One vendor: `OriginT` is the class of what starts a run, `DetailT_co` that of `Run.detail`."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """Return the vendor's name, as `connect("name")` takes it."""
        ...

    @property
    def BASE_URL(self) -> str:  # noqa: N802
        """Return the production URL that the vendor's paths hang on; empty where each deployment has its own."""
        ...

    @property
    def TOKEN_VARIABLE(self) -> str:  # noqa: N802
        """Return the environment variable that the token is read from; empty only with `AUTH = NoAuth()`."""
        ...

    @property
    def BASE_URL_VARIABLE(self) -> str:  # noqa: N802
        """Return the environment variable that another base URL is read from."""
        ...

    @property
    def BUDGET(self) -> RateLimit | None:  # noqa: N802
        """Return the requests that the vendor's documented limit allows, with headroom; None where there is none."""
        ...

    @property
    def Origin(self) -> type[OriginT]:  # noqa: N802
        """Return the class of what starts a run."""
        ...

    def start(self, origin: OriginT) -> Flow[Run[DetailT_co]]:
        """Start a run."""
        ...

    def fetch(self, ref: RunRef, params: Mapping[str, str]) -> Flow[Run[DetailT_co]]:
        """Read a run once: a flow that begins with its request, and says the same of the same answers."""
        ...

    def problem(self, response: Response) -> Problem:
        """Say what an error body says."""
        ...

    def handler_names(self, action: Action) -> Sequence[str]:
        """Return the names under which a handler for this action is looked for, best first."""
        ...


@runtime_checkable
class LocatesItself(Protocol):
    """A vendor each of whose deployments says where and how it is asked: by a card, or a discovery document."""

    def locate(self) -> Flow[Place]:
        """
        Return where and how the vendor is asked, before the first request of a client.

        The requests of this flow go below the base URL as it was given. What it raises, the first request raises, and
        the next one asks again.
        """
        ...


@runtime_checkable
class Resumes(Protocol[DetailT]):
    """A vendor whose runs can be answered."""

    def resume(self, run: Run[DetailT], outputs: Sequence[ToolOutput]) -> Flow[Run[DetailT]]:
        """Answer a paused run."""
        ...


@runtime_checkable
class ResumesWithOrigin(Protocol[OriginT_contra, DetailT]):
    """A vendor whose answers repeat what the start has said: its tools and settings."""

    def resume(self, run: Run[DetailT], outputs: Sequence[ToolOutput], *, origin: OriginT_contra) -> Flow[Run[DetailT]]:
        """
        Answer a paused run, which *origin* has started.

        It is seen by the parameter's name, here and in `resume_again` and `resume_first`. Without it nothing is sent:
        where it is not known, `client.resume(run, outputs, origin=...)` says it.
        """
        ...


@runtime_checkable
class ResumesAgain(Protocol[DetailT]):
    """A vendor whose answers begin another run under a key: one that failed is tried again under another key."""

    def resume_again(self, run: Run[DetailT], outputs: Sequence[ToolOutput]) -> Flow[Run[DetailT]]:
        """Answer a paused run as `resume` does, and step over the answering runs that failed, for whatever reason."""
        ...


@runtime_checkable
class ResumesFirst(Protocol[DetailT]):
    """A vendor that takes a second answer to a pause without a word, or does not say whose answer it took."""

    def resume_first(self, run: Run[DetailT], outputs: Sequence[ToolOutput]) -> Flow[Run[DetailT]]:
        """
        Answer a paused run as `resume` does, and raise `AlreadyAnsweredError` where another answer was first.

        Its `standing` is empty where an answer was first that cannot be read yet: it may have been the same.
        """
        ...


@runtime_checkable
class Recovers(Protocol[OriginT_contra, DetailT_co]):
    """
    A vendor whose starts cannot simply be repeated: what became of one whose process died takes its note to find out.

    Of a vendor without this, starting the same origin again must give the run that the first start began.
    """

    def recover(self, origin: OriginT_contra, note: Mapping[str, Json]) -> Flow[Run[DetailT_co]]:
        """
        Return the run that a start began which had got as far as *note*, or raise `OutcomeUnknownError`.

        A note may have `known`, a list of the ids of runs that are not it; those of other work are added to it.
        """
        ...


@runtime_checkable
class FindsAnsweringRun(Protocol[DetailT]):
    """A vendor whose answers begin another run, which can be found; where answers may be repeated it need not be."""

    def answered_by(self, run: Run[DetailT]) -> Flow[Run[DetailT] | None]:
        """Return the run that followed a paused one, None if there is none."""
        ...


@runtime_checkable
class Cancels(Protocol[DetailT_co]):
    """A vendor whose runs can be cancelled."""

    def cancel(self, ref: RunRef) -> Flow[Run[DetailT_co] | None]:
        """Cancel a run."""
        ...


@runtime_checkable
class MakesParents(Protocol):
    """A vendor whose runs begin in something that is made before: commands make it, a conversation say, from a file."""

    @property
    def PARENT_FIELD(self) -> str:  # noqa: N802
        """Return the field of the origin that names what is made: "conversation_id"."""
        ...

    def make_parent(self, given: Mapping[str, Json], tools: Tools | None) -> Flow[Mapping[str, Json]]:
        """
        Make what a file says, and return the fields of the origin that name it; the first line here is the help.

        *tools* are the handlers of the call, for a vendor that has them declared. Raise `ConfigurationError`, before
        the first request, for what is wrong in the file.
        """
        ...


@runtime_checkable
class Lists(Protocol[DetailT_co]):
    """A vendor that lists runs."""

    def page(self, parent: str, cursor: str | None) -> Flow[Page[DetailT_co]]:
        """Return one page of runs."""
        ...


@runtime_checkable
class ListsCurrentStates(Lists[DetailT_co], Protocol[DetailT_co]):
    """A vendor whose lists show each run as it is now, newest first: one request tells of many runs."""

    def list_parent(self, ref: RunRef, /) -> str:
        """Return the *parent* of the pages that a run stands on."""
        ...


@frozen(eq=False)
class ReadOn(Generic[DetailT_co]):
    """Say that a request for many runs has news of one; the flow that *read* returns tells what they are."""

    ref: RunRef
    read: Callable[[], Flow[Run[DetailT_co]]]


@runtime_checkable
class FetchesMany(Protocol[DetailT_co]):
    """A vendor that reads many runs by one request, by their ids."""

    @property
    def FETCH_MANY_LIMIT(self) -> int:  # noqa: N802
        """Return how many runs one request may name; 100 where the dialect does not say."""
        ...

    def fetch_many(self, refs: Sequence[RunRef]) -> Flow[Sequence[Run[DetailT_co] | RunRef | ReadOn[DetailT_co]]]:
        """
        Read many runs at once, for those who wait for them.

        Of a run, return what `fetch` would; or its ref, if all that is told is that it is in flight as it was; or
        `ReadOn`, if it has moved, and a shorter way than `fetch` tells the rest. What is left out is read by itself.
        """
        ...


@runtime_checkable
class ParsesRun(Protocol[DetailT_co]):
    """A vendor whose `fetch` is one request: most answers to it are read without a flow, at a fifth less cost."""

    def parse_run(self, response: Response) -> Run[DetailT_co]:
        """Return the run in an answer of 200 to the request of `fetch`."""
        ...


@runtime_checkable
class ReportsErrorsInBody(Protocol):
    """A vendor whose statuses do not say what it means: 200 for an error, as JSON-RPC has it, or 429 for no credits."""

    def error_status(self, response: Response) -> int | None:
        """
        Return the HTTP status that a JSON answer stands for if it tells of another error than its own; else None.

        An answer of 200 may tell of a 429, and one of 429 of an account that has no credits: 402. It is then dealt
        with as one of that status is: `problem` reads it, and it is tried again, or in doubt.
        """
        ...


@runtime_checkable
class GroupsRuns(Protocol):
    """A vendor that tells which runs are likely to take about the same time."""

    def timing_group(self, run: Run) -> str:
        """Return what runs of about the same duration have in common: a model, say, or an agent."""
        ...


@runtime_checkable
class LimitsRuns(Protocol):
    """A vendor that says how long a run may take."""

    @property
    def RUN_SECONDS(self) -> float:  # noqa: N802
        """Return how long to wait for a run where the user does not say: its ceiling, and a little more."""
        ...


@runtime_checkable
class AdvisesPolls(Protocol):
    """A vendor that says how often a run may be read."""

    @property
    def POLL_SECONDS(self) -> tuple[float, float]:  # noqa: N802
        """Return the first and the longest gap between two reads, which hold until it is known how long runs take."""
        ...


@runtime_checkable
class Authenticates(Protocol):
    """A vendor that takes its token in another way than as `Authorization: Bearer`, or none."""

    @property
    def AUTH(self) -> Auth:  # noqa: N802
        """Return how the token is sent, such as `Header("x-api-key")`."""
        ...


@runtime_checkable
class SendsDefaults(Protocol):
    """A vendor with something to send with every request beside the token."""

    @property
    def DEFAULT_HEADERS(self) -> Mapping[str, str]:  # noqa: N802
        """Return headers of every request."""
        ...

    @property
    def DEFAULT_PARAMS(self) -> Mapping[str, str]:  # noqa: N802
        """Return query parameters of every request."""
        ...


@runtime_checkable
class NamesTraceRoles(Protocol):
    """A vendor that says what the parent and the kind of its runs are called in traces."""

    @property
    def TRACE_ROLES(self) -> tuple[str, str]:  # noqa: N802
        """Return the span attributes for the parent and the kind: names of the OpenTelemetry conventions."""
        ...


@runtime_checkable
class AsksByItself(Protocol):
    """A vendor whose runs ask for something in words of its own, where others hand on what a model calls."""

    @property
    def MODEL_CALLS(self) -> bool:  # noqa: N802
        """Return whether a model gives the arguments of an action: it is told, then, which do not fit a handler."""
        ...


@runtime_checkable
class ShowsRuns(Protocol):
    """A vendor that says how its runs are shown to people, in the console say."""

    @property
    def PARENT(self) -> str:  # noqa: N802
        """Return what the parent of a run is: "conversation", "thread", "agent"."""
        ...

    @property
    def TRACE_INCLUDE(self) -> str | None:  # noqa: N802
        """Return the `include` of a read that has what the run did, step by step; None if every read has it."""
        ...


@runtime_checkable
class GroupsAnswers(Protocol):
    """A vendor that takes the answers to the actions of a pause in one way only; others take them as they come."""

    @property
    def ANSWERS_TOGETHER(self) -> bool | None:  # noqa: N802
        """
        Return True where one request answers all actions of a pause, False where each is answered by its own.

        None is for a vendor that wants all of them in one request, however they were collected.
        """
        ...


@runtime_checkable
class ShowsQuestions(Protocol):
    """A vendor whose actions ask for something else than the result of a tool call: a choice, an approval."""

    def show_question(self, action: Action) -> Question:
        """Return what an action asks of a person, and how it may be answered, whatever its arguments are."""
        ...


@runtime_checkable
class ShowsSteps(Protocol):
    """A vendor whose runs tell what they did."""

    def show_steps(self, run: Run) -> Sequence[Step]:
        """Return what a run did, in its order, as far as this state of it says: nothing, if it does not."""
        ...


@runtime_checkable
class ShowsArtifacts(Protocol):
    """A vendor whose runs bring findings, or proposals of changes, with their sources."""

    def show_artifacts(self, run: Run) -> Sequence[Artifact]:
        """Return those of a run; they are shown in place of its output, which is if there are none."""
        ...


@runtime_checkable
class ReadsTrace(Protocol):
    """A vendor that must be asked how a run came about, by other requests than a read of the run."""

    def read_trace(self, run: Run) -> Flow[Sequence[Step]]:
        """Read the messages, steps and tool calls of a run, in their order."""
        ...


@runtime_checkable
class ReadsTools(Protocol):
    """A vendor that knows which tools a run may call on."""

    def read_tools(self, run: Run) -> Flow[Mapping[str, Tool]]:
        """
        Return what is declared of the tools, by the names under which the run calls them.

        Without a request if the run itself says it: that works without a token.
        """
        ...


@runtime_checkable
class ReportsTimes(Protocol):
    """A vendor whose runs say when they began and ended, by its own clock."""

    def times(self, run: Run) -> tuple[datetime | None, datetime | None]:
        """Return when a run began to move and when it ended (without an offset: in UTC), None where it is not known."""
        ...


@runtime_checkable
class IsEmulated(Protocol):
    """A vendor that can be tried without an account: `agentruns emulate`, `demo`, `console --emulator`."""

    @property
    def EMULATOR(self) -> str | type:  # noqa: N802
        """Return the subclass of `agentruns.emulator.Vendor` that plays it, or `module:attribute` of that."""
        ...


@runtime_checkable
class GivesExample(Protocol[OriginT_co]):
    """A vendor of which `demo` and `console --emulator` can start a run: one that needs nothing made before."""

    def example(self) -> OriginT_co:
        """Return what starts a run of an emulated vendor; a new one each time, with a key of its own."""
        ...


@runtime_checkable
class StreamsEvents(Protocol):
    """A vendor that keeps a stream of events open until a run stops moving."""

    def events(self, ref: RunRef) -> Request:
        """Return the request that opens the stream."""
        ...


@runtime_checkable
class ReadsEvents(Protocol):
    """A vendor whose events say more than that there is something to read; without this, any event has it read."""

    def event_of(self, ref: RunRef, event: ServerEvent) -> Run | bool:
        """
        Return the state that an event of a run tells, True to have the run read, False for one that says nothing.

        A state that is in flight is taken in as if it had been read, with `progress` and what else it shows. Of one
        that waits or is over, events leave things out: the run is read.
        """
        ...


@runtime_checkable
class ChecksToken(Protocol):
    """A vendor whose tokens say where they belong."""

    def check_token(self, base_url: str, token: str) -> None:
        """Raise `ConfigurationError`, which must not show the token, for one that this base URL cannot take."""
        ...
