"""TAPs that go: many with one message to the kernel, and each is gone when close() returns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import gevent
import pytest

from etherws.kernel import links
from etherws.tunnel import tap_removal
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_removal import AT_ONCE
from tests.lab.hosts import PATIENCE, Host


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The interfaces of each message."""
    found: list[list[int]] = []
    delete = links.delete

    def counted(indexes: Sequence[int], sock: Any) -> None:
        found.append([*indexes])
        delete(indexes, sock)

    monkeypatch.setattr(links, "delete", counted)
    return found


def test_many_that_go_at_once_are_removed_together(host: Host, told: list[list[int]]) -> None:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        taps = [Tap() for _ in range(3 * AT_ONCE)]
        stays = Tap()
        gevent.joinall([gevent.spawn(tap.close) for tap in taps], raise_error=True)
        assert set(host.links()) == {"lo", stays.name}
        stays.close()
        stays.close()
    assert set(host.links()) == {"lo"}
    assert sorted(index for some in told for index in some) == sorted([*(tap.index for tap in taps), stays.index])
    # The first one goes alone: it does not wait for others.
    assert len(told) <= 1 + 3 + 1
    assert max(map(len, told)) == AT_ONCE


def test_at_the_end_more_are_removed_at_once(host: Host, told: list[list[int]]) -> None:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        tap_removal.finish()
        taps = [Tap() for _ in range(3 * AT_ONCE)]
        closing = [gevent.spawn(tap.close) for tap in taps]
        gevent.sleep(0)
        tap_removal.finish()
        assert set(host.links()) == {"lo"}
        gevent.joinall(closing, raise_error=True)
    # The first ones were on their way already.
    assert len(told) <= 2 + 1
    assert max(map(len, told)) > AT_ONCE


def test_one_that_another_process_has_open_too_is_removed(host: Host) -> None:
    with host.namespace.inside():
        tap = Tap("ours")
        other = os.dup(tap.fileno())
        tap.close()
        assert "ours" not in host.links()
        os.close(other)


def test_who_may_not_delete_closes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(links, "delete", refuse)
    with host.namespace.inside():
        Tap("ours").close()
    assert "ours" not in host.links()


@pytest.mark.parametrize("how", ["gone", "elsewhere", "no descriptor"])
def test_strangers_are_left_alone(host: Host, told: list[list[int]], monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """One of ours that is gone, or in another network namespace, has no index here."""
    with contextlib.closing(Host()) as guest, host.namespace.inside():
        tap = Tap("ours")
        if how == "gone":
            host.delete_link("ours")
        elif how == "elsewhere":
            with host.netlink() as route:
                route.link("set", index=tap.index, net_ns_fd=guest.namespace.fileno())
                route.link("add", ifname="ours", kind="bridge", index=tap.index)
        else:

            def refuse() -> Any:
                raise OSError(24, "Too many open files")

            monkeypatch.setattr(links, "request_socket", refuse)
        tap.close()
        assert told == []
        assert ("ours" in host.links()) == (how == "elsewhere")
        assert "ours" not in guest.links()
