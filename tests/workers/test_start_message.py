"""The message that a worker is started with: what arrives is what was sent, and junk is refused."""

from __future__ import annotations

import json

import pytest

from etherws.errors import SettingsError
from etherws.settings import ServerSettings
from etherws.workers.start_message import SIZE_MAX, StartMessage, decode

SETTINGS = ServerSettings(bridge="br0", mtu=9000, allow_origin=("https://a", "https://b"), trusted_proxy=("unix",))


@pytest.mark.parametrize("tls", [None, ("/cert", "/key", None), ("/cert", "/key", "/ca")])
def test_what_arrives_is_what_was_sent(tls: tuple[str, str, str | None] | None) -> None:
    sent = StartMessage(3, SETTINGS, tls, 10)
    assert decode(sent.encode()) == sent


def test_settings_that_are_too_long_are_refused() -> None:
    settings = ServerSettings(allow_origin=("https://a",) * SIZE_MAX)
    with pytest.raises(ValueError, match="too long"):
        StartMessage(1, settings).encode()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"5", b"null", b"\xff", b'{"settings": 5}'])
def test_junk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no start message for a worker"):
        decode(data)


def test_settings_of_another_version_are_refused() -> None:
    values = json.loads(StartMessage(1, SETTINGS).encode())
    values["settings"]["warp"] = 9
    with pytest.raises(ValueError, match="warp"):
        decode(json.dumps(values).encode())
    del values["settings"]["warp"]
    values["settings"]["mtu"] = 3
    with pytest.raises(SettingsError):
        decode(json.dumps(values).encode())
