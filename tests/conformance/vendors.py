"""The vendors of this package, as cases of the kit."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from agentruns import Client, ToolOutput, a2a, conduit, langgraph, middesk, narrative, openai_responses, origami
from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.clock import Clock
from agentruns.testing import Case


class NarrativeCase(Case):
    dialect: ClassVar[Any] = "narrative"
    start_path = resume_path = "/agents/conversations/*/runs"
    poll_path = "/agents/runs/*"
    error = "AgentLoopMaxIterationsExceeded"

    async def origin(self, client: Client, emulator: Emulator[Any]) -> narrative.UserMessage:
        def ask(question: str) -> str:
            """Ask the user."""
            return question

        config = narrative.Config(
            model="anthropic.claude-opus-4.6",
            data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
            max_iterations=8,
            max_tokens=2048,
            output_format_schema=narrative.TEXT_SCHEMA,
            client_tools=[narrative.client_tools({"ask_0": ask, "ask_1": ask}, alias="user")],
        )
        conversation = await client.perform(narrative.create_conversation(config))
        return narrative.UserMessage(conversation.id, "Do it.")


def _as_result(output: ToolOutput) -> dict[str, Any]:
    return {"tool_use_id": output.action.id, "is_error": output.is_error, "result": output.output}


class NarrativeOtherwiseCase(NarrativeCase):
    """The other reading of everything that no page settles, on both sides."""

    name = "narrative_other"
    dialect = narrative.variant(
        tool_output=_as_result,
        retryable={"ModelOverloaded"},
        status={
            "queued": "pending",
            "busy": "running",
            "asks": "requires_action",
            "done": "completed",
            "broken": "failed",
        },
    )

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        return Emulator(
            "narrative",
            script=script,
            clock=clock,
            output_field="result",
            words={
                "pending": "queued",
                "running": "busy",
                "requires_action": "asks",
                "completed": "done",
                "failed": "broken",
            },
            populated="table",
            absent="omit",
            log_id_field="logId",
            fractional_seconds=False,
            auth_errors="oauth",
        )


class MiddeskCase(Case):
    dialect: ClassVar[Any] = "middesk"
    start_path = "/v1/runs"
    resume_path = "/v1/runs/*/resume"
    poll_path = "/v1/runs/*"
    list_path = "/v1/runs"
    rows_field = "data"

    def call(self, number: int) -> Call:
        return Call("watchlist_resolution", {"label": f"Dismiss hit {number}?", "artifacts": []})

    async def origin(self, client: Client, emulator: Emulator[Any]) -> middesk.RunRequest:
        return middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")


def _as_response(output: ToolOutput) -> dict[str, Any]:
    return {"id": output.action.id, "response": {"error": output.output} if output.is_error else output.output}


class MiddeskOtherwiseCase(MiddeskCase):
    """The other reading of everything that no page settles, on both sides."""

    name = "middesk_other"
    dialect = middesk.variant(
        resume_body=_as_response,
        include="steps",
        status={"busy": "running", "asks": "requires_action", "done": "completed", "broken": "failed"},
        per_page=25,
        looks=[0.1, 0.3, 1.0, 3.0],
    )

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        return Emulator(
            "middesk",
            script=script,
            clock=clock,
            resume_keys=("id", "response"),
            resume_status=204,
            fractional_seconds=True,
            absent="omit",
            stream="ag-ui",
            words={"running": "busy", "interrupted": "asks", "completed": "done", "error": "broken"},
            max_per_page=25,
            refuses_more_per_page=True,
            shown_after=0.05 if clock is None else 0.0,
        )


class OrigamiCase(Case):
    dialect: ClassVar[Any] = "origami"
    start_path = "/api/v2/agents"
    resume_path = "/api/v2/agents/*/runs"
    poll_path = "/api/v2/agents/*/runs/*"
    repeats_starts = True
    list_path = "/api/v2/agents/*/runs"
    rows_field = "items"
    error = "errored"

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        return Emulator("origami", script=script, clock=clock, retry_after=0)

    def call(self, number: int) -> Call:
        question = {"type": "single-choice", "question": f"Which, {number}?", "suggestedAnswers": ["This", "That"]}
        return Call("ask-questions", question)

    async def origin(self, client: Client, emulator: Emulator[Any]) -> origami.Prompt:
        return origami.Prompt("Find clinics.")


def _worded(outputs: Sequence[ToolOutput]) -> str:
    return " / ".join(f"{each.action.arguments.get('question')}: {each.output}" for each in outputs)


class OrigamiOtherwiseCase(OrigamiCase):
    """The other reading of what no page settles: the words of an answer, and all switches of the vendor."""

    name = "origami_other"
    dialect = origami.variant(
        answer_prompt=_worded,
        keep_model=False,
        project="b8b1f1f0-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        status={"busy": "running", "asks": "requires_action", "done": "completed", "stopped": "failed"},
    )

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        return Emulator(
            "origami",
            script=script,
            clock=clock,
            retry_after=0,
            words={"running": "busy", "needs_input": "asks", "completed": "done", "cancelled": "stopped"},
            check_answer=lambda prompt: None if ":" in prompt else "Repeat the question, then a colon",
            follow_up_model=False,
            partial_response=True,
            store_refusals=False,
            rate_limit_retry_after=False,
            request_ids=True,
        )


class ConduitCase(Case):
    dialect: ClassVar[Any] = "conduit"
    start_path = "/v1/agents/*/run"
    poll_path = "/v1/agents/*/runs/*"
    list_path = "/v1/agents/*/runs"
    id_field = "data.id"
    rows_field = "data"

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        shown_after = 0.2 if clock is None else 0.0  # by a clock that the test moves, it would not show by itself
        return Emulator("conduit", script=script, clock=clock, shown_after=shown_after)

    async def origin(self, client: Client, emulator: Emulator[Any]) -> conduit.Dispatch:
        return conduit.Dispatch(emulator.state.agent_id, trigger_id=emulator.state.trigger_id, payload={"unit": "12B"})


def _of_trigger(row: Mapping[str, Any], trigger_id: str) -> bool:
    return trigger_id in str(row)


class ConduitOtherwiseCase(ConduitCase):
    """The other reading of everything that no page settles, on both sides."""

    name = "conduit_other"
    dialect = conduit.variant(
        fits=_of_trigger,
        names=lambda answer: [answer["agent_run_id"]],
        fires=lambda trigger: trigger["type"] == "event",
        looks=[0.1, 0.3, 1.0, 3.0],
        needs_human=lambda disposition: disposition == "handed_over",
        status={"queued": "pending", "busy": "running", "done": "completed", "broken": "failed"},
        message_path="/threads/{id}/reply",
    )

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        return Emulator(
            "conduit",
            script=script,
            clock=clock,
            shown_after=0.2 if clock is None else 0.0,
            names_run="agent_run_id",
            words={"accepted": "queued", "running": "busy", "completed": "done", "failed": "broken"},
            escalated_words="handed_over",
            send_path="/threads/{conversation}/reply",
            dispatch_code=202,
            create_code=201,
            cursors="keyed",
            error_form="object",
            absent="omit",
            empty_trace="null",
            grow=True,
            older_escalations=True,
        )

    async def origin(self, client: Client, emulator: Emulator[Any]) -> conduit.Dispatch:
        return conduit.Dispatch(emulator.state.agent_id, payload={"unit": "12B"})


class OpenAIResponsesCase(Case):
    dialect: ClassVar[Any] = "openai_responses"
    start_path = resume_path = "/v1/responses"
    poll_path = "/v1/responses/*"
    error = "server_error"
    not_applicable: ClassVar[Mapping[str, str]] = {
        "a second answer from elsewhere changes nothing": "a second answer begins another branch of the conversation",
        "a question that is answered elsewhere is taken back": "no page names a way to find the response that followed",
    }

    async def origin(self, client: Client, emulator: Emulator[Any]) -> openai_responses.ResponseRequest:
        def ask(question: str) -> str:
            """Ask the user."""
            return question

        tools = openai_responses.function_tools({"ask_0": ask, "ask_1": ask})
        return openai_responses.ResponseRequest("gpt-5.2", "Do it.", tools=tools)


_ONE_QUESTION = "a task asks one thing at a time"


class A2ACase(Case):
    dialect: ClassVar[Any] = "a2a"
    start_path = resume_path = "/v1/message:send"
    poll_path = "/v1/tasks/*"
    list_path = "/v1/tasks"
    rows_field = "tasks"
    not_applicable: ClassVar[Mapping[str, str]] = {"several pending actions are answered together": _ONE_QUESTION}

    async def origin(self, client: Client, emulator: Emulator[Any]) -> a2a.Send:
        return a2a.Send("Do it.")


class LangGraphCase(Case):
    dialect: ClassVar[Any] = "langgraph"
    start_path = resume_path = "/threads/*/runs"
    poll_path = "/threads/*/runs/*"
    list_path = "/threads/*/runs"
    id_field = "run_id"

    async def origin(self, client: Client, emulator: Emulator[Any]) -> langgraph.Invocation:
        return langgraph.Invocation("agent", {"text": "Do it."})
