"""The two POSTs around campaigns that start a run: drafting one for a table, and changing what one says."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from agentruns.emulator.vendor import Reply, Request

from .admission import Door
from .bodies import InstructionsBody, RunBody, decode
from .errors import ApiError, Object
from .records import OrigamiAgent, OrigamiRun
from .state import State
from .wire import Pen


@frozen
class Campaign:
    """A campaign: the agent that drafts it is its own."""

    id: str
    name: str
    agent_id: str


@frozen
class CampaignStarts:
    """Start runs on campaigns; `project` reads the project of a request, `write` writes a run."""

    state: State
    door: Door
    pen: Pen
    project: Callable[[Request], str | None]
    write: Callable[[OrigamiRun], Object]
    campaigns: dict[str, Campaign] = field(factory=dict)

    def draft(self, request: Request) -> Reply:
        """Have a new agent draft a campaign for a table (openapi-v2.yaml, createTableCampaign)."""
        body = decode(InstructionsBody, request.content)
        project = self.project(request)
        table = self.state.table(request.params["id"], project)
        self.door.check_campaign()
        agent = self.state.insert_agent(f"Campaign for {table.name}", _prompt(body), project, None)
        campaign = Campaign(self.state.stage.ids.uuid(), f"Campaign for {table.name}", agent.id)
        self.campaigns[campaign.id] = campaign
        return self._started(agent, body, "table", table.id, table.name)

    def edit(self, request: Request) -> Reply:
        """Have the agent of a campaign change it (openapi-v2.yaml, editCampaign)."""
        body = decode(InstructionsBody, request.content)
        campaign = self.campaigns.get(request.params["id"].lower())
        if campaign is None:
            raise ApiError("CAMPAIGN_NOT_FOUND")
        agent = self.state.agent(campaign.agent_id, self.project(request))
        self.door.check_follow_up(_prompt(body), agent)
        return self._started(agent, body, "campaign", campaign.id, campaign.name)

    def _started(self, agent: OrigamiAgent, body: InstructionsBody, kind: str, key: str, name: str) -> Reply:
        run = self.state.start(agent, _prompt(body))
        target = self.pen.named(kind, {"id": key, "name": name})
        return Reply.of(202, {"agent": self.pen.agent(agent), "run": self.write(run), kind: target})


def _prompt(body: InstructionsBody) -> RunBody:
    return RunBody(prompt=body.instructions)
