"""A tour of an agent: each kind of request once, to tell whether two agents answer alike."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

HEADERS: Mapping[str, str] = {"A2A-Version": "1.0", "Content-Type": "application/a2a+json"}

Answers = dict[str, tuple[int, Any, Any]]


def shape(value: Any) -> Any:
    """Return the kinds of what is in a value, by name; of a list, those of its first."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items() if name != "metadata"}
    return list(map(shape, value[:1])) if isinstance(value, list) else type(value).__name__


def reasons(value: Any) -> Any:
    """Return the words of an error, None for what is none."""
    error = value.get("error")
    return error and (error["status"], [each.get("reason") for each in error["details"]])


async def tour(url: str, token: str) -> Answers:
    """Ask for everything once, of an agent that asks if it is told to and then repeats the answer."""
    answers: Answers = {}

    async with aiohttp.ClientSession(headers={**HEADERS, "Authorization": f"Bearer {token}"}) as http:

        async def ask(name: str, line: str, body: Any = None, **headers: str) -> Any:
            method, path = line.split()
            async with http.request(method, f"{url}/{path}", json=body, headers=headers) as answer:
                value = await answer.json(content_type=None)
            answers[name] = (answer.status, shape(value), reasons(value))
            return value

        def message(text: str, **names: str) -> Mapping[str, Any]:
            said = {"messageId": text, "contextId": "c1", "role": "ROLE_USER", "parts": [{"text": text}], **names}
            return {"message": said, "configuration": {"returnImmediately": True}}

        async def until(state: str, task: str) -> None:
            for _ in range(1000):
                if (await ask(state, f"GET tasks/{task}"))["status"]["state"] == f"TASK_STATE_{state}":
                    return
                await asyncio.sleep(0.02)
            raise TimeoutError(state)

        name = (await ask("a start", "POST message:send", message("ask")))["task"]["id"]
        await until("INPUT_REQUIRED", name)
        await ask("without history", f"GET tasks/{name}?historyLength=0")
        await ask("a list of one that asks", "GET tasks?contextId=c1&includeArtifacts=true")
        await ask("another context", "POST message:send", message("yes", taskId=name, contextId="c2"))
        await ask("an answer", "POST message:send", message("yes", taskId=name))
        await until("COMPLETED", name)
        await ask("a list of one that is over", "GET tasks?contextId=c1&includeArtifacts=true&historyLength=0")
        await ask("a list without artifacts", "GET tasks?contextId=c1")
        await ask("a late answer", "POST message:send", message("more", taskId=name))
        await ask("a late cancel", f"POST tasks/{name}:cancel", {})
        await ask("late events", f"POST tasks/{name}:subscribe", {})
        await ask("no such task", "GET tasks/nowhere")
        await ask("a cancel of none", "POST tasks/nowhere:cancel", {})
        await ask("a message to none", "POST message:send", message("yes", taskId="nowhere"))
        await ask("a message of nothing", "POST message:send", {"message": {"messageId": "m", "role": "ROLE_USER"}})
        await ask("too large a page", "GET tasks?pageSize=1000")
        await ask("an odd cursor", "GET tasks?pageToken=odd")
        await ask("another version", "GET tasks", **{"A2A-Version": "0.9"})
        pushes = f"tasks/{name}/pushNotificationConfigs"
        await ask("a push", f"POST {pushes}", {"id": "p", "url": "https://a.example/hook", "token": "t"})
        await ask("a push that is there", f"GET {pushes}/p")
        await ask("all pushes", f"GET {pushes}")
        await ask("no such push", f"GET {pushes}/q")
        await ask("no push any more", f"DELETE {pushes}/p")
        slow = (await ask("a slow start", "POST message:send", message("be slow", contextId="c3")))["task"]["id"]
        await ask("a cancel", f"POST tasks/{slow}:cancel", {})
    return answers
