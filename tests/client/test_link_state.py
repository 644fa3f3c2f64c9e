"""How the client's link is, in each of its states."""

from __future__ import annotations

from etherws.client.link_state import CONNECTED, CONNECTING, STOPPING, WAITING, LinkState
from etherws.errors import ConnectError, NotAdmitted


class Clock:
    """Seconds that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def test_a_link_from_its_start_to_its_end() -> None:
    clock = Clock()
    link = LinkState("ws://a", clock=clock, epoch=lambda: 5.0)
    assert (link.state, link.not_ready()) == (CONNECTING, "not connected to ws://a yet")
    nothing = {"server": "ws://a", "proxy": None, "last_error": None, "last_error_at": None, "next_attempt": None}
    nothing["last_error_kind"] = None
    assert link.values() == {**nothing, "attempts": 0, "reconnects": 0}

    link.attempt()
    link.trying("ws://b", "http://proxy:3128")
    assert link.failure("no answer") == {
        "server": "ws://b", "reason": "no answer", "proxy": "http://proxy:3128", "attempts": 1,
    }  # fmt: skip
    link.failed(ConnectError("ws://b: no answer"))
    link.waiting(4.0)
    clock.now += 1
    values = link.values()
    assert (link.state, values["next_attempt"], values["last_error"], values["last_error_at"]) == (
        WAITING, 3.0, "ws://b: no answer", 5.0,
    )  # fmt: skip
    assert link.not_ready() == "not connected: ws://b: no answer"
    assert values["last_error_kind"] == "unreachable"
    link.failed(NotAdmitted("ws://b: no"))
    assert link.values()["last_error_kind"] == "refused"
    link.failed(ConnectError("ws://b: no answer"))
    clock.now += 9
    assert link.values()["next_attempt"] == 0.0

    link.attempt()
    assert link.values()["attempts"] == 2
    link.trying("ws://a", "")
    assert link.connected() == {"server": "ws://a", "proxy": None, "attempts": 2, "reconnects": 0}
    assert (link.state, link.not_ready(), link.values()["attempts"]) == (CONNECTED, "", 0)
    # Why it was not there before can still be read.
    assert link.values()["last_error"] == "ws://b: no answer"

    lost = link.lost("closed", 1012, 20.0)
    assert lost == {"server": "ws://a", "proxy": None, "reason": "closed", "code": 1012, "seconds": 20.0}
    assert link.values()["last_error_kind"] == "lost"
    link.attempt()
    assert link.connected()["reconnects"] == 1

    link.stopping()
    assert (link.state, link.not_ready()) == (STOPPING, "the client is stopping")
    # What was under way goes on for a moment.
    link.waiting(1.0)
    assert link.state == STOPPING
