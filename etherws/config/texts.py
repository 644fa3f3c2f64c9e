"""The configuration files that ``etherws init`` writes: short, with a comment for each thing. Pure.

Read next: configuration.py, which reads them; cli/init/server.py and cli/init/client.py, which write them.
"""

from __future__ import annotations

import json

from etherws.errors import SettingsError, printable


def server(name: str, path: str, values: dict[str, str | int | None]) -> str:
    """A server's file, at `path`. `values` are those of its options; None is left out. Who may join comes first: half
    of the file, as a full disk leaves it, lets nobody else in. Raises SettingsError."""
    path = _shown(path)
    return f"""\
# etherws server {name}: each option of etherws server --help can stand here, by its name without --.
# After a change: etherws check {path}
# and a restart: systemctl restart etherws-server@{name}

# Who may join. One more client: etherws init server {name} --client NAME
{_line("token-file", values)}
# TLS: the certificate, and its private key.
{_line("certfile", values)}{_line("keyfile", values)}
# Where it listens, on all addresses; address = "192.0.2.1" is one of them.
{_line("port", values)}
# The bridge that all clients join; it is made if it is not there.
{_line("bridge", values, "br0")}{_line("device", values, "ethws%d")}
# What each client may do on the LAN: see docs/policy.rst.
#policy = "{name}.policy.toml"
"""


def client(name: str, path: str, values: dict[str, str | int | None]) -> str:
    """A client's file, as for server()."""
    path = _shown(path)
    verified = (
        "# The server is known by its key, and by no authority: only the server that has this key is talked to.\n"
        f"{_line('pinnedpubkey', values)}insecure = true\n"
        if values.get("pinnedpubkey")
        else '# The server\'s certificate is verified by the authorities of this system.\n#cacert = "ca.crt"\n'
    )
    return f"""\
# etherws client {name}: each option of etherws client --help can stand here, by its name without --.
# After a change: etherws check {path}
# and a restart: systemctl restart etherws-client@{name}

# The server. Several in a list are tried in their order.
{_line("uri", values)}
{verified}
# The secret by which the server lets this client in.
{_line("token-file", values)}
# The bridge that the far LAN joins; it is made if it is not there.
{_line("bridge", values, "br0")}{_line("device", values, "ethws%d")}
# What this LAN does not accept from the far one.
#drop = ["dhcp-server", "router-advertisement"]
"""


def _line(key: str, values: dict[str, str | int | None], example: str = "") -> str:
    """A key with its value; without one, the example in a comment."""
    value = values.get(key)
    if value is None:
        return f"#{key} = {json.dumps(example)}\n" if example else ""
    if isinstance(value, str) and not _is_utf8(value):
        raise SettingsError(f"--{key} {printable(value)} is not UTF-8, as a configuration is; give it another name")
    # What JSON writes is TOML, too, but for DEL (TOML 1.0, "String").
    return f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007F")


def _shown(path: str) -> str:
    """For a comment: a line's end in it would end the comment, too."""
    return "".join(char if char.isprintable() else "?" for char in path)


def _is_utf8(text: str) -> bool:
    """Bytes of the command line that are not UTF-8 come as surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
