"""
Deaths, faults of the disk and cancellations, at every point where they can come.

- `test_kills.py`: processes that are killed with a signal that nothing can catch, at each write to the journal, around
  each request and at any moment, one by one and several at a key; the emulator outlives them. The next one
  attaches to the run, posts again what was answered, and does nothing twice.
- `test_answers.py`: what the journal knows of handlers and answers when somebody else comes next.
- `test_disk.py`: a journal whose file is full, read-only, deleted, replaced or damaged at each of its commits.
  (`tests/test_journal.py` opens foreign, damaged and other files.)
- `test_cancellation.py`, `test_cancelled_runs.py`: waits that are cut off at a step of any task, once or twice, in
  handlers and while they clean up, by tasks, timeouts, groups and scopes, under asyncio and uvloop; and what becomes of
  the run by `on_cancel`.

Connections that break are in `tests/hostile` and `tests/test_transport.py`.

Every day, each kind of work meets each kind of end, at some of its steps. `AGENTRUNS_EXHAUSTIVE=1 pytest tests/crash`
looks at all steps of all combinations, on a real disk, and tells at the end how many there were; it may take an hour
on two busy cores. `AGENTRUNS_CRASH_STORE=postgres pytest tests/crash/test_kills.py` has the journals in PostgreSQL.

`killed_processes.py` tells stories of processes that live and die, `worker.py` is one such life, `fork_server.py` is
what lives are forked from; `loop_steps.py` counts the steps of a loop, `ways_to_cancel.py` are the ways to be cut off.
"""
