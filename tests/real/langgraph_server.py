"""LangGraph's own server, in memory: `langgraph dev`, with one graph that does what its input says."""

import json
from pathlib import Path
from typing import Final

from .servers import Package, Server

PACKAGE: Final = Package(
    "langgraph", ["langgraph-cli[inmem]==0.4.40", "langgraph-api==0.16.7", "langgraph-runtime-inmem==0.36.7"]
)

GRAPH: Final = """
import asyncio, operator
from typing import Annotated, Any, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

class State(TypedDict, total=False):
    text: str
    seconds: float
    asks: list[str]
    answers: Annotated[list[Any], operator.add]

async def work(state):
    await asyncio.sleep(state.get("seconds", 0.1))
    if state.get("text") == "fail":
        raise ValueError("the node fails as it was asked to")
    return {"answers": [f"You said: {state.get('text')}"]}

def asking(name):
    async def node(state):
        return {"answers": [interrupt({"question": f"{name}: {state.get('text')}"})]}
    return node

class Context(TypedDict, total=False):
    who: str

async def told(state, runtime: Runtime[Context]):
    return {"answers": [interrupt({"question": "Who?"}), (runtime.context or {}).get("who")]}

context = StateGraph(State, context_schema=Context)
context.add_node("ask", told)
context.add_edge(START, "ask")
context.add_edge("ask", END)
contexts = context.compile()

graph = StateGraph(State)
graph.add_node("work", work)
graph.add_edge(START, "work")
for name in ("ask", "other", "third"):
    graph.add_node(name, asking(name))
    graph.add_edge(name, END)
graph.add_conditional_edges("work", lambda state: state.get("asks") or END, ["ask", "other", "third", END])
agent = graph.compile()

loop = StateGraph(State)
loop.add_node("again", lambda state: {"text": "again"})
loop.add_edge(START, "again")
loop.add_edge("again", "again")
loops = loop.compile()

stop = StateGraph(State)
stop.add_node("work", work)
stop.add_edge(START, "work")
stop.add_edge("work", END)
stops = stop.compile(interrupt_before=["work"])
"""


def make_server(folder: Path) -> Server:
    """Return a server, not started, that keeps threads and runs in *folder* when it is asked to end."""
    program = str(PACKAGE.install() / "langgraph")
    (folder / "graphs.py").write_text(GRAPH)
    graphs = {name: f"./graphs.py:{name}" for name in ("agent", "contexts", "loops", "stops")}
    (folder / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    words = [program, "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--n-jobs-per-worker", "200"]
    quiet = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    return Server("langgraph", lambda port: [*words, "--port", str(port)], folder, "/ok", quiet)
