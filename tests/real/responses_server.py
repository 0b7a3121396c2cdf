"""The Responses server: `fastresponses`, over an agent of Pydantic AI whose model is a function."""

from pathlib import Path
from typing import Final

from .servers import Package, Server

KEY: Final = "the-key-of-this-server-alone"

PACKAGE: Final = Package("fastresponses", ["fastresponses[pydantic-ai]==0.1.0", "pydantic-ai-slim==2.68.0"])

AGENT: Final = '''
import asyncio, json, re
from pydantic_ai import Agent
from pydantic_ai.messages import ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

async def model(messages, info):
    """Call each tool that is declared, once; then say what the tools said. The prompt says how long it takes."""
    parts = [part for message in messages for part in message.parts]
    prompts = [part.content for part in parts if isinstance(part, UserPromptPart)]
    text = prompts[-1] if isinstance(prompts[-1], str) else " ".join(prompts[-1])
    returned = [part for part in parts if isinstance(part, ToolReturnPart)]
    takes = re.search(r"([\\d.]+) seconds", text)
    await asyncio.sleep(30.0 if "slow" in text else float(takes[1]) if takes else 0.1)
    if "fail" in text:
        raise RuntimeError("the model fails as it was asked to")
    wanted = [tool.name for tool in info.function_tools if tool.name != "look" or "look" in text]
    if wanted and not returned:
        for place, name in enumerate(wanted):
            arguments = {} if name == "look" else {"question": text}
            yield {place: DeltaToolCall(name=name, json_args=json.dumps(arguments))}
    else:
        yield "; ".join(str(part.content) for part in returned) or f"You said: {text}"

agent = Agent(FunctionModel(stream_function=model))

@agent.tool_plain
def look() -> str:
    """Look, on the server."""
    return "seen"
'''


def make_server(folder: Path) -> Server:
    """Return a server, not started, that keeps its responses in *folder*."""
    program = str(PACKAGE.install() / "fastresponses")
    (folder / "agent.py").write_text(AGENT)
    words = [program, "serve", "agent.py:agent", "--api-key", KEY, "--store", "responses.db", "--log-level", "warning"]
    return Server("fastresponses", lambda port: [*words, "--port", str(port)], folder, "/health")
