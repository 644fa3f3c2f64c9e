"""What can be configured of what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.errors import SettingsError
from etherws.monitoring import SOCKET_PATH_MAX, Monitoring, listen_address
from etherws.settings import ClientSettings, ServerSettings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9402", ("127.0.0.1", 9402)),
        ("0", ("127.0.0.1", 0)),
        ("127.0.0.1:9402", ("127.0.0.1", 9402)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9402", ("::1", 9402)),
        ("[fe80::1%eth0]:9402", ("fe80::1%eth0", 9402)),
        ("[::]:65535", ("::", 65535)),
        ("*:9402", ("*", 9402)),
        ("gateway.example:9402", ("gateway.example", 9402)),
    ],
)
def test_an_address_to_serve_at(text: str, address: tuple[str, int]) -> None:
    assert listen_address("--monitor", text) == address
    # It is written out, so that it reads the same everywhere.
    assert listen_address("--monitor", Monitoring(monitor=text).monitor or "") == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":9402", "127.0.0.1", "127.0.0.1:", "::1:9402", "[::1]", "[]:1", "localhost", "http://127.0.0.1:1"),
        *("127.0.0.1:65536", "99999", "127.0.0.1:94x", "a b:1", "[127.0.0.1:1", "1.2.3:9402", "[::zz]:1", "[:::]:1"),
        *("\u0663:1", "127.0.0.1:\u0663", "[::1]:9402 ", "x\n:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^--monitor "):
        Monitoring(monitor=text)


def test_names_of_files_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = Monitoring(control="a/control", monitor="1", monitor_token_file="tokens")
    assert found.control == f"{tmp_path}/a/control"
    assert found.monitor_token_file == f"{tmp_path}/tokens"
    assert Monitoring(control="").control == ""
    assert Monitoring().monitor is None


def test_a_path_that_no_socket_can_have_is_refused() -> None:
    fits = "/" + "x" * (SOCKET_PATH_MAX - 1)
    assert Monitoring(control=fits).control == fits
    with pytest.raises(SettingsError, match=r"has at most 107 bytes, and this one has 108; choose a shorter one$"):
        Monitoring(control=fits + "x")
    # Bytes count, not letters.
    with pytest.raises(SettingsError, match="this one has 141"):
        Monitoring(control="/" + "ü" * 70)


def test_tokens_are_for_monitor() -> None:
    with pytest.raises(SettingsError, match="--monitor-token-file needs --monitor"):
        Monitoring(monitor_token_file="/tokens")


def test_both_sides_have_it_and_gunicorn_too() -> None:
    assert ClientSettings(monitor="9402").monitor == "127.0.0.1:9402"
    environ = {
        "ETHERWS_SERVER_CONTROL": "/run/x/control",
        "ETHERWS_SERVER_MONITOR": "9402",
        "ETHERWS_SERVER_MONITOR_CLIENTS": "yes",
        "ETHERWS_SERVER_MONITOR_TOKEN_FILE": "/etc/tokens",
    }
    found = ServerSettings.from_environ(environ)
    assert (found.control, found.monitor) == ("/run/x/control", "127.0.0.1:9402")
    assert (found.monitor_token_file, found.monitor_clients) == ("/etc/tokens", True)
