"""Settings: which values are accepted, and which are refused with the name of the option."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from etherws.errors import SettingsError
from etherws.settings import ClientSettings, DeviceSettings, Retry, ServerSettings, Trust, parse_header


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"device": "lan", "bridge": "br-lab", "mtu": 9000, "path": "/lab/1"},
        {"device": "a%d", "mtu": 68},
        {"device": "x" * 15, "mtu": 65_521},
    ],
)
def test_good_values_are_kept(values: dict[str, Any]) -> None:
    settings = ServerSettings(**values)
    for key, value in values.items():
        assert getattr(settings, key) == value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"device": "x" * 16}, "--device .* longer than 15"),
        ({"device": "ethernetcards%d%d"}, "--device"),
        ({"device": ""}, "not a valid interface name"),
        ({"device": "a b"}, "not a valid interface name"),
        ({"device": "a/b"}, "not a valid interface name"),
        ({"device": "a:b"}, "not a valid interface name"),
        ({"device": ".."}, "not a valid interface name"),
        ({"bridge": "br%d"}, "--bridge .* not a valid interface name"),
        ({"mtu": 67}, "--mtu 67 is out of range"),
        ({"mtu": 65_522}, "--mtu 65522 is out of range"),
        ({"path": "lab"}, "--path 'lab' is not a path"),
        ({"path": "/lab?x"}, "is not a path"),
        ({"path": "/a b"}, "is not a path"),
        ({"trusted_proxy": ("10.0.0.0/8", "10.0.0.1/8")}, "--trusted-proxy '10.0.0.1/8'"),
        ({"proxy_protocol": True}, "--proxy-protocol needs --trusted-proxy"),
    ],
)
def test_bad_values_are_refused_by_the_option(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ServerSettings(**values)


def test_names_of_files_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"ETHERWS_SERVER_HTPASSWD": "users", "ETHERWS_SERVER_TOKEN_FILE": "t", "ETHERWS_SERVER_POLICY": "/etc/p"}
    found = ServerSettings.from_environ(names)
    assert (found.htpasswd, found.token_file, found.policy) == (f"{tmp_path}/users", f"{tmp_path}/t", "/etc/p")
    with pytest.raises(SettingsError, match="--token-file -: etherws reads this file again"):
        ServerSettings(token_file="-")


def test_settings_come_from_the_environment() -> None:
    assert ServerSettings.from_environ({}) == ServerSettings()
    assert ServerSettings.from_environ({"ETHERWS_SERVER_MTU": "", "ETHERWS_SERVER_PATH": ""}) == ServerSettings()
    names = {"DEVICE": "lan%d", "BRIDGE": "br0", "MTU": "9000", "PATH": "/x", "WIRE": "1", "CONGESTION": "reno"}
    found = ServerSettings.from_environ({f"ETHERWS_SERVER_{key}": value for key, value in names.items()})
    assert found == ServerSettings("lan%d", "br0", 9000, wire=1, congestion="reno", path="/x")


def test_proxies_come_from_the_environment() -> None:
    assert ServerSettings.from_environ({"ETHERWS_SERVER_MONITOR_CLIENTS": "yes"}).monitor_clients
    names = {"ETHERWS_SERVER_TRUSTED_PROXY": " unix  10.0.0.0/8 ", "ETHERWS_SERVER_PROXY_PROTOCOL": "Yes"}
    found = ServerSettings.from_environ(names)
    assert (found.trusted_proxy, found.proxy_protocol) == (("unix", "10.0.0.0/8"), True)
    assert not ServerSettings.from_environ({"ETHERWS_SERVER_PROXY_PROTOCOL": "0"}).proxy_protocol
    assert ServerSettings.from_environ({"ETHERWS_SERVER_ACCEPT_RA": "1"}).accept_ra
    assert not ServerSettings().accept_ra
    assert ServerSettings().padding
    assert not ServerSettings.from_environ({"ETHERWS_SERVER_PADDING": "no"}).padding
    with pytest.raises(SettingsError, match="ETHERWS_SERVER_PROXY_PROTOCOL 'maybe' is neither yes nor no"):
        ServerSettings.from_environ({"ETHERWS_SERVER_PROXY_PROTOCOL": "maybe"})


@pytest.mark.parametrize("mtu", ["many", "-1", "1.5", "\u00b2"])
def test_an_mtu_in_the_environment_that_is_not_a_number_is_refused(mtu: str) -> None:
    with pytest.raises(SettingsError, match="ETHERWS_SERVER_MTU"):
        ServerSettings.from_environ({"ETHERWS_SERVER_MTU": mtu})


@pytest.mark.parametrize("key", ["ping_interval", "ping_timeout", "carrier_timeout"])
@pytest.mark.parametrize("value", [-1.0, 0.0999, 86_401.0, math.inf, math.nan])
def test_a_time_to_wait_for_the_peer_is_bounded(key: str, value: float) -> None:
    option = "--" + key.replace("_", "-")
    with pytest.raises(SettingsError, match=f"{option} .* s is out of range; choose 0.1 to 86400 s"):
        ServerSettings(**{key: value})  # type: ignore[arg-type]


def test_only_the_ping_timeout_must_not_be_zero() -> None:
    settings = DeviceSettings(ping_interval=0, carrier_timeout=0)
    assert (settings.ping_interval, settings.carrier_timeout) == (0, 0)
    with pytest.raises(SettingsError, match="--ping-timeout 0 s"):
        DeviceSettings(ping_timeout=0)


def test_times_in_the_environment_have_units() -> None:
    names = {"PING_INTERVAL": "500ms", "PING_TIMEOUT": "2.5", "CARRIER_TIMEOUT": "1m"}
    found = ServerSettings.from_environ({f"ETHERWS_SERVER_{key}": value for key, value in names.items()})
    assert (found.ping_interval, found.ping_timeout, found.carrier_timeout) == (0.5, 2.5, 60.0)
    with pytest.raises(SettingsError, match="ETHERWS_SERVER_PING_TIMEOUT: 'soon' is not a duration; write 20s"):
        ServerSettings.from_environ({"ETHERWS_SERVER_PING_TIMEOUT": "soon"})


@pytest.mark.parametrize("values", [{"wire": 0}, {"wire": 3}, {"congestion": ""}, {"congestion": "b/r"}], ids=str)
def test_unknown_wires_and_congestion_controls_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values))}"):
        DeviceSettings(**values)


def test_devices_and_waits_have_defaults() -> None:
    assert DeviceSettings().device == "ethws%d"
    times = DeviceSettings().ping_interval, DeviceSettings().ping_timeout, DeviceSettings().carrier_timeout
    assert times == (20.0, 10.0, 30.0)
    assert (Retry().first_wait, Retry().longest_wait, Retry().attempt_timeout) == (0.5, 30.0, 10.0)


@pytest.mark.parametrize("values", [(0.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
def test_waits_that_make_no_sense_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match="must be above zero"):
        Retry(*values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Host: example.com", ("Host", "example.com")),
        ("X-Token:  a: b\tc ", ("X-Token", "a: b\tc")),
        ("X:", ("X", "")),
    ],
)
def test_a_header_is_parsed(text: str, expected: tuple[str, str]) -> None:
    assert parse_header(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3cr3t", "--header is malformed; write 'Name: value'"),
        (": s3cr3t", "is malformed"),
        ("X : s3cr3t", "is malformed"),
        ("X\r\nY: s3cr3t", "is malformed"),
        ("X: s3cr3t\r\nY: z", "--header X: its value has an unprintable"),
        ("X: s3cr3t\n", "unprintable"),
        ("X: s3cr3t\0", "unprintable"),
        ("X: s3cr3t\udcff", "unprintable"),
        ("upgrade: s3cr3t", "--header upgrade is a part of the WebSocket handshake"),
        ("Connection: s3cr3t", "is a part of the WebSocket handshake"),
        ("Sec-WebSocket-Protocol: s3cr3t", "is a part of the WebSocket handshake"),
        ("Content-Length: 7", "is a part of the WebSocket handshake"),
    ],
)
def test_an_unusable_header_is_refused_and_not_shown(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_header(text)
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


# The last value that is accepted, the first that is not.


@pytest.mark.parametrize(
    "values",
    [{"device": "é" * 8}, {"device": "a\tb"}, {"device": "a\nb"}, {"device": "."}, {"bridge": ""}, {"path": "/#a"}],
    ids=["16 bytes in 8 letters", "tab", "newline", "dot", "empty bridge", "fragment"],
)
def test_more_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values))}"):
        ServerSettings(**values)


def test_the_first_wait_may_be_the_longest() -> None:
    assert Retry(first_wait=30.0, longest_wait=30.0).first_wait == 30.0


@pytest.mark.parametrize("option", ["device", "bridge"])
@pytest.mark.parametrize(
    "name",
    [os.fsdecode(b"eth\xff"), "a\0b", "\u00e0", "a\u00a0"],
    ids=["not UTF-8", "NUL", "a letter with byte a0", "no-break space is refused already"],
)
def test_a_name_that_the_kernel_cannot_take_is_a_settings_error(option: str, name: str) -> None:
    names: dict[str, Any] = {option: name}
    with pytest.raises(SettingsError, match=f"--{option}"):
        ServerSettings(**names)


def test_an_mtu_of_thousands_of_digits_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        ServerSettings.from_environ({"ETHERWS_SERVER_MTU": "9" * 5000})


def test_a_timeout_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="--connect-timeout"):
        Retry(attempt_timeout=math.nan)


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://example.com", "HTTP://example.com:8080/", "moz-extension://abc", "a+b.c-1://x"]
)
def test_origins_are_accepted(origin: str) -> None:
    assert ServerSettings(allow_origin=(origin,)).allow_origin == (origin,)


@pytest.mark.parametrize("origin", ["", "example.com", "https://", "https://example.com/path", "https:// x", "1://x"])
def test_what_is_not_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"--allow-origin .* is not an origin; write https://HOST, or \* for all"):
        ServerSettings(allow_origin=("*", origin))


def test_a_port_is_kept_for_no_time_or_longer() -> None:
    assert ServerSettings(resume_timeout=0).resume_timeout == 0
    with pytest.raises(SettingsError, match=r"--resume-timeout -0\.1 s must not be below zero"):
        ServerSettings(resume_timeout=-0.1)


def test_an_ethernet_address_and_its_folder_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = ServerSettings.from_environ(
        {
            "ETHERWS_SERVER_MAC": "0200.0000.00AB",
            "ETHERWS_SERVER_STATE_DIR": "state",
            # No option: how this link is told from others is not the user's to say.
            "ETHERWS_SERVER_LINK": "elsewhere",
        }
    )
    assert (found.mac, found.state_dir, found.link) == ("02:00:00:00:00:ab", f"{tmp_path}/state", "")
    assert (DeviceSettings(state_dir="").state_dir, DeviceSettings().state_dir) == ("", None)
    assert (DeviceSettings.role, ClientSettings().role, ServerSettings().role) == ("", "client", "server")


@pytest.mark.parametrize(
    ("text", "words"),
    [("br0", "--mac 'br0' is not a MAC address"), ("ff:ff:ff:ff:ff:ff", "group"), ("0:0:0:0:0:0", "of no machine")],
)
def test_what_is_no_address_of_one_machine_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ClientSettings(mac=text)


def test_trust_names_its_files() -> None:
    assert Trust().files == (None, None, None)
    assert Trust("a", certfile="b", keyfile="c").files == ("a", "b", "c")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keyfile": "k"}, "--keyfile needs --certfile as well"),
        ({"insecure": True, "cacert": "c"}, "--insecure verifies nothing, so --cacert has no effect"),
    ],
)
def test_trust_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Trust(**values)


@pytest.mark.parametrize(
    ("drop", "guards"),
    [
        ((), set()),
        (("bpdu",), {"bpdu"}),
        (("bpdu", "dhcp-server"), {"bpdu", "dhcp-server"}),
        (("dhcp-server, router-advertisement,", "bpdu"), {"bpdu", "dhcp-server", "router-advertisement"}),
        (("",), set()),
    ],
)
def test_what_the_client_drops_is_named_singly_or_as_a_list(drop: tuple[str, ...], guards: set[str]) -> None:
    assert ClientSettings(drop=drop).guards == guards


@pytest.mark.parametrize("drop", ["dhcp", "bpdu dhcp-server", "bpdu,arp", "BPDU"])
def test_what_the_client_drops_is_known(drop: str) -> None:
    with pytest.raises(SettingsError, match=r"--drop .* is not known; choose from bpdu, dhcp-server, router-adv"):
        ClientSettings(drop=(drop,))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"connections": 0}, "--connections 0 is out of range; choose 1 to 16"),
        ({"connections": 17}, "--connections 17 is out of range; choose 1 to 16"),
        ({"max_age": 9.9}, "--max-age 9.9 s is out of range; choose 10 to 86400 s, or 0 to replace none"),
        ({"max_age": -1.0}, "--max-age -1 s is out of range"),
        ({"max_age": float("nan")}, "--max-age nan s is out of range"),
        ({"max_age": 1e6}, r"--max-age 1e\+06 s is out of range"),
    ],
)
def test_connections_and_their_age_have_bounds(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ClientSettings(**values)
    assert ClientSettings(connections=16, max_age=10.0).connections == 16
