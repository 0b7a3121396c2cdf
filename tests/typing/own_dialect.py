"""A vendor of the user's own: as a module, and as an object of a class."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_type

from attrs import frozen

from agentruns import Action, Client, Dialect, Outcome, RateLimit, Run, RunRef, RunStatus, connect
from agentruns.dialects import Flow, Problem, Request, Response
from tests.conformance import acme


async def as_a_module() -> None:
    async with connect(acme, token="t") as client:
        assert_type(client, Client[acme.Job, acme.AcmeJob])
        run = await client.result(acme.Job("p", "Do it."))
        assert_type(run.detail, acme.AcmeJob)
        assert_type(run.detail.answer, str | None)
        async for outcome in client.batch([acme.Job("p", "Do it.")]):
            assert_type(outcome, Outcome[acme.Job, acme.AcmeJob, acme.Job])


@frozen
class Order:
    text: str


@frozen
class Receipt:
    total: int


class Shop:
    """A dialect with state: the protocol asks for names, not for a module."""

    NAME = "shop"
    BASE_URL = "https://shop.test"
    TOKEN_VARIABLE = "SHOP_TOKEN"
    BASE_URL_VARIABLE = "SHOP_BASE_URL"
    BUDGET: RateLimit | None = None
    Origin = Order

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    def start(self, origin: Order) -> Flow[Run[Receipt]]:
        return self._read((yield Request("POST", "/orders", json={"text": origin.text, "tenant": self.tenant})))

    def fetch(self, ref: RunRef, params: Mapping[str, str]) -> Flow[Run[Receipt]]:
        return self._read((yield Request("GET", f"/orders/{ref.id}", params=params)))

    def problem(self, response: Response) -> Problem:
        return Problem(response.body.decode())

    def handler_names(self, action: Action) -> Sequence[str]:
        return (action.name,)

    def _read(self, response: Response) -> Run[Receipt]:
        raw: Mapping[str, Any] = response.value
        return Run(RunRef(raw["id"]), RunStatus.COMPLETED, "done", detail=Receipt(raw["total"]), raw=raw)


def as_an_object() -> None:
    shop: Dialect[Order, Receipt] = Shop("t-1")
    assert_type(connect(shop), Client[Order, Receipt])
    assert_type(connect(Shop("t-2"), token="t"), Client[Order, Receipt])
