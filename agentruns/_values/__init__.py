"""
The values that move between rooms: frozen, typed, free of I/O.

The words of this package, each with one meaning:

- **run**: one piece of work of an agent at a vendor. A `Run` value is one of its states; a `RunRef` only names it.
- **origin**: what starts a run, such as `narrative.UserMessage`. Each dialect has one class of it.
- **state**: what one read says of a run: `status`, `actions`, `output`, `failure`. A state is *news* if one of these
  differs from the state before.
- **pause**: a state of status REQUIRES_ACTION. The run waits until its actions are answered.
- **action**: one thing that a paused run asks for: a tool call, an interrupt, a question.
- **answer**: what is posted for an action: a `ToolOutput`, made by a *handler* or by a person.
- **segment**: the part of a run between its start, or an answer, and the next pause or end. Durations are learned of
  segments.
- **timing group**: runs that are likely to take about the same time, such as those of one model.
- **watch**: what the poller knows of one run that somebody follows. Several streams may share one.
- **stream**: what one caller follows: the states of one run, as an async iterator.
- **poll**: one request that reads one run. A *list* reads a **page** of many runs with one request.
- **permit**: the right to send one request now, given by a rate limiter or a concurrency limit.
- **dialect**: one vendor's module or object: its names, and functions that return flows.
- **flow**: a generator that yields commands, above all requests, and receives their answers. It does no I/O itself.
- **key**: the user's name of one piece of work in a journal, such as "invoice-17".
- **checkpoint**: what a start keeps in the journal before it sends what must not be sent twice.
"""
