"""The tables of all ports, as nf_tables has them: whether the kernel takes them, and the removal of those not needed.

Which rules are in a table says filter_table.py; when a port gets one, port_filter.py. Read next: nftables.py.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Container

from etherws.errors import NET_ADMIN_HINT
from etherws.kernel import nftables
from etherws.kernel.device_errors import device_errors
from etherws.kernel.filter_table import table_for
from etherws.kernel.rules import EVERYTHING, PREFIX, table_name
from etherws.walks import in_turns

#: The kernel's errors for what it does not know. Which one depends on what it does not know.
UNKNOWN = (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

HINTS = {
    errno.EPERM: NET_ADMIN_HINT,
    errno.EMSGSIZE: "list fewer addresses",
    **dict.fromkeys(
        UNKNOWN,
        "it takes Linux 4.18 or later with nf_tables and its netdev family"
        " ('modprobe nf_tables'; CONFIG_NF_TABLES_NETDEV)",
    ),
}


def check(what: str = "what clients send") -> None:
    """Raise DeviceError, with the hint, unless this kernel and this user's rights suffice for every filter. `what` is
    to be filtered, for the message."""
    with device_errors(f"filter {what}", HINTS):
        # lo is in every network namespace, under index 1.
        table_for("lo", EVERYTHING).dry_run()


def remove_stale_tables(kept: Container[str] = ()) -> None:
    """Remove our tables whose interfaces are gone, also those of a server that was killed, but for those of interfaces
    whose names are `kept`. Raises DeviceError.

    Some kernels would apply such a table to the next interface of its name. Other tables stay.
    """
    with device_errors("remove the rules of interfaces that are gone", HINTS):
        try:
            found = nftables.table_handles()
        except OSError as exc:
            if without_rules(exc):
                return
            raise
        # Interfaces are looked for last: an interface is made before its table, so a new table's is there.
        ours = {table.removeprefix(PREFIX): handle for table, handle in found.items() if table.startswith(PREFIX)}
        stale = [name for name in in_turns(ours) if name not in kept and not is_present(name)]
        nftables.remove_by_handle(ours[name] for name in stale)


def is_present(name: str) -> bool:
    """Whether there is an interface of this name. To read the names of all takes milliseconds for a thousand."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def remove_table(name: str) -> None:
    """Remove the rules of the interface of this name, if there are any. Raises DeviceError."""
    with device_errors(f"remove the rules of {name}", HINTS):
        try:
            nftables.remove(table_name(name))
        except OSError as exc:
            if not without_rules(exc):
                raise


def without_rules(exc: OSError) -> bool:
    """Whether the kernel has no such rules, or this user may have none, so that there are none to remove."""
    return exc.errno in UNKNOWN or exc.errno == errno.EPERM
