"""The programs that are to run: for each interface one after the other, for all together a few at once.

Clients come and go in floods. A run that another one makes useless before its time is left out: a change behind which
another one comes, and the begin and the end of what was not begun. So each interface waits with three runs at most.
Read next: program.py, which runs one; client/link_hooks.py and server/port_hooks.py, which say what is to run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import gevent
from gevent.lock import BoundedSemaphore

from etherws.errors import printable
from etherws.hooks import program
from etherws.hooks.facts import CHANGE, DOWN, UP, Facts, environment
from etherws.hooks.program import TIMEOUT, Rights
from etherws.kernel.privileges import CAP_NET_ADMIN
from etherws.tap_settings import TapSettings

#: Programs that run at once: each is a process, which costs more than a client.
AT_ONCE = 8

#: Seconds at the end of etherws in which programs may end by themselves: half of what the units of systemd give it.
LAST = 5.0


class Run(NamedTuple):
    """One run to come."""

    path: str
    hook: str
    reason: str
    facts: Facts


class Hooks:
    """All runs of one process."""

    def __init__(self, settings: TapSettings, run: Callable[[Run, Callable[[], float]], None] | None = None) -> None:
        """`run` runs a program until a time by monotonic(); by default it does so. Raises SettingsError if a program of
        the settings cannot be run."""
        program.check_all(settings)
        user = settings.hook_user
        capabilities = (CAP_NET_ADMIN,) if settings.hook_net_admin else ()
        self._rights = Rights(user and user[1:], capabilities)
        self._usual = {UP: settings.up, DOWN: settings.down, CHANGE: settings.change}
        self._run = run or self._run_program
        self._waiting: dict[str, deque[Run]] = {}
        self._working: dict[str, gevent.Greenlet[..., None]] = {}
        self._slots = BoundedSemaphore(AT_ONCE)
        #: When all must have ended.
        self._end = float("inf")

    def add(self, hook: str, reason: str, facts: Facts, own: str | None = None) -> None:
        """Have a program run soon: `own`, the one of a policy, or the usual one if that is None; none if it is empty.
        Does not wait."""
        path = self._usual[hook] if own is None else own
        waiting = self._waiting.setdefault(facts.device, deque())
        if hook == DOWN and (begun := [run for run in waiting if run.hook == UP]):
            # What was not begun needs no end.
            last = len(waiting) - 1 - [*waiting][::-1].index(begun[-1])
            while len(waiting) > last:
                waiting.pop()
            path = None
        elif hook in (CHANGE, DOWN) and waiting and waiting[-1].hook == CHANGE:
            waiting.pop()
        if path:
            waiting.append(Run(path, hook, reason, facts))
        if waiting and facts.device not in self._working:
            self._working[facts.device] = gevent.spawn(self._work, facts.device)
        elif not waiting and facts.device not in self._working:
            del self._waiting[facts.device]

    def finish(self) -> None:
        """Wait until all have run, for LAST seconds at most: then they are ended."""
        self._end = monotonic() + LAST
        gevent.joinall([*self._working.values()])

    def _work(self, device: str) -> None:
        waiting = self._waiting[device]
        try:
            while waiting:
                with self._slots:
                    if not waiting:
                        break
                    run, began = waiting.popleft(), monotonic()
                    if began < self._end:
                        self._run(run, lambda began=began: min(began + TIMEOUT, self._end))  # type: ignore[misc]
        finally:
            del self._working[device], self._waiting[device]

    def _run_program(self, run: Run, timeout: Callable[[], float]) -> None:
        what = f"--{run.hook} ({run.reason}) for {printable(run.facts.device)}"
        program.run(run.path, what, environment(run.hook, run.reason, run.facts), self._rights, timeout)
