"""
"Nothing lost, nothing twice", played through: the real client over the real emulators, in virtual time, by seed.

One seed decides everything: the vendor and its runs, the weather on the wire (`network.FAULTS`: each exchange may be
refused, lost on either way, cut, garbled, late, denied, held back, or told the past), the disk, who calls and how
(`callers.ACTS`), and when a process is left or killed. Processes are clients in one loop, on one journal; time jumps
to the next timer. At the end a last process goes through with all work that has a key.

The laws (`invariants`) are looked at as it happens, and after each seed:

- each intent is started once at most, and each pause answered by one run at most;
- each handler is run once at most for an action, unless it may be repeated or has raised; none is said to be of
  unknown outcome that was not cut off;
- each stream ends where its run does, at the right run, or with an error that its caller is told to expect; it keeps
  its deadline and its patience, and what it showed last is the truth;
- no state goes back, or is shown twice;
- the budget and the rest that a vendor asks for are kept, and no run is read that nobody waits for;
- nothing is left: no task, timer, waiter, watch or claim, after a process and at the end;
- nobody waits in vain, and the journal knows what is done.

Beside them stands the law of goodput (`goodput`), which takes many runs and a plainer vendor.

`python -m tests.simulation --seeds 4000` plays many seeds, and prints for each that broke a law the line that plays it
again: `python -m tests.simulation --seed 4711 --vendor middesk`. The same seed has the same history in every process.
`--mutations` breaks the package on purpose (`mutations`), and shows which law notices: most within 300 seeds, all that
a law can notice within 2500. What is known and not mended yet stands in `known_defects`; what was found so far is told
step by step in `test_found.py`.
"""
