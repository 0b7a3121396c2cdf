"""Runs as a step of Ray Data: rows in, one row per run out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from agentruns._api.limiter import rate_limit
from agentruns._following import record
from agentruns._following.ending import refuses_all
from agentruns._following.items import NotBegunError
from agentruns._following.options import Timeout
from agentruns._values import check, codec
from agentruns._values.exchange import RateLimit
from agentruns.dialects import for_workers, load
from agentruns.dialects.protocol import Dialect
from agentruns.errors import APIError, ConfigurationError
from agentruns.tools import ToolsLike

from .extra import rate_limit_actor, ray
from .stable_ids import stable_id
from .worker import ClientOptions, Worker

_INVALID: Final = "invalid"


def map_batches(
    dataset: Any,
    vendor: str | Dialect,
    origin: Callable[[dict[str, Any]], Any],
    *,
    batch: str,
    key: str,
    workers: int = 2,
    batch_size: int = 64,
    budget: float | None = None,
    tools: ToolsLike | None = None,
    timeout: Timeout = "vendor",
    patience: float = 3600.0,
    base_url: str | None = None,
    insecure: bool = False,
    journal: str | None = None,
    **options: Any,
) -> Any:
    """
    Return the dataset of how the run of each row of *dataset* ends.

    *origin* makes what starts the run of a row, from its columns by name. It is called again when Ray repeats a task,
    and must make the same of the same row: it does not make a conversation, but is given the id of one. *key* is the
    column whose value names the row in *batch*; both together name its run. *workers* are processes of Ray that divide
    *budget*, in requests per second, among them; by default the vendor's limit. Each runs the *batch_size* rows of a
    batch at once, and as many batches beside each other as Ray Data gives it (4). *timeout* is in seconds, for each
    run, and begins with its first request; *patience* is the seconds for which a vendor is waited for that does not
    answer. *journal* is a path on a disk that all of them share, or a `postgresql://...`; the budget is shared with
    whatever else has it open. *options* go to `Dataset.map_batches`.

    The columns are those of `agentruns batch`: key, status, output, failure, usage, cost, started, ended, durations,
    attempts, actions, run, vendor. An output that is no text, and the actions, are JSON. No row is missing: one whose
    *origin* cannot be made is "invalid", and "unstarted" is what a worker begins no more once the vendor has answered
    401, 402 or 403, or has not answered for longer than *patience*.

    Ray repeats what a worker that died had under way. The same id reaches Narrative and Origami then, and gives the run
    that exists (Origami remembers ids for 24 hours); handlers may run again. With a journal that holds for all vendors,
    and handlers run once. Without one, a row of Middesk or Conduit that is repeated is started again: at most one start
    for each time that Ray tries. `max_task_retries=0` lets the dataset fail instead.

    The token is read from the environment of the workers. Raise `ConfigurationError` for what cannot work.
    """
    known = load(vendor) if isinstance(vendor, str) else vendor
    check.integer("workers", workers, 1)
    check.integer("batch_size", batch_size, 1)
    check.number("patience", patience, zero=True)
    limit = known.BUDGET if budget is None else rate_limit(budget)
    if limit is not None and limit.count < workers:
        raise ConfigurationError(f"{limit.count} requests in {limit.seconds:g} s cannot be shared by {workers} workers")
    told: dict[str, Any] = {
        "vendor": for_workers(vendor) if isinstance(vendor, str) else vendor,
        "origin": origin,
        "batch": batch,
        "key": key,
        "rate_limit_actor": None if limit is None or journal is not None else rate_limit_actor(limit, workers),
        "limit": limit,
        "tools": tools,
        "timeout": timeout,
        "patience": patience,
        "base_url": base_url,
        "insecure": insecure,
        "journal": journal,
    }
    options = {"num_cpus": 0.1, **options}  # it waits, nearly all of the time
    compute = ray().data.ActorPoolStrategy(size=workers)
    given = {"fn_constructor_kwargs": told, "batch_size": batch_size, "batch_format": "pyarrow", "compute": compute}
    return dataset.map_batches(RunAgents, **given, **options)


class RunAgents:
    """
    What `map_batches` has each worker do: run the rows of a batch at once, and return how they ended, in their order.

    For `dataset.map_batches(RunAgents, fn_constructor_kwargs=..., concurrency=4)`, where more is to be said there than
    `agentruns.ray.map_batches` takes. *rate_limit_actor*, from `agentruns.ray.rate_limit_actor(limit, workers)`,
    divides *limit*, and may be None where there is no limit, or a journal. The other parameters are those of
    `map_batches`.
    """

    def __init__(
        self,
        vendor: str | Dialect,
        origin: Callable[[dict[str, Any]], Any],
        *,
        batch: str,
        key: str,
        rate_limit_actor: Any = None,
        limit: RateLimit | None = None,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        patience: float = 3600.0,
        base_url: str | None = None,
        insecure: bool = False,
        journal: str | None = None,
    ) -> None:
        self._dialect = load(vendor) if isinstance(vendor, str) else vendor
        if journal is None and rate_limit_actor is None and (limit or self._dialect.BUDGET) is not None:
            raise ConfigurationError(
                "workers that know nothing of each other would break the limit of the vendor together; pass "
                "rate_limit_actor=agentruns.ray.rate_limit_actor(limit, workers), and the same limit"
            )
        options = ClientOptions(
            vendor=vendor,
            base_url=base_url,
            insecure=insecure,
            timeout=timeout,
            patience=patience,
            journal=journal,
            limit=limit,
        )
        self._origin = origin
        self._batch = batch
        self._key = key
        self._keeps = journal is not None
        self._refusal: APIError | None = None
        name = ray().get_runtime_context().get_actor_id() or ""
        self._worker = Worker(options, lambda: tools, rate_limit_actor, name=name)

    async def __call__(self, rows: Any) -> Any:
        """Run every row of a batch, a table or columns by name, and return the table of how they ended."""
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

        items = rows.to_pylist() if isinstance(rows, pa.Table) else _rows_of(rows)
        await self._worker.open()  # what is wrong for every row ends the dataset
        lines = await asyncio.gather(*map(self._run, items))
        return pa.Table.from_pylist([_flat(line) for line in lines], schema=_schema(pa))

    async def close(self) -> None:
        """Close the client. Ray does not: it ends the process."""
        await self._worker.close()

    async def _run(self, row: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        key = str(row.get(self._key))
        try:
            if row.get(self._key) is None:
                raise ConfigurationError(f"it has no column {self._key!r} that names it")
            origin = stable_id(self._origin(dict(row)), self._batch, key)
        except Exception as error:
            failure = {"type": type(error).__name__, "message": str(error)}
            return record.line(self._dialect, key, _INVALID, None, failure, began=began, ended=time.time())
        name = codec.encode([self._batch, key]).decode() if self._keeps else None  # other batches may share the journal
        run, trouble = (None, self._refusal) if self._refusal else await self._worker.follow(origin, name)
        self._refusal = refuses_all(trouble) or self._refusal
        begun = not isinstance(trouble, NotBegunError)
        if isinstance(trouble, NotBegunError) and trouble.because is not None:
            trouble = trouble.because
        status = record.status_of(trouble, run) if begun else "unstarted"
        failed = record.failure_of(trouble, run)
        return record.line(self._dialect, key, status, run, failed, began=began, ended=time.time())


def _rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the rows of columns by name, of plain values."""
    plain = {name: values.tolist() if hasattr(values, "tolist") else values for name, values in columns.items()}
    return [dict(zip(plain, cells, strict=True)) for cells in zip(*plain.values(), strict=True)]


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line whose columns have the same type in every row."""
    output = line["output"]
    text = output if output is None or isinstance(output, str) else codec.encode(output).decode()
    return {**line, "output": text, "actions": codec.encode(line["actions"]).decode()}


def _schema(pa: Any) -> Any:
    """Return the columns and their types: those of no batch depend on what is in it."""
    text, number = pa.string(), pa.float64()
    return pa.schema({
        "key": text,
        "status": text,
        "output": text,
        "failure": pa.struct({"type": text, "message": text}),
        "usage": pa.struct({"input_tokens": pa.int64(), "output_tokens": pa.int64()}),
        "cost": number,
        "started": text,
        "ended": text,
        "durations": pa.struct({"total": number, "run": number}),
        "attempts": pa.int64(),
        "actions": text,
        "run": pa.struct({"id": text, "parent": text}),
        "vendor": text,
    })
