"""What the emulators of the products share: runs that play turns of a script. What they answer is each one's own."""

from collections.abc import Mapping
from typing import Any, Self

from attrs import evolve, frozen

from agentruns.emulator import Prompt, Turn, Vendor
from agentruns.emulator import vendor as emulated

LOST = "no field of ours comes back in a run, so one that got lost is reported, not found"


@frozen
class Row:
    """One run: the turns that it has still to play, when the first of them began, and what was asked for."""

    id: str
    asked: Mapping[str, Any]
    turns: tuple[Turn, ...]
    created: float
    began: float
    is_stopped: bool = False
    answers: tuple[str, ...] = ()


class Product(Vendor):
    """A vendor whose runs play one turn after the other, each time they are answered."""

    def __init__(self, stage: emulated.Stage) -> None:
        super().__init__(stage)
        self.rows: dict[str, Row] = {}

    @classmethod
    def build(cls, stage: emulated.Stage, options: Mapping[str, object]) -> Self:
        return cls(stage)

    @property
    def runs_started(self) -> int:
        return len(self.rows)

    def begin(self, asked: Mapping[str, Any], text: str) -> Row:
        turns = [self.stage.play(Prompt(index=0, conversation_id="", text=text))]
        while turns[-1].calls:
            turns.append(self.stage.play(Prompt(index=len(turns), conversation_id="", text="")))
        now = self.stage.now()
        row = Row(self.stage.ids.uuid(), asked, tuple(turns), now, now)
        self.rows[row.id] = row
        return row

    def go_on(self, row: Row, answer: str) -> Row:
        row = evolve(row, turns=row.turns[1:], began=self.stage.now(), answers=(*row.answers, answer))
        self.rows[row.id] = row
        return row

    def stop(self, row: Row) -> Row:
        row = self.rows[row.id] = evolve(row, is_stopped=True)
        return row

    def state(self, row: Row) -> str:
        """Return pending, running, asking, failed, stopped or done, or the word that a script has for the state."""
        age, turn = self.stage.now() - row.began, row.turns[0]
        if row.is_stopped:
            return "stopped"
        if age < turn.pending:
            return "pending"
        if age < turn.lasts:
            return turn.status or "running"
        return "asking" if turn.calls else "failed" if turn.error else "done"

    def at(self, seconds: float) -> str:
        return self.stage.wall(seconds).isoformat().replace("+00:00", "Z")
