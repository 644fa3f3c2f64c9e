"""Secrets of all kinds, planted in a server and its clients, are on no surface: nor in the logs at level debug."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from etherws.access import passwd
from tests.lab.doors import ask, login, monitor_of
from tests.lab.hosts import Host, until
from tests.lab.peer import basic


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_secret_shows(host: Host, control_folder: str, tmp_path: Path, workers: str) -> None:
    word = {
        name: f"planted{name}{hashlib.sha256(name.encode()).hexdigest()[:20]}"
        for name in ("password", "wrong", "query", "header", "proxy", "scraper")
    }
    folder = Path(control_folder) / f"secrets-{workers}"
    folder.mkdir(mode=0o755)
    passwords, tokens = tmp_path / "passwords", tmp_path / "tokens"
    passwd.set_password(passwords, "alice", word["password"], cost=4)
    tokens.write_text(word["scraper"] + "\n")
    tokens.chmod(0o600)
    stored = passwords.read_text().partition(":")[2].strip()
    control, second, third = (folder / name for name in ("s", "c", "p"))
    server = host.etherws(
        "server", "--foreground", "--bridge", "br0", "--port", "99", "--workers", workers, "--log-level", "debug",
        "--htpasswd", str(passwords), "--control", str(control), "--monitor", "9402",
        "--monitor-token-file", str(tokens),
    )  # fmt: skip
    server.says("listening on")
    debug = ("--foreground", "--log-level", "debug", "--header", f"X-Api-Key: {word['header']}")
    uri = f"ws://alice:{word['password']}@127.0.0.1:99/?key={word['query']}"
    client = host.etherws("client", *debug, "--device", "c0", "--control", str(second), uri)
    client.says("connected to")
    by_proxy = host.etherws(
        "client", *debug, "--device", "p0", "--control", str(third), "--proxy",
        f"http://user:{word['proxy']}@127.0.0.1:1", uri,
    )  # fmt: skip
    by_proxy.says("cannot connect to")
    # A stranger, and requests that are none.
    wrong = basic(f"alice:{word['wrong']}".encode())
    port, cookie = login(host, control)
    word["cookie"] = cookie.partition("=")[2]
    token = ask(control, "POST /page").json["address"].partition("token=")[2]
    word["once"] = token
    scrape = basic(f"any:{word['scraper']}".encode())
    assert ask(monitor_of(host, port), "GET /status", Authorization=scrape).status == 200
    assert ask(monitor_of(host, port), "GET /status", Authorization=wrong).status == 401
    assert ask(monitor_of(host, port), f"GET /login?token={token} x").status == 400
    words = {*word.values(), stored, *(value.split()[1] for value in (scrape, wrong))}
    words.add(basic(f"alice:{word['password']}".encode()).split()[1])
    shown: dict[str, str] = {}
    for path in (control, second, third):
        for what in ("/status", "/events", "/metrics", "/history"):
            shown[f"{path.name} {what}"] = ask(path, f"GET {what}").body.decode()
    shown["page"] = ask(monitor_of(host, port), "GET /", Cookie=cookie).body.decode()
    until(lambda: "alice" in ask(control, "GET /status").body.decode(), "the session in the status")
    shown["server"], shown["client"], shown["by proxy"] = server.output, client.output, by_proxy.output
    for process in (client, by_proxy, server):
        process.stop()
    shown["at the end"] = server.output + client.output + by_proxy.output
    found = {(where, each) for where, text in shown.items() for each in words if each in text}
    assert not found
