"""The reference server of A2A: `a2a-sdk`, with an agent that does what the words of a message say."""

from pathlib import Path
from typing import Final

from .servers import Package, Server

KEY: Final = "the-key-of-this-server-alone"

PACKAGE: Final = Package("a2a-sdk", ["a2a-sdk[http-server]==1.3.0", "uvicorn==0.54.0", "starlette==1.10.0"])

AGENT: Final = '''
import asyncio, os, pickle, re, sys
from contextlib import asynccontextmanager
import httpx, uvicorn
from a2a.helpers import get_data_parts, new_data_part, new_raw_part, new_task_from_user_message, new_text_message
from a2a.helpers import new_text_part, new_url_part
from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import BasePushNotificationSender, InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.server.tasks import TaskUpdater
from a2a.types.a2a_pb2 import AgentCard, Role, Task
from google.protobuf.json_format import ParseDict
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

KEY, PORT = os.environ["KEY"], int(sys.argv[1])
HERE = f"http://127.0.0.1:{PORT}"
logins = {}

class Agent(AgentExecutor):
    """Ask, ask for a login, fail, or bring artifacts, as the words of the first message say."""

    async def execute(self, context, queue):
        said = context.get_user_input()
        if "chat" in said and context.current_task is None:
            return await queue.enqueue_event(new_text_message("Hello yourself.", context_id=context.context_id))
        task = context.current_task
        if task is None:
            task = new_task_from_user_message(context.message)
            await queue.enqueue_event(task)
        updater = TaskUpdater(queue, task.id, task.context_id)
        first = task.history[0].parts[0].text
        answers = [each for each in task.history[1:] if each.role == Role.ROLE_USER]
        answered = len(answers) + (context.current_task is not None)
        say = lambda text: updater.new_agent_message([new_text_part(text)])
        await updater.start_work()
        takes = re.search(r"([\\d.]+) seconds", first)
        await asyncio.sleep(30.0 if "slow" in first else float(takes[1]) if takes else 0.05)
        if "fail" in first:
            raise RuntimeError("the agent fails as it was asked to")
        if "give up" in first:
            return await updater.failed(say("I give up."))
        if "reject" in first:
            return await updater.reject(say("Not that."))
        if "login" in first and not answered:
            await updater.requires_auth(say(f"{HERE}/login/{task.id}"))
            await logins.setdefault(task.id, asyncio.Event()).wait()
            await updater.start_work()
        if answered < ("ask" in first) + ("twice" in first):
            return await updater.requires_input(say(f"Shall I, {answered}?"))
        if "kinds" in first:
            await updater.add_artifact([new_text_part("See "), new_text_part("this.")], name="text")
            await updater.add_artifact([new_data_part({"a": [1, None]})], name="data")
            await updater.add_artifact([new_url_part("https://a.example/b.pdf", media_type="application/pdf")])
            await updater.add_artifact([new_raw_part(b"abc", filename="a.bin")], name="raw")
        elif "pieces" in first:
            for place, word in enumerate(("One ", "two ", "three.")):
                await updater.add_artifact(
                    [new_text_part(word)], artifact_id="words", append=place > 0, last_chunk=place == 2
                )
                await asyncio.sleep(0.1)
        elif "data" in first:
            await updater.add_artifact([new_data_part({"seen": get_data_parts(context.message.parts)})])
        else:
            told = said if context.current_task is not None else f"You said: {first}"
            await updater.add_artifact([new_text_part(told)], name="answer")
        await updater.complete()

    async def cancel(self, context, queue):
        task = context.current_task
        await TaskUpdater(queue, task.id, task.context_id).cancel()

def card(*bindings, scheme="bearer", tenant=""):
    schemes = {
        "bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}},
        "key": {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}},
    }
    urls = {"HTTP+JSON": HERE, "JSONRPC": HERE + "/rpc"}
    told = {
        "name": "Agent", "description": "Does what it is told.", "version": "1.0.0",
        "supportedInterfaces": [
            {"url": urls[each], "protocolBinding": each, "protocolVersion": "1.0", "tenant": tenant}
            for each in bindings
        ],
        "capabilities": {"streaming": True, "pushNotifications": True, "extendedAgentCard": True},
        "securitySchemes": schemes, "securityRequirements": [{"schemes": {scheme: {"list": []}}}],
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "all", "name": "All", "description": "All", "tags": ["all"]}],
    }
    return ParseDict(told, AgentCard())

CARDS = {
    "": card("JSONRPC", "HTTP+JSON"),
    "/only-rpc": card("JSONRPC"),
    "/keyed": card("HTTP+JSON", scheme="key"),
    "/rented": card("HTTP+JSON", tenant="acme"),
}

async def log_in(request):
    logins.setdefault(request.path_params["id"], asyncio.Event()).set()
    return JSONResponse({})

class Guard:
    """Let nobody in without the key, but to the cards and the logins."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and ".well-known" not in scope["path"] and "/login/" not in scope["path"]:
            headers = dict(scope["headers"])
            if KEY not in {headers.get(b"authorization", b"").decode().removeprefix("Bearer "),
                           headers.get(b"x-key", b"").decode()}:
                return await JSONResponse({"error": {"code": 401, "message": "no key"}}, 401)(scope, receive, send)
        await self.app(scope, receive, send)

class Store(InMemoryTaskStore):
    """Keep the tasks in a file while the server is down."""

    kept = {}

    async def save(self, task, context):
        self.kept[task.id] = task.SerializeToString()
        await super().save(task, context)

    @asynccontextmanager
    async def opened(self, app):
        if os.path.exists("tasks"):
            with open("tasks", "rb") as file:
                for task in pickle.load(file).values():
                    await self.save(Task.FromString(task), ServerCallContext())
        yield
        with open("tasks", "wb") as file:
            pickle.dump(self.kept, file)

store = Store()
pushes = InMemoryPushNotificationConfigStore()
handler = DefaultRequestHandlerV2(
    Agent(),
    store,
    CARDS[""],
    push_config_store=pushes,
    push_sender=BasePushNotificationSender(httpx.AsyncClient(trust_env=False), pushes),
    extended_agent_card=card("HTTP+JSON"),
)
routes = [Route("/login/{id}", log_in, methods=["POST"])]
for path, each in CARDS.items():
    routes += create_agent_card_routes(each, card_url=path + "/.well-known/agent-card.json")
routes += create_jsonrpc_routes(handler, "/rpc") + create_rest_routes(handler)
uvicorn.run(Guard(Starlette(routes=routes, lifespan=store.opened)), host="127.0.0.1", port=PORT, log_level="warning",
            timeout_graceful_shutdown=1)
'''


def make_server(folder: Path) -> Server:
    """Return a server, not started, that keeps its tasks in *folder*."""
    python = str(PACKAGE.install() / "python")
    (folder / "agent.py").write_text(AGENT)
    ready = "/.well-known/agent-card.json"
    return Server("a2a-sdk", lambda port: [python, "agent.py", str(port)], folder, ready, {"KEY": KEY})
