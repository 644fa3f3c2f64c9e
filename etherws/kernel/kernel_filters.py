"""What all ports of a server have in common in the kernel: whether it can filter, who watches, what is removed late.

Read next: port_filter.py, which is one port's; guard.py, which puts back what others take away.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence

import gevent

from etherws.errors import DeviceError
from etherws.kernel import kept_filters, port_tables
from etherws.kernel.guard import Guard
from etherws.kernel.kept_filters import KeptFilter
from etherws.kernel.link_watch import LinkWatch
from etherws.kernel.place import Device
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import Rules

log = logging.getLogger(__name__)

#: Seconds from the end of a port to the removal of its table. The kernel needs some 13 ms for a removal: the tables of
#: all ports that end meanwhile are removed together.
REMOVAL_DELAY = 1.0


#: Seconds from a start to a look at the rates of ports that were there before: their clients come back first.
LOOK_DELAY = 5.0


class KernelFilters:
    """Whether this kernel can filter, the guard of what it enforces, and the removal of tables of interfaces that are
    gone."""

    def __init__(self, links: LinkWatch | None = None, kept: Container[str] = ()) -> None:
        """Ask the kernel, and remove what a killed server left, but for tables of interfaces whose names are `kept`. A
        kernel that cannot filter is a warning in the log. `links` is as for Guard."""
        self._guard = Guard(links)
        self._removal: gevent.Greenlet[..., None] | None = None
        #: Why this kernel cannot filter, if it cannot.
        self._failure: DeviceError | None = None
        try:
            port_tables.check()
            port_tables.remove_stale_tables(kept)
        except DeviceError as exc:
            log.warning("%s; so clients may have any number of source addresses, which is otherwise limited", exc)
            self._failure = exc
        self._guard.start()

    def port_filter(self, index: int, device: Device | None = None) -> PortFilter:
        """The filter of the port that has the interface of this index, and its TAP."""
        return self._guard.port_filter(index, device)

    def take_over(self, kept: Sequence[KeptFilter]) -> None:
        """The ports of the process before are ours now: see kept_filters.take_over()."""
        for one in kept_filters.take_over(kept):
            self._guard.put_back_soon(one)
        if kept:
            self.remove_stale_tables_soon()
            # To look at each rate takes milliseconds. Clients that come back need not wait for that.
            gevent.spawn_later(LOOK_DELAY, self._guard.look, [one.filter for one in kept])

    def possible(self, rules: Rules) -> Rules:
        """The rules, without those that this kernel cannot enforce and nobody asked for. Raises DeviceError, with the
        hint, if it cannot enforce one that somebody asked for, or if rules that others removed cannot be put back."""
        if rules.filters and self._guard.failure is not None:
            raise self._guard.failure
        if self._failure is None or not rules.filters:
            return rules
        if rules.filters_on_request or rules.macs_required:
            raise self._failure
        return Rules(rate_down=rules.rate_down, isolated=rules.isolated)

    def remove_stale_tables_soon(self) -> None:
        """A port is gone: remove its table, and those of all ports that end within REMOVAL_DELAY seconds."""
        if self._removal is None:
            self._removal = gevent.spawn_later(REMOVAL_DELAY, self._remove_stale_tables)

    def close(self) -> None:
        """The ports are gone: remove their tables now."""
        self.hand_over()
        self._remove_stale_tables()

    def hand_over(self) -> None:
        """Another process has the ports from now on: leave all as it is."""
        self._guard.close()
        if self._removal is not None:
            self._removal.kill()

    def _remove_stale_tables(self) -> None:
        self._removal = None
        try:
            port_tables.remove_stale_tables()
        except DeviceError as exc:
            log.error("%s", exc)
