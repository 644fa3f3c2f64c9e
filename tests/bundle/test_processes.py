"""Processes of etherws: what is shown of their options, and which secrets are learned from these."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.bundle.processes import Process, learn, named_files, processes, shown
from etherws.bundle.redaction import Redactor


def fake(root: Path, pid: int, *arguments: str, **environment: str) -> None:
    """A process in a /proc of the test's."""
    (root / str(pid)).mkdir()
    (root / str(pid) / "cmdline").write_text("\0".join(arguments) + "\0")
    (root / str(pid) / "environ").write_text("".join(f"{name}={value}\0" for name, value in environment.items()))
    (root / str(pid) / "limits").write_text("Max open files 1024\n")
    (root / str(pid) / "status").write_text("Name:\tx\nVmRSS:\t7 kB\nUid:\t0\n")


def test_ours_are_found(tmp_path: Path) -> None:
    fake(tmp_path, 1, "/sbin/init")
    fake(tmp_path, 10, "/usr/bin/python3", "/usr/local/bin/etherws", "server", ETHERWS_SERVER_PORT="80", HOME="/root")
    fake(tmp_path, 11, "python3", "-m", "etherws", "client", "ws://h/")
    fake(tmp_path, 12, "python3", "-m", "etherws.workers", "1")
    fake(tmp_path, 13, "vi", "etherws")
    (tmp_path / "14").mkdir()
    (tmp_path / "self").mkdir()
    found = processes(tmp_path, {"ETHERWS_CLIENT_URI": "ws://h/", "PATH": "/bin", "https_proxy": "http://p:1"})
    assert [process.pid for process in found] == [0, 10, 11, 12] or sorted(p.pid for p in found) == [0, 10, 11, 12]
    assert found[0].environment == {"ETHERWS_CLIENT_URI": "ws://h/", "https_proxy": "http://p:1"}
    server = next(process for process in found if process.pid == 10)
    assert server.environment == {"ETHERWS_SERVER_PORT": "80"}
    assert processes(tmp_path / "none") == []


def test_this_machine() -> None:
    assert all(process.pid for process in processes())


SECRETS = ("hunter2", *(f"geheim{each}" for each in "123456789ab"))


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """A client that has a secret wherever it may have one."""
    (tmp_path / "token").write_text("geheim5\n")
    (tmp_path / "headers").write_text("X-Auth: geheim6\n@again\n")
    (tmp_path / "passwd").write_text("bob:geheim9\n")
    (tmp_path / "policy").write_text('[client."carol"]\nmacs = 1\n')
    return Process(
        7,
        (
            *("etherws", "client", "wss://alice:hunter2@h.example:8443/x?token=geheim1", "--user", "dave:geheim2"),
            *(
                "-H",
                "Authorization: Bearer geheim3",
                "--header=X-Key: geheim4",
                "-ueve:geheim2",
                "--proxy",
                "http://p.example",
                "--proxy=heidi:geheima@s.example:3128",
            ),
            *(
                "--token-file",
                str(tmp_path / "token"),
                "-H",
                f"@{tmp_path / 'headers'}",
                "-HX-Other: geheim4",
                "--user",
            ),
        ),
        {
            "ETHERWS_CLIENT_PASSWORD": "geheim7",
            "ETHERWS_CLIENT_TOKEN": "geheim7",
            "ETHERWS_CLIENT_USER": "frank",
            "ETHERWS_CLIENT_HEADER": "X-A: geheim4\nX-B: geheim4",
            "ETHERWS_CLIENT_NOPROXY": "intern.example",
            "ETHERWS_CLIENT_CONNECT_TO": "c.example:443",
            "ETHERWS_CLIENT_TOKEN_FILE": str(tmp_path / "token"),
            "ETHERWS_SERVER_POLICY": str(tmp_path / "policy"),
            "ETHERWS_SERVER_HTPASSWD": str(tmp_path / "passwd"),
            "https_proxy": "http://grace:geheim8@q.example:3128",
            "all_proxy": "ivan:geheimb@t.example:3128",
            "no_proxy": ".corp.example, r.example",
        },
    )


def test_each_secret_of_the_options_is_learned(process: Process, tmp_path: Path) -> None:
    redactor = Redactor()
    learn(redactor, [process])
    said = redactor.text(" ".join(SECRETS))
    assert not any(secret in said for secret in SECRETS)
    names = redactor.text(
        "alice; bob; carol; dave; frank; grace; heidi; ivan;"
        " h.example; intern.example; q.example; c.example; r.example; s.example; t.example"
    )
    assert [word.rpartition("-")[0] for word in names.split("; ")] == ["client"] * 8 + ["host"] * 7


def test_what_is_shown_has_no_secret(process: Process, tmp_path: Path) -> None:
    fake(tmp_path, 7, "x")
    redactor = Redactor()
    learn(redactor, [process])
    found = shown(process, redactor, tmp_path)
    said = str(found)
    assert not any(secret in said for secret in SECRETS), said
    assert not any(f"{name}.example" in said for name in ("h", "p", "q", "c", "s", "t", "intern"))
    assert found["limits"] == ["Max open files 1024"]
    assert found["status"] == ["VmRSS:\t7 kB"]
    assert "Authorization: secret-" in said
    assert found["environment"]["ETHERWS_CLIENT_TOKEN_FILE"] == str(tmp_path / "token")
    assert shown(Process(0, (), {}), redactor)["limits"]


def test_files_that_are_named(process: Process, tmp_path: Path) -> None:
    assert named_files([process, process]) == [
        ("policy", str(tmp_path / "policy")),
        ("htpasswd", str(tmp_path / "passwd")),
        ("token_file", str(tmp_path / "token")),
    ]


def test_files_that_cannot_be_read_are_no_error(tmp_path: Path) -> None:
    redactor = Redactor()
    nothing = str(tmp_path / "none")
    environment = {f"ETHERWS_SERVER_{name}": nothing for name in ("POLICY", "HTPASSWD", "TOKEN_FILE")}
    learn(redactor, [Process(7, ("etherws", "client", "-H", f"@{nothing}", "http://[bad"), environment)])


def test_what_a_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("geheim5\n")
    (tmp_path / "headers").write_text("X-Auth: geheim6\n")
    (tmp_path / "policy.toml").write_text('[client."carol"]\nmacs = 1\n')
    config = tmp_path / "lan.toml"
    config.write_text(
        'uri = ["wss://alice:hunter2@h.example/?t=geheim1"]\nuser = "dave:geheim2"\ntoken-file = "token"\n'
        'header = ["X-Key: geheim3", "@headers"]\npolicy = "policy.toml"\nport = 80\n'
    )
    process = Process(7, ("etherws", "client", "--config", "lan.toml"), {}, str(tmp_path))
    redactor = Redactor()
    learn(redactor, [process])
    found = shown(process, redactor, tmp_path)["configuration"]
    text = redactor.text(f"{found} geheim5 geheim6 carol alice")
    assert not [word for word in (*SECRETS, "carol", "alice", "dave") if word in text]
    assert found["port"] == ["80"]
    assert ("policy", str(tmp_path / "policy.toml")) in named_files([process])
    by_unit = Process(8, ("etherws", "server"), {"ETHERWS_SERVER_CONFIG": f"-{config}"})
    assert by_unit.options["port"] == ["80"]
    config.write_text("port = ")
    assert by_unit.options == {"config": [f"-{config}"]}
