"""The ports that a server has, found by what they are asked for: whose they are, and which are kept for lost clients.

Bookkeeping, so that the thousandth client costs as much as the first: nothing here looks at every port, unless a bridge
is full, and each port tells of its changes itself. What a port is to become is decided in ports.py. Read next:
ports.py, port.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, TypeAlias, TypeVar

from etherws.errors import DeviceError
from etherws.kernel.bring_up import is_full
from etherws.server.port import ClientKey, Port, State

#: Ports that are kept for lost clients, by their sources, in the order in which they were parked.
_Kept: TypeAlias = dict[str, dict[Port, None]]


class _Holder(NamedTuple):
    """Whose a port is, and where it is kept; None if it is in use."""

    client: ClientKey
    kept: _Kept | None


class PortTable:
    """All that are not gone, in the order of their coming."""

    def __init__(self, *ports: Port) -> None:
        #: None: nobody has it.
        self._holders: dict[Port, _Holder | None] = {}
        self._by_client: dict[ClientKey, dict[Port, None]] = {}
        self._by_identity: dict[str, dict[Port, None]] = {}
        self._kept: _Kept = {}
        # Those that a whole process has left.
        self._left: _Kept = {}
        #: How many are kept for lost clients; without those that a whole process has left.
        self.kept = 0
        self.add(*ports)

    def __iter__(self) -> Iterator[Port]:
        """All of now: more may come and go meanwhile."""
        return iter([*self._holders])

    def __len__(self) -> int:
        return len(self._holders)

    def add(self, *ports: Port) -> None:
        """Have more ports. Each goes by itself when it is gone."""
        for port in ports:
            port.on_change = self._note
            self._holders[port] = None
            self._note(port)

    def make(
        self, new: Callable[[], Port], release: Callable[[Port], None], bridge: str | None, but: Port | None = None
    ) -> Port:
        """The port that `new` makes in this bridge; None: in that of the first port. If the bridge is full, one that is
        kept there for a lost client goes, apart from `but`: `release` removes that, or makes it free: then it is the
        port. Raises NoPort and DeviceError as `new` does."""
        try:
            made = new()
        except DeviceError as exc:
            if not is_full(exc):
                raise
            # The clients of a process that has ended are about to come back: theirs last.
            longest = _longest_in(self._kept, bridge, but) or _longest_in(self._left, bridge, but)
            if longest is None:
                raise
            release(longest)
            if longest.state is State.FREE:
                return longest
            made = new()
        self.add(made)
        return made

    def of_client(self, client: ClientKey) -> Port | None:
        """The port that this client has, or that is kept for it."""
        return next(iter(self._by_client.get(client, ())), None)

    def all_of(self, client: ClientKey) -> list[Port]:
        """As of_client(), if those that are known by the same may have several."""
        return [*self._by_client.get(client, ())]

    def of_identity(self, identity: str) -> list[Port]:
        """The ports that clients of this identity have, or that are kept for them."""
        return [*self._by_identity.get(identity, ())]

    def kept_longest(self) -> Port | None:
        """The port that goes if one must: of the source for which most are kept, the one kept for longest. So who
        leaves many behind takes none from others. None if none is kept."""
        return _first_of_most(self._kept.values())

    def _note(self, port: Port) -> None:
        """The port is another client's now, or its state has changed."""
        if holder := self._holders.get(port):
            _drop(self._by_client, holder.client, port)
            if holder.client.identity is not None:
                _drop(self._by_identity, holder.client.identity, port)
            if holder.kept is not None:
                _drop(holder.kept, holder.client.source, port)
                self.kept -= holder.kept is self._kept
        if port.state is State.GONE:
            del self._holders[port]
            return
        self._holders[port] = None
        if port.state is State.FREE:
            return
        client, kept = port.client, None
        if port.state is State.PARKED:
            kept = self._left if port.taken_over else self._kept
        self._holders[port] = _Holder(client, kept)
        self._by_client.setdefault(client, {})[port] = None
        if client.identity is not None:
            self._by_identity.setdefault(client.identity, {})[port] = None
        if kept is not None:
            kept.setdefault(client.source, {})[port] = None
            self.kept += kept is self._kept


def _longest_in(kept: _Kept, bridge: str | None, but: Port | None) -> Port | None:
    """As PortTable.kept_longest(), of those in this bridge apart from one."""
    here = ([port for port in ports if port.origin.bridge == bridge and port is not but] for ports in kept.values())
    return _first_of_most(here)


def _first_of_most(kept: Iterable[Collection[Port]]) -> Port | None:
    """The first port of the source that has most."""
    most: Collection[Port] = max(kept, key=len, default=())
    return next(iter(most), None)


K = TypeVar("K")


def _drop(index: dict[K, dict[Port, None]], key: K, port: Port) -> None:
    del index[key][port]
    if not index[key]:
        del index[key]
