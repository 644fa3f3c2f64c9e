"""Settings: what is taken, and what is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from etherws.errors import SettingsError
from etherws.settings import DeviceSettings, Retry, ServerSettings, parse_header


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
        ({"device": ""}, "no interface name"),
        ({"device": "a b"}, "no interface name"),
        ({"device": "a/b"}, "no interface name"),
        ({"device": "a:b"}, "no interface name"),
        ({"device": ".."}, "no interface name"),
        ({"bridge": "br%d"}, "--bridge .* no interface name"),
        ({"mtu": 67}, "--mtu 67 is out of range"),
        ({"mtu": 65_522}, "--mtu 65522 is out of range"),
        ({"path": "lab"}, "--path 'lab' is no path"),
        ({"path": "/lab?x"}, "is no path"),
        ({"path": "/a b"}, "is no path"),
        ({"trusted_proxy": ("10.0.0.0/8", "10.0.0.1/8")}, "--trusted-proxy '10.0.0.1/8'"),
        ({"proxy_protocol": True}, "--proxy-protocol needs --trusted-proxy"),
    ],
)
def test_bad_values_are_refused_by_the_option(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ServerSettings(**values)


def test_settings_come_from_the_environment() -> None:
    assert ServerSettings.from_environ({}) == ServerSettings()
    assert ServerSettings.from_environ({"ETHERWS_SERVER_MTU": "", "ETHERWS_SERVER_PATH": ""}) == ServerSettings()
    names = {"DEVICE": "lan%d", "BRIDGE": "br0", "MTU": "9000", "PATH": "/x", "WIRE": "1", "CONGESTION": "reno"}
    found = ServerSettings.from_environ({f"ETHERWS_SERVER_{key}": value for key, value in names.items()})
    assert found == ServerSettings("lan%d", "br0", 9000, wire=1, congestion="reno", path="/x")


def test_proxies_come_from_the_environment() -> None:
    names = {"ETHERWS_SERVER_TRUSTED_PROXY": " unix  10.0.0.0/8 ", "ETHERWS_SERVER_PROXY_PROTOCOL": "Yes"}
    found = ServerSettings.from_environ(names)
    assert (found.trusted_proxy, found.proxy_protocol) == (("unix", "10.0.0.0/8"), True)
    assert not ServerSettings.from_environ({"ETHERWS_SERVER_PROXY_PROTOCOL": "0"}).proxy_protocol
    with pytest.raises(SettingsError, match="ETHERWS_SERVER_PROXY_PROTOCOL 'maybe' is neither yes nor no"):
        ServerSettings.from_environ({"ETHERWS_SERVER_PROXY_PROTOCOL": "maybe"})


@pytest.mark.parametrize("mtu", ["many", "-1", "1.5", "\u00b2"])
def test_an_mtu_in_the_environment_that_is_no_number_is_refused(mtu: str) -> None:
    with pytest.raises(SettingsError, match="ETHERWS_SERVER_MTU"):
        ServerSettings.from_environ({"ETHERWS_SERVER_MTU": mtu})


@pytest.mark.parametrize("key", ["ping_interval", "ping_timeout", "carrier_timeout"])
@pytest.mark.parametrize("value", [-1.0, 0.0999, 86_401.0, math.inf, math.nan])
def test_a_time_to_wait_for_the_peer_is_bounded(key: str, value: float) -> None:
    option = "--" + key.replace("_", "-")
    with pytest.raises(SettingsError, match=f"{option} .* s is out of range; choose 0.1 to 86400 s"):
        ServerSettings(**{key: value})  # type: ignore[arg-type]


def test_nothing_need_be_waited_for_but_an_answer() -> None:
    settings = DeviceSettings(ping_interval=0, carrier_timeout=0)
    assert (settings.ping_interval, settings.carrier_timeout) == (0, 0)
    with pytest.raises(SettingsError, match="--ping-timeout 0 s"):
        DeviceSettings(ping_timeout=0)


def test_times_in_the_environment_have_units() -> None:
    names = {"PING_INTERVAL": "500ms", "PING_TIMEOUT": "2.5", "CARRIER_TIMEOUT": "1m"}
    found = ServerSettings.from_environ({f"ETHERWS_SERVER_{key}": value for key, value in names.items()})
    assert (found.ping_interval, found.ping_timeout, found.carrier_timeout) == (0.5, 2.5, 60.0)
    with pytest.raises(SettingsError, match="ETHERWS_SERVER_PING_TIMEOUT: 'soon' is no duration; write 20s"):
        ServerSettings.from_environ({"ETHERWS_SERVER_PING_TIMEOUT": "soon"})


@pytest.mark.parametrize("values", [{"wire": 0}, {"wire": 3}, {"congestion": ""}, {"congestion": "b/r"}], ids=str)
def test_what_is_no_wire_or_congestion_control_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values))}"):
        DeviceSettings(**values)


def test_devices_and_waits_have_defaults() -> None:
    assert DeviceSettings().device == "ethws%d"
    times = DeviceSettings().ping_interval, DeviceSettings().ping_timeout, DeviceSettings().carrier_timeout
    assert times == (20.0, 10.0, 30.0)
    assert (Retry().first, Retry().most, Retry().timeout) == (0.5, 30.0, 10.0)


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
def test_a_header_is_taken_apart(text: str, expected: tuple[str, str]) -> None:
    assert parse_header(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3cr3t", "--header is no header; write 'Name: value'"),
        (": s3cr3t", "is no header"),
        ("X : s3cr3t", "is no header"),
        ("X\r\nY: s3cr3t", "is no header"),
        ("X: s3cr3t\r\nY: z", "--header X: there is an unprintable"),
        ("X: s3cr3t\n", "unprintable"),
        ("X: s3cr3t\0", "unprintable"),
        ("X: s3cr3t\udcff", "unprintable"),
        ("upgrade: s3cr3t", "--header upgrade belongs to the handshake"),
        ("Connection: s3cr3t", "belongs to the handshake"),
        ("Sec-WebSocket-Protocol: s3cr3t", "belongs to the handshake"),
        ("Content-Length: 7", "belongs to the handshake"),
    ],
)
def test_a_header_that_will_not_do_is_refused_and_not_shown(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_header(text)
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
