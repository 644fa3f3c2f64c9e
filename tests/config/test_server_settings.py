"""The settings of a server in gunicorn, by a file and by variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.config.server_settings import VARIABLE, from_environ
from etherws.errors import ConfigError, SettingsError
from etherws.settings import ServerSettings


def test_without_a_file_the_environment_counts() -> None:
    assert from_environ({"ETHERWS_SERVER_MTU": "1400", VARIABLE: ""}) == ServerSettings(mtu=1400)


def test_variables_come_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lan.toml").write_text(
        'mtu = 1400\nping-interval = "5s"\ncheck = false\ntrusted-proxy = ["unix", "10.0.0.0/8"]\nbridge = "br1"\n'
        'token-file = "lan.tokens"\npolicy = "/etc/policy.toml"\nhtpasswd = "credential:users"\nstate-dir = ""\n'
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    monkeypatch.chdir(tmp_path)
    assert from_environ({VARIABLE: "lan.toml", "ETHERWS_SERVER_BRIDGE": "br0"}) == ServerSettings(
        mtu=1400,
        ping_interval=5.0,
        check=False,
        trusted_proxy=("unix", "10.0.0.0/8"),
        bridge="br0",
        token_file=str(tmp_path / "lan.tokens"),
        policy="/etc/policy.toml",
        htpasswd="/run/credentials/x/users",
        state_dir="",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('certfile = "x"', "lan.toml:1:1: certfile is gunicorn's own here: leave it out, and give gunicorn --certfile"),
        ("bridg = 1", "lan.toml:1:1: unknown key 'bridg'; is it bridge?"),
        ("ping_interval = 1", "unknown key 'ping_interval'; is it ping-interval?"),
        ("link = 1", "unknown key 'link'"),
        ('mtu = "many"', "lan.toml:1:7: --mtu 'many' is not a number"),
        ("mtu = 1979-05-27", "lan.toml:1:7: mtu is a text or a number; write it in quotes"),
        # A number for True would be VLAN 1, and a bridge of this name.
        ("vlan = true", "lan.toml:1:8: vlan is a text or a number"),
        ("bridge = true", "lan.toml:1:10: bridge is a text or a number"),
        ("trusted-proxy = [true]", "lan.toml:1:17: trusted-proxy is a text or a number"),
        ("policy = 1", "lan.toml:1:10: policy is the name of a file; write it in quotes"),
        # Nothing would be no policy, and no tokens.
        ("policy = []", "lan.toml:1:10: policy has one value, and no list"),
        ("token-file = []", "lan.toml:1:14: token-file has one value, and no list"),
        ('device = ["a", "b"]', "lan.toml:1:10: device has one value, and no list"),
        ('check = "false"', "lan.toml:1:9: check is a switch; write true or false, without quotes"),
        ("\nmtu = 3", "lan.toml:2:7: --mtu 3 is out of range"),
    ],
)
def test_mistakes_have_their_place(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "lan.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        from_environ({VARIABLE: str(tmp_path / "lan.toml")})
    assert words in str(caught.value)


def test_a_file_of_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lan.toml").write_text('monitor-token-file = "tokens"\nmonitor = 9402')
    (tmp_path / "tokens").touch(0o604)
    with pytest.raises(ConfigError, match=rf"lan.toml:1:22: .* chmod o-rw {tmp_path}/tokens"):
        from_environ({VARIABLE: str(tmp_path / "lan.toml")})
    (tmp_path / "tokens").chmod(0o640)
    assert from_environ({VARIABLE: str(tmp_path / "lan.toml")}).monitor_token_file == str(tmp_path / "tokens")


def test_a_mistake_of_a_variable_is_none_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "lan.toml").write_text("mtu = 1500")
    with pytest.raises(SettingsError, match=r"^--mtu 3 is out of range"):
        from_environ({VARIABLE: str(tmp_path / "lan.toml"), "ETHERWS_SERVER_MTU": "3"})
