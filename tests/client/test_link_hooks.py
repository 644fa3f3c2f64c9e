"""Which programs a link runs, by a queue that records them."""

from __future__ import annotations

import pytest

from etherws.client import link_hooks
from etherws.client.link_hooks import LinkHooks
from etherws.hooks.facts import Facts
from etherws.settings import ClientSettings
from etherws.tap_settings import TapSettings

ran: list[tuple[str, str]] = []
told: list[Facts] = []


class Queue:
    """In place of Hooks."""

    def __init__(self, _: TapSettings) -> None:
        ran.clear()
        told.clear()

    def add(self, hook: str, reason: str, facts: Facts) -> None:
        ran.append((hook, reason))
        told.append(facts)

    def finish(self) -> None:
        ran.append(("", ""))


def test_up_and_down_run_once_and_what_is_between_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_hooks, "Hooks", Queue)
    settings = ClientSettings(bridge="br0", inet=("10.9.0.2/24",))
    hooks = LinkHooks(settings, up=False)
    hooks.connected("lan0", "192.0.2.1")
    hooks.lost("lan0")
    hooks.connected("lan1", "192.0.2.1")
    assert hooks.up
    hooks.stop("lan1")
    assert ran == [("up", "connected"), ("change", "lost"), ("change", "connected"), ("down", "stopped"), ("", "")]
    assert told[2] == Facts("client", "lan1", "br0", "192.0.2.1", addresses=("10.9.0.2/24",))
    # It was never up; and the process before had it up.
    LinkHooks(settings, up=False).stop("lan0")
    assert ran == [("", "")]
    again = LinkHooks(settings, up=True)
    again.connected("lan0", "x")
    assert ran == [("change", "connected")]
