"""One PortFilter for each port: which rules its client needs, which the kernel has in force, and when to change them.

Nothing here sees a frame, but no frame may pass before its client's rules: the port's sink (server/port.py) calls arm()
before it writes the first one. A port's filters are one table of nf_tables; rate and isolation are settings of the
interface. KernelFilters is what all ports of a server have in common. What a client may send per second is limited in
tunnel/rate_limit.py. Read next: rules.py, filter_table.py, nftables.py, interfaces.py.
"""

from __future__ import annotations

import errno
import logging
import socket
from enum import Enum
from typing import NamedTuple

import gevent
from gevent.lock import BoundedSemaphore

from etherws.errors import DeviceError
from etherws.kernel import interfaces, nftables
from etherws.kernel.device_errors import device_errors
from etherws.kernel.filter_table import table_for
from etherws.kernel.rules import EVERYTHING, PREFIX, Rules, table_name

log = logging.getLogger(__name__)

#: Seconds from the end of a port to the removal of its table. The kernel needs some 13 ms for a removal: the tables of
#: all ports that end meanwhile are removed together.
REMOVAL_DELAY = 1.0

#: The kernel's errors for what it does not know. Which one depends on what it does not know.
_UNKNOWN = (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

_HINTS = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.EMSGSIZE: "list fewer addresses",
    **dict.fromkeys(
        _UNKNOWN,
        "it takes Linux 4.18 or later with nf_tables and its netdev family"
        " ('modprobe nf_tables'; CONFIG_NF_TABLES_NETDEV)",
    ),
}


class FilterState(Enum):
    """What the kernel has in force for a port, and whose frames have passed it.

    The number of source addresses is a rule that learns: the addresses of the first frames are the client's.
    """

    #: None of our rules.
    ABSENT = "absent"
    #: Rules that no frame has passed since they were put in: good for any client that needs the same.
    UNUSED = "unused"
    #: Rules that frames of the present client have passed, or may pass from now on.
    USED = "used"
    #: Rules that frames of an earlier client have passed: what they have learnt is wrong for the present one.
    OUTDATED = "outdated"


class Applied(NamedTuple):
    """The rules that the kernel has in force, and the name that the interface had when they were put in."""

    name: str
    rules: Rules


class PortFilter:
    """What the kernel enforces at one interface. Every verb may be repeated; a repetition changes nothing.

    To put rules in takes the kernel 0.3 ms, to replace them some 20 ms. A thousand clients that come at once, or that
    come and go without a frame, would wait for that one after the other. So filters wait for the first frame, and are
    kept in force where they still fit. Rules for what goes to the client cannot wait.
    """

    def __init__(self, index: int) -> None:
        """For the interface of this index."""
        self.index = index
        self.needed = Rules()
        self.applied: Applied | None = None
        self.state = FilterState.ABSENT
        #: Whether we have isolated it. If not, its owner may have, and we leave that alone.
        self._isolated = False
        self._one_at_a_time = BoundedSemaphore(1)

    def need(self, rules: Rules, *, returning: bool = False) -> None:
        """A client comes that needs these rules. `returning`: it is the one that had the port before.

        They are put in at once if they limit what goes to the client, or if other rules are in force; else arm() puts
        them in. Raises DeviceError if one of them cannot be put in; then none is in force.
        """
        with self._one_at_a_time:
            if self.state is FilterState.USED and not returning:
                self.state = FilterState.OUTDATED
            self.needed = rules
            others = self.applied is not None and self.applied.rules != rules
        if others or rules.isolated or rules.rate_down:
            self.ensure()

    def ensure(self) -> None:
        """Put in the rules that are needed, unless they are in force. Raises DeviceError; then none is in force."""
        if self._in_force():
            return
        # In a greenlet of its own: once the kernel has been asked, its answer must be heard, even if the session that
        # asked is ended meanwhile. The next client of the port waits for it.
        if error := gevent.spawn(self._apply).get():
            raise error

    def arm(self) -> None:
        """The client's first frame is about to pass: have its rules in force.

        Raises DeviceError if that fails; then the frame must not pass.
        """
        self.ensure()
        self.state = FilterState.USED

    def clear(self) -> None:
        """Remove the rules that are in force. No error if the interface is gone. Raises DeviceError."""
        with self._one_at_a_time:
            if self.applied is not None:
                self._clear(self.applied.name)

    def drops(self) -> dict[str, int]:
        """How many of the client's frames were dropped since its rules were put in, by reason.

        Empty if the client has sent no frame, or if the kernel does not tell.
        """
        if self.applied is None or self.state is not FilterState.USED:
            return {}
        try:
            counts = nftables.frame_counts(table_name(self.applied.name))
        except OSError:
            return {}
        return {reason: frames for reason, frames in counts.items() if frames}

    def _in_force(self) -> bool:
        """Whether the needed rules are in force under the interface's present name: somebody may have renamed it."""
        if self.state in (FilterState.ABSENT, FilterState.OUTDATED):
            return False
        return self.applied == (interfaces.name_of(self.index), self.needed)

    def _apply(self) -> DeviceError | None:
        """Put in the needed rules, in place of what is in force. Return what went wrong."""
        with self._one_at_a_time:
            name, rules = "", self.needed
            try:
                if self._in_force():
                    return None
                name = interfaces.name_of(self.index)
                if self.applied is not None and self.applied.name != name:
                    self._remove_table(self.applied.name)
                self.applied, self.state = None, FilterState.ABSENT
                if rules.filters:
                    with device_errors(f"filter what comes in by {name}", _HINTS):
                        table_for(name, rules).install()
                else:
                    _remove_table(name)
                # The kernel also takes rules for a name that no interface has.
                if interfaces.name_of(self.index) != name:
                    raise DeviceError(f"cannot filter what comes in by {name}: it has another name now; try again")
                interfaces.set_rate(self.index, rules.rate_down)
                self._isolate(rules.isolated)
            except DeviceError as exc:
                try:
                    if name:
                        self._clear(name)
                except DeviceError as also:
                    # The first error is what the client is refused for.
                    log.error("%s", also)
                return exc
            self.applied, self.state = Applied(name, rules), FilterState.UNUSED
            return None

    def _clear(self, name: str) -> None:
        self.applied, self.state = None, FilterState.ABSENT
        self._remove_table(name)
        if self.index in dict(socket.if_nameindex()):
            interfaces.set_rate(self.index, None)
            self._isolate(False)

    def _remove_table(self, name: str) -> None:
        """Remove the table of our interface, which has or had this name."""
        present = dict(socket.if_nameindex())
        # Another interface of that name has come since: the table is its own.
        if name not in present.values() or present.get(self.index) == name:
            _remove_table(name)

    def _isolate(self, on: bool) -> None:
        if on or self._isolated:
            interfaces.isolate(self.index, on)
        self._isolated = on


class KernelFilters:
    """Whether this kernel can filter, and the removal of tables whose interfaces are gone."""

    def __init__(self) -> None:
        """Ask the kernel, and remove what a killed server left. A kernel that cannot filter is a warning in the log."""
        self._removal: gevent.Greenlet[..., None] | None = None
        #: Why this kernel cannot filter, if it cannot.
        self._failure: DeviceError | None = None
        try:
            check()
            remove_stale_tables()
        except DeviceError as exc:
            log.warning("%s; so clients may have any number of source addresses, which is otherwise limited", exc)
            self._failure = exc

    def possible(self, rules: Rules) -> Rules:
        """The rules, without those that this kernel cannot enforce and nobody asked for. Raises DeviceError, with the
        hint, if it cannot enforce one that somebody asked for."""
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
        if self._removal is not None:
            self._removal.kill()
        self._remove_stale_tables()

    def _remove_stale_tables(self) -> None:
        self._removal = None
        try:
            remove_stale_tables()
        except DeviceError as exc:
            log.error("%s", exc)


def check(what: str = "what clients send") -> None:
    """Raise DeviceError, with the hint, unless this kernel and this user's rights suffice for every filter. `what` is
    to be filtered, for the message."""
    with device_errors(f"filter {what}", _HINTS):
        # lo is in every network namespace, under index 1.
        table_for("lo", EVERYTHING).dry_run()


def remove_stale_tables() -> None:
    """Remove our tables whose interfaces are gone, also those of a server that was killed. Raises DeviceError.

    Some kernels would apply such a table to the next interface of its name. Other tables stay.
    """
    with device_errors("remove the rules of interfaces that are gone", _HINTS):
        try:
            found = nftables.table_handles()
        except OSError as exc:
            if _without_rules(exc):
                return
            raise
        # Read the interfaces last: an interface is made before its table, so a new table's is among them.
        present = dict(socket.if_nameindex()).values()
        nftables.remove_by_handle(
            handle
            for table, handle in found.items()
            if table.startswith(PREFIX) and table.removeprefix(PREFIX) not in present
        )


def _remove_table(name: str) -> None:
    with device_errors(f"remove the rules of {name}", _HINTS):
        try:
            nftables.remove(table_name(name))
        except OSError as exc:
            if not _without_rules(exc):
                raise


def _without_rules(exc: OSError) -> bool:
    """Whether the kernel has no such rules, or this user may have none, so that there are none to remove."""
    return exc.errno in _UNKNOWN or exc.errno == errno.EPERM
