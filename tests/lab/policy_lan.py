"""A server with a bridge and a policy, and clients made of bare sockets: frames from one to the other."""

from __future__ import annotations

from pathlib import Path

from etherws.access import passwd
from tests.lab.frames import frame
from tests.lab.hosts import OURS, Host
from tests.lab.peer import Peer, asked, basic, masked, request

NAMES = ("alice", "bob", "carol")


class Lan:
    """A server with a bridge and a policy; alice, bob and carol have their name for a password."""

    def __init__(self, host: Host, folder: Path, policy: str, *options: str) -> None:
        self.host, self.policy = host, folder / "policy.toml"
        self.policy.write_text(policy or "# nothing\n")
        for name in NAMES:
            passwd.set_password(folder / "passwords", name, name, cost=4)
        self.server = host.etherws(
            "server", "--foreground", "--debug", "--address", "127.0.0.1", "--bridge", "br0",
            "--htpasswd", str(folder / "passwords"), "--policy", str(self.policy), *options,
        )  # fmt: skip
        self.server.says("listening")

    def join(self, name: str, **headers: str) -> Peer:
        """A client made of a bare socket, joined."""
        peer = Peer(self.host)
        peer.say(request(Authorization=basic(f"{name}:{name}"), **headers))
        head = peer.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer

    def refused(self, name: str) -> tuple[bytes, bytes]:
        """The status line and the answer that this name gets."""
        return asked(self.host, Authorization=basic(f"{name}:{name}"))


def says(peer: Peer, data: bytes) -> None:
    """Send a frame."""
    peer.say(masked(0x82, data))


def hears(peer: Peer, data: bytes) -> None:
    """Wait for a frame of the tests' own, and see that it is this one."""
    while (got := peer.frame())[0] != 0x82 or not got[1].startswith(OURS, 6):
        pass
    assert got[1] == data


def hears_at_last(peer: Peer, data: bytes) -> None:
    """Wait for this frame, whatever comes before it."""
    while (got := peer.frame())[0] != 0x82 or got[1] != data:
        pass


def closed(peer: Peer) -> tuple[int, bytes]:
    """Wait for the Close; its code and reason."""
    while (got := peer.frame())[0] != 0x88:
        pass
    return int.from_bytes(got[1][:2], "big"), got[1][2:]


def source(number: int, size: int = 100) -> bytes:
    """A broadcast from one of many addresses."""
    data = frame(size, to=b"\xff" * 6)
    return data[:6] + OURS + number.to_bytes(3, "big") + data[12:]
