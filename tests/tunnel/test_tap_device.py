"""Opening a TAP with one queue or several: whose it is, and what it can have."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys

import pytest
import pytun

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.tunnel import tap_device, tap_driver
from etherws.tunnel.tap import Tap
from tests.lab.hosts import Host

MINE = pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_MULTI_QUEUE


@pytest.mark.parametrize("made", ["", " multi_queue user root"])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_persistent_device_is_used_as_its_user_has_made_it(host: Host, made: str, wanted: bool) -> None:
    host.command(f"ip tuntap add mine mode tap{made}")
    with host.namespace.inside(), contextlib.closing(Tap("mine", multi_queue=wanted)) as tap:
        assert tap.persistent
        assert tap.multi_queue is bool(made)
        if made:
            with contextlib.closing(tap.queue()) as queue:
                assert (queue.name, queue.index, queue.multi_queue) == ("mine", tap.index, True)
        else:
            with pytest.raises(DeviceError, match="mine can have one queue only; make it with 'multi_queue'"):
                tap.queue()
    assert "mine" in host.links()


@pytest.mark.parametrize("wanted", [False, True])
def test_a_device_that_is_made_has_several_queues_if_that_is_wanted(host: Host, wanted: bool) -> None:
    with host.namespace.inside(), contextlib.closing(Tap(multi_queue=wanted)) as tap:
        assert (tap.multi_queue, tap.persistent) == (wanted, False)


def test_the_kernel_would_let_two_processes_share_a_device_and_etherws_does_not(host: Host) -> None:
    host.command("ip tuntap add mine mode tap multi_queue")
    with host.namespace.inside(), contextlib.closing(pytun.TunTapDevice(name="mine", flags=MINE)):
        for wanted in (False, True):
            with pytest.raises(DeviceError, match="cannot create mine: Device or resource busy; "):
                Tap("mine", multi_queue=wanted)
            with contextlib.closing(Tap("ethws%d", multi_queue=wanted)) as first:
                assert first.name == "ethws0"
                for other in (False, True):
                    with contextlib.closing(Tap("ethws%d", multi_queue=other)) as second:
                        assert second.name == "ethws1"


def test_who_takes_a_device_over_at_the_same_moment_is_seen(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.command("ip tuntap add mine mode tap multi_queue")
    counts = itertools.cycle(((0, True), (2, True)))
    monkeypatch.setattr(interfaces, "tap_queues", lambda name: next(counts))
    with host.namespace.inside():
        with pytest.raises(DeviceError, match="mine: Device or resource busy"):
            Tap("mine")
        monkeypatch.undo()
        assert interfaces.tap_queues("mine") == (0, False)


def test_a_device_whose_user_has_just_ended_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps it in use while somebody looks at the descriptor of its last user."""
    attach, tries, busy = tap_device._attach, [], 3

    def attach_later(name: str, flags: int) -> int:
        tries.append(name)
        if len(tries) <= busy:
            raise OSError(errno.EBUSY, "busy")
        return attach(name, flags)

    monkeypatch.setattr(tap_device, "_attach", attach_later)
    host.command("ip tuntap add mine mode tap")
    with host.namespace.inside():
        with contextlib.closing(Tap("mine")):
            assert len(tries) == busy + 1
        tries, busy = [], 1000
        with pytest.raises(DeviceError, match="mine: Device or resource busy; another process has it"):
            Tap("mine")
        assert len(tries) < 10


def test_a_device_that_a_process_has_is_not_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_device, "_PAUSE", None)
    with host.namespace.inside(), contextlib.closing(Tap("mine")), pytest.raises(DeviceError, match="busy"):
        Tap("mine")


def test_an_interface_of_another_kind_has_no_queues(host: Host) -> None:
    host.command("ip tuntap add layer3 mode tun multi_queue")
    host.bridge("br0")
    with host.namespace.inside():
        for name, words in (("layer3", "cannot create layer3: Invalid argument"), ("br0", "of another kind")):
            for wanted in (False, True):
                with pytest.raises(DeviceError, match=words):
                    Tap(name, multi_queue=wanted)


def test_a_queue_is_one_of_the_same_device(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel makes a device where there is none of that name."""
    with host.namespace.inside(), contextlib.closing(Tap("ethws0", multi_queue=True)) as tap:
        with pytest.raises(DeviceError, match="other was renamed or deleted while one more queue was opened"):
            tap_device.open_queue("other", tap.index)
        assert "other" not in host.links()
        host.command("ip link set ethws0 name lan0")
        with contextlib.closing(tap.queue()) as queue:
            assert (queue.name, queue.index) == ("lan0", tap.index)

        def index_of(name: str) -> int:
            host.delete_link(name)
            raise DeviceError("no such interface")

        monkeypatch.setattr(interfaces, "index_of", index_of)
        with pytest.raises(DeviceError, match="was it deleted"):
            tap.queue()


def test_a_device_in_another_network_namespace_has_no_further_queue(hosts: tuple[Host, Host]) -> None:
    with hosts[0].namespace.inside(), contextlib.closing(Tap("ethws0", multi_queue=True)) as tap:
        hosts[0].set_link("ethws0", net_ns_fd=hosts[1].namespace.fileno())
        with pytest.raises(DeviceError, match="ethws0 is in another network namespace"):
            tap.queue()
        assert "ethws0" not in hosts[0].links()


def test_more_queues_than_the_kernel_allows_are_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(name: str, flags: int) -> int:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    with host.namespace.inside(), contextlib.closing(Tap(multi_queue=True)) as tap:
        monkeypatch.setattr(tap_device, "_attach", attach)
        with pytest.raises(DeviceError, match="cannot open one more queue: cannot create ethws0: Argument list too"):
            tap.queue()


@pytest.mark.usefixtures("tun_for_all")
def test_no_other_user_can_open_a_queue_of_a_device_that_is_made(host: Host) -> None:
    """The kernel lets everybody, if a device has no owner."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    with host.namespace.inside(), contextlib.closing(Tap("mine", multi_queue=True)):
        assert interfaces.tap_queues("mine") == (1, True)
        code = "import os, pytun; os.setuid(4242); pytun.TunTapDevice(name='mine', flags=int(sys.argv[1]))"
        process = host.run(sys.executable, "-c", f"import sys; {code}", str(MINE | pytun.IFF_VNET_HDR))
        assert process.ends() == 1
        assert "Operation not permitted" in process.output


def test_who_could_listen_at_a_device_without_an_owner_is_said(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    for name, owner in (("mine", ""), ("ours", " user root"), ("grouped", " group root")):
        host.command(f"ip tuntap add {name} mode tap multi_queue{owner}")
        with host.namespace.inside():
            Tap(name).close()
    (message,) = caplog.messages
    assert message.startswith("mine belongs to no user, so each user of this machine can open a queue")
    assert message.endswith("make it by 'ip tuntap add mine mode tap multi_queue user root'")


def test_a_device_that_cannot_have_an_owner_is_not_made(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def set_owner(fd: int, user: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(tap_driver, "set_owner", set_owner)
    with host.namespace.inside(), pytest.raises(DeviceError, match="Invalid argument"):
        Tap("mine", multi_queue=True)
    assert "mine" not in host.links()


#: Opens the device as a user without capabilities, and one more queue; says what became of it.
AS_USER = """
import os, sys
from etherws.errors import DeviceError
from etherws.tunnel.offloads import Offload
from etherws.tunnel.tap import Tap
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
try:
    tap = Tap("mine", multi_queue=True)
    queue = tap.queue()
    queue.detach()
    queue.attach()
    tap.begin(offload=Offload.TCP)
    print("queues of", queue.name)
except DeviceError as exc:
    print(exc)
"""


@pytest.mark.usefixtures("tun_for_all")
@pytest.mark.parametrize(
    ("user", "words"), [(4242, "queues of mine"), (4243, "cannot create mine: Operation not permitted")]
)
def test_its_owner_needs_no_capabilities_for_its_queues(host: Host, user: int, words: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    host.command("ip tuntap add mine mode tap multi_queue user 4242")
    host.set_link("mine", state="up")
    process = host.run(sys.executable, "-c", AS_USER, str(user))
    process.says(words)
    assert process.ends() == 0
