"""What tells machines from each other: cards, and what containers have instead."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from etherws.errors import DeviceError
from etherws.kernel import interfaces, machine
from tests.lab.hosts import Host

ID = "0123456789abcdef0123456789abcdef"
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"


class Link(dict[str, object]):
    """As pyroute2 has it."""

    def get_nested(self, *names: str) -> object:
        """The kind."""
        return self.get(names[-1])


def card(address: str | None, *, perm: str | None = None, bus: str = "pci", kind: str | None = None) -> Link:
    return Link(ifi_type=1, address=address, IFLA_PERM_ADDRESS=perm, IFLA_PARENT_DEV_BUS_NAME=bus, IFLA_INFO_KIND=kind)


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """What the kernel has."""
    found: list[Link] = [Link(ifi_type=772, address="00:00:00:00:00:00"), card("", kind="veth")]

    class Route:
        def __enter__(self) -> Route:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def link(self, _: str) -> list[Link]:
            return found

    monkeypatch.setattr(interfaces, "netlink", lambda _: Route())
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    return found


@pytest.fixture
def paths(tmp_path: Path) -> tuple[list[str], str]:
    """Files of the machine's ID, and of the boot's."""
    (tmp_path / "id").write_text(f"{ID}\n")
    (tmp_path / "boot").write_text("boot-1\n")
    return [str(tmp_path / "none"), str(tmp_path / "id")], str(tmp_path / "boot")


def test_cards_come_in_an_order_that_lasts(links: list[Link], paths: tuple[list[str], str]) -> None:
    """Not in that of their detection, nor by an address that somebody has set."""
    links += [
        card("52:00:00:00:00:09", perm="52:00:00:00:00:09", bus="usb"),
        card("02:00:00:00:00:03"),
        card("02:11:11:11:11:11", perm=OTHER),
        card(MAC, perm=MAC),
        card("06:00:00:00:00:01", kind="veth"),
        card("06:00:00:00:00:02", kind="tun"),
    ]
    assert machine.identities(*paths) == [
        f"{ID} {address}" for address in (MAC, OTHER, "02:00:00:00:00:03", "52:00:00:00:00:09")
    ]


def test_without_cards_the_start_of_the_kernel_and_the_name_count_too(
    links: list[Link], paths: tuple[list[str], str]
) -> None:
    """Two containers of one image may have the same address on two hosts, or on one by their network's driver."""
    links += [card("06:00:00:00:00:01", kind="veth"), card("06:00:00:00:00:02", kind="bridge")]
    assert machine.identities(*paths) == [f"{ID} boot-1 box 06:00:00:00:00:01"]


def test_without_any_interface_it_is_the_network_namespace(links: list[Link], paths: tuple[list[str], str]) -> None:
    [found] = machine.identities(*paths)
    assert found.startswith(f"{ID} boot-1 box ")
    assert found.split()[-1].isdecimal()


@pytest.mark.parametrize("text", ["", "uninitialized\n", "x" * 1000, "0123"])
def test_an_id_that_is_none_counts_as_none(
    links: list[Link], paths: tuple[list[str], str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "id").write_text(text)
    links.append(card(MAC, perm=MAC))
    assert machine.identities(*paths) == [f" {MAC}"]


def test_a_kernel_that_does_not_answer_is_no_error(
    links: list[Link], paths: tuple[list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise DeviceError("no netlink")

    monkeypatch.setattr(interfaces, "netlink", fail)
    assert len(machine.identities(*paths)) == 1


def test_namespaces_of_one_machine_differ(hosts: tuple[Host, Host]) -> None:
    """Both have a virtual cable; a TAP of theirs does not count."""
    with hosts[0].namespace.inside():
        before = machine.identities()
    hosts[0].command("ip tuntap add tap9 mode tap")
    with hosts[0].namespace.inside():
        assert machine.identities() == before
    with hosts[1].namespace.inside():
        assert not set(machine.identities()) & set(before)
