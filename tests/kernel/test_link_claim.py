"""Who links a bridge to a server already: two claims, by sockets that vanish with their process."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator

import gevent
import pytest

from etherws.errors import AlreadyLinked
from etherws.kernel import link_claim
from etherws.kernel.link_claim import LinkClaim
from tests.lab.hosts import PATIENCE, Host, until

SERVER = "server.example:443/"


@pytest.fixture
def machine(host: Host) -> Iterator[Host]:
    """The test runs on it."""
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        yield host


@pytest.fixture
def first(machine: Host) -> Iterator[LinkClaim]:
    """It links br0 to SERVER."""
    made = LinkClaim()
    made.claim("br0", "ethws%d", [SERVER])
    yield made
    made.close()


@pytest.fixture
def second(first: LinkClaim) -> Iterator[LinkClaim]:
    made = LinkClaim()
    yield made
    made.close()


def test_a_second_link_is_refused_with_the_process_and_what_to_do(second: LinkClaim) -> None:
    with pytest.raises(AlreadyLinked) as caught:
        second.claim("br0", "ethws%d", ["other.example:80/", SERVER])
    assert str(caught.value) == (
        f"process {os.getpid()} links br0 to {SERVER} already, and a second link would make a loop; stop that one first"
        f" (kill {os.getpid()}), or turn spanning tree on (ip link set br0 type bridge stp_state 1), or give"
        " --allow-second-link"
    )
    assert caught.value.exit_status == 73
    # A refused client keeps no claim of its own.
    free = link_claim._taken(link_claim._address("br0", "other.example:80/"))
    assert free is not None
    free.close()


def test_many_who_ask_are_all_refused(second: LinkClaim) -> None:
    """As cron does that starts a client each minute."""
    for _ in range(5 * link_claim.BACKLOG):
        with pytest.raises(AlreadyLinked):
            second.claim("br0", "ethws%d", [SERVER])
        gevent.sleep(link_claim.ANSWER_INTERVAL)


@pytest.mark.parametrize(("bridge", "server"), [("br1", SERVER), ("br0", "server.example:443/other"), (None, SERVER)])
def test_another_bridge_or_another_server_is_another_link(second: LinkClaim, bridge: str | None, server: str) -> None:
    second.claim(bridge, "ethws%d", [server])


def test_a_second_link_on_purpose_is_let_in(second: LinkClaim, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")
    second.claim("br0", "ethws%d", [SERVER, SERVER], second=True)
    assert caplog.messages == [f"process {os.getpid()} links br0 to {SERVER} already; this is a second link"]


def test_a_second_link_is_let_in_where_spanning_tree_is_on(machine: Host, second: LinkClaim) -> None:
    machine.bridge("br0")
    with pytest.raises(AlreadyLinked):
        second.claim("br0", "ethws%d", [SERVER])
    machine.command("ip link set br0 type bridge stp_state 1")
    second.claim("br0", "ethws%d", [SERVER])


def test_without_a_bridge_it_is_the_one_that_the_device_is_in(machine: Host, second: LinkClaim) -> None:
    machine.command("ip link add name tun7 type veth peer name far-tun7")
    second.claim(None, "tun7", [SERVER])
    machine.bridge("br0", "tun7")
    with pytest.raises(AlreadyLinked):
        second.claim(None, "tun7", [SERVER])


def test_one_that_is_stopping_is_waited_for(first: LinkClaim, second: LinkClaim) -> None:
    first.leave()
    stopped = gevent.spawn_later(2 * link_claim.POLL_INTERVAL, first.close)
    second.claim("br0", "ethws%d", [SERVER])
    assert stopped.dead


def test_one_that_does_not_end_keeps_nobody_out(
    first: LinkClaim, second: LinkClaim, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does anybody else who takes the name and does not listen."""
    monkeypatch.setattr(link_claim, "STOPPING", 0.1)
    first.leave()
    second.claim("br0", "ethws%d", [SERVER])
    assert caplog.messages == [
        f"whether br0 is linked to {SERVER} already cannot be found: a process that has the name that says so does not"
        " answer"
    ]


def test_another_user_of_this_machine_keeps_nobody_out(
    second: LinkClaim, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link_claim, "_holder", lambda _: (77, 12_345))
    second.claim("br0", "ethws%d", [SERVER])
    [message] = caplog.messages
    assert message.endswith("already cannot be found: user 12345 has taken the name that says so")


def test_a_process_that_was_killed_has_no_claim(machine: Host) -> None:
    code = (
        "import gevent; from etherws.kernel.link_claim import LinkClaim; claim = LinkClaim();"
        f"claim.claim('br0', '', [{SERVER!r}]); print('claimed'); gevent.sleep(100)"
    )
    process = machine.run(sys.executable, "-c", code)
    process.says("claimed")
    claim = LinkClaim()
    with pytest.raises(AlreadyLinked, match=f"process {process.pid} links"):
        claim.claim("br0", "ethws%d", [SERVER])
    process.signal(signal.SIGKILL)
    process.ends()
    claim.claim("br0", "ethws%d", [SERVER])
    claim.close()


def test_where_there_can_be_no_such_socket_it_goes_on(
    machine: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with RestrictAddressFamilies= of systemd."""

    def refuse(_: str) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(link_claim, "_taken", refuse)
    LinkClaim().claim("br0", "ethws%d", [SERVER])
    [message] = caplog.messages
    assert message.endswith("cannot be found: Address family not supported by protocol")


def test_a_full_queue_names_nobody(machine: Host) -> None:
    """Whoever fills it can only have a second link let in."""
    address = link_claim._address("br0", SERVER)
    held = link_claim._taken(address)
    assert held is not None
    machine.keep(held)
    until(lambda: link_claim._holder(address) is None, "the queue to be full")


def test_a_container_that_is_not_seen_has_no_number(second: LinkClaim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_claim, "_holder", lambda _: (0, 0))
    with pytest.raises(AlreadyLinked, match=r"another process links br0 .* stop that one first, or turn"):
        second.claim("br0", "ethws%d", [SERVER])
