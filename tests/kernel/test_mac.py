"""Addresses that stay, and that no two machines share: what changes one, and what does not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from etherws.kernel import mac, machine
from etherws.kernel.mac import Addresses
from etherws.kernel.state_folder import StateFolder

#: Two cards of one machine; its clone has another card.
CARDS = ["id 52:54:00:00:00:01", "id 52:54:00:00:00:02"]
CLONE = ["id 52:54:00:00:00:03"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What tells this machine from others."""
    found = list(CARDS)
    monkeypatch.setattr(machine, "identities", lambda: list(found))
    return found


def addresses(
    folder: Path | str = "", *, role: str = "client", link: str = "server:80/", given: str | None = None
) -> Addresses:
    """As after a start."""
    return Addresses(role, link, given, StateFolder(str(folder)))


def test_an_address_stays_with_and_without_a_folder(here: list[str], tmp_path: Path) -> None:
    first = addresses(tmp_path).first("ethws0")
    assert first == addresses(tmp_path).first("ethws0") == addresses().first("ethws0")
    assert (tmp_path / "client-ethws0.json").exists()
    bridge = addresses(tmp_path).first_bridge("br0")
    assert bridge == addresses(tmp_path).first_bridge("br0") == addresses().first_bridge("br0")
    assert addresses().further("ethws1") == addresses(tmp_path).further("ethws1")
    assert addresses().further_bridge("br1") == addresses(tmp_path).further_bridge("br1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["client-br0.json", "client-ethws0.json"]


def test_addresses_are_of_one_machine_and_local_and_a_port_never_gives_its_own_to_a_bridge(here: list[str]) -> None:
    port, bridge = addresses().first("ethws0"), addresses().first_bridge("br0")
    assert port is not None
    assert (port[:3], bridge[:3]) == ("fe:", "02:")
    for address in (port, bridge):
        assert int(address[:2], 16) & 3 == 2


def test_whatever_tells_links_apart_changes_the_address(here: list[str]) -> None:
    found = {
        addresses().first("ethws0"),
        addresses().further("ethws1"),
        addresses(role="server").first("ethws0"),
        addresses(link="other:80/").first("ethws0"),
    }
    here[:] = CLONE
    found.add(addresses().first("ethws0"))
    assert len(found) == 5


def test_a_card_more_or_less_does_not_change_a_kept_address(here: list[str], tmp_path: Path) -> None:
    """A dongle may be the first today, and gone tomorrow."""
    before = addresses(tmp_path).first("ethws0")
    here[:] = ["id 00:00:00:00:00:01", *CARDS]
    assert addresses(tmp_path).first("ethws0") == before
    assert addresses().first("ethws0") != before


def test_a_clone_with_the_same_folder_makes_its_own_and_keeps_it(
    here: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "etherws")
    before = addresses(tmp_path).first("ethws0")
    here[:] = CLONE
    assert before != addresses(tmp_path).first("ethws0") == addresses(tmp_path).first("ethws0")
    assert [record.getMessage() for record in caplog.records] == [
        "ethws0 gets an address of its own: client-ethws0.json was made on another machine, for another link,"
        " or in a container that was new"
    ]


def test_a_machine_that_has_no_file_yet_and_one_that_has_it_damaged_get_the_same(
    here: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = addresses(tmp_path).first("ethws0")
    file = tmp_path / "client-ethws0.json"
    for damaged in ("{", json.dumps({**json.loads(file.read_text()), "address": "01:00:00:00:00:01"})):
        file.write_text(damaged)
        assert addresses(tmp_path).first("ethws0") == before
    assert "client-ethws0.json is not used: its address is the address of a group of machines" in caplog.text


def test_a_later_way_to_derive_addresses_changes_none_that_is_kept(
    here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = addresses(tmp_path).first("ethws0")
    monkeypatch.setattr(mac, "PORT", 0xFA)
    assert addresses(tmp_path).first("ethws0") == before


def test_a_file_is_read_once(here: list[str], tmp_path: Path) -> None:
    """A TAP that was deleted is made again by a process that may have lost the right to read."""
    one = addresses(tmp_path)
    before = one.first("ethws0")
    (tmp_path / "client-ethws0.json").write_text("{}")
    here[:] = CLONE
    assert one.first("ethws0") == before


def test_a_given_address_comes_before_all_and_a_persistent_interface_keeps_its_own_without(here: list[str]) -> None:
    given = addresses(given="52:54:00:00:00:09")
    assert given.first("ethws0") == given.first("tap0", persistent=True) == "52:54:00:00:00:09"
    assert given.first_bridge("br0") == "52:54:00:00:00:09"
    assert given.further("ethws1") == addresses().further("ethws1")
    assert given.further("tap1", persistent=True) is addresses().first("tap0", persistent=True) is None


def test_the_machines_id_is_not_in_the_file(here: list[str], tmp_path: Path) -> None:
    addresses(tmp_path).first("ethws0")
    assert "id 52" not in (tmp_path / "client-ethws0.json").read_text()
