"""What a worker answers the port process that asks for its sessions: what they are, and what was counted here.

A thousand sessions are told in pieces, so that no frame waits long for one. Read next: workers_status.py, which asks;
remote_ports.py.
"""

from __future__ import annotations

from etherws.errors import ChannelError, DeviceError
from etherws.server.application import Application
from etherws.server.refusals import refusals
from etherws.tunnel.session import totals_now
from etherws.workers.messages import Message, number
from etherws.workers.remote_ports import RemotePorts

#: Sessions in one answer. Each takes some 0.02 ms to look at, and 1 KB: so an answer takes less than a millisecond, and
#: fits into one datagram (datagrams.py).
PIECE = 24


class WorkerStatus:
    """Of one application, with ports that were lent."""

    def __init__(self, application: Application, ports: RemotePorts) -> None:
        self._application, self._ports = application, ports

    def answer(self, verb: str, message: Message) -> Message:
        """Answer "counted", "sessions" or "history". Raises ChannelError if it asks for something else, and
        DeviceError if there is no such session."""
        match verb:
            case "counted":
                return self.counted()
            case "sessions":
                return self._sessions(number(message, "after"))
            case "history":
                return self._history(number(message, "port"))
        raise ChannelError(f"it asks for {verb!r}, which nobody knows")

    def counted(self) -> Message:
        """What was counted in this process so far."""
        totals = totals_now(self._application.totals)
        return {"totals": totals.values(), "refusals": refusals.counts()}

    def _sessions(self, after: int) -> Message:
        """The sessions on the ports of the next numbers after this one."""
        following = sorted(found for found in self._ports.lent() if found > after)
        told = []
        for found in following[:PIECE]:
            port = self._ports.lent().get(found)
            session = self._application.session_on(port) if port is not None else None
            if session is not None:
                told.append([found, session.status()])
        return {"sessions": told, "next": following[PIECE - 1] if len(following) > PIECE else None}

    def _history(self, found: int) -> Message:
        port = self._ports.lent().get(found)
        session = self._application.session_on(port) if port is not None else None
        if session is None:
            raise DeviceError("there is no session on that port")
        return {"history": session.history()}
