"""Which programs a server runs for its ports, by a queue that records them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from etherws.access.policy import Profile
from etherws.hooks.facts import Facts
from etherws.server.port import ClientKey, Origin, State
from etherws.server.port_hooks import PortHooks
from etherws.settings import DeviceSettings


class Queue:
    """In place of Hooks."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, str | None]] = []
        self.told: list[Facts] = []

    def add(self, hook: str, reason: str, facts: Facts, own: str | None) -> None:
        self.ran.append((hook, reason, own))
        self.told.append(facts)

    def finish(self) -> None:
        self.ran.append(("", "", None))


class Made(SimpleNamespace):
    """A port, which is known by itself."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def port(client: ClientKey, state: State = State.IN_USE, profile: Profile = Profile()) -> Any:  # noqa: B008
    tap = SimpleNamespace(name="ethws1")
    return Made(tap=tap, origin=Origin("ethws%d", "br0", None), client=client, state=state, profile=profile)


ALICE, BOB = ClientKey("alice", address="192.0.2.2"), ClientKey("bob", address="192.0.2.3")


def test_up_and_down_bracket_what_a_client_has() -> None:
    queue = Queue()
    hooks = PortHooks(DeviceSettings(inet=("10.9.0.1/24",)), queue)  # type: ignore[arg-type]
    one = port(ALICE)
    hooks.note(one)
    hooks.note(one)
    one.state = State.PARKED
    hooks.note(one)
    one.state = State.IN_USE
    hooks.note(one)
    one.profile = Profile(up="/u", down="", change="/c")
    hooks.note(one)
    one.client = BOB
    hooks.note(one)
    one.state = State.FREE
    hooks.note(one)
    hooks.note(one)
    hooks.gone(one)
    hooks.close()
    assert queue.ran == [
        ("up", "connected", None),
        ("change", "lost", None),
        ("change", "connected", None),
        ("change", "policy", "/c"),
        ("down", "left", ""),
        ("up", "connected", "/u"),
        ("down", "left", ""),
        ("", "", None),
    ]
    assert queue.told[0] == Facts("server", "ethws1", "br0", "192.0.2.2", "alice", ("10.9.0.1/24",))
    assert [facts.identity for facts in queue.told[4:]] == ["alice", "bob", "bob"]


def test_what_the_last_process_has_begun_is_not_begun_again() -> None:
    queue = Queue()
    hooks = PortHooks(DeviceSettings(), queue)  # type: ignore[arg-type]
    one = port(ALICE, State.PARKED)
    hooks.take_over(one)
    hooks.note(one)
    one.state = State.IN_USE
    hooks.note(one)
    assert queue.ran == [("change", "connected", None)]
