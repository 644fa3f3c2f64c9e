"""``etherws init server``: a server's configuration, its certificate, a token, and the line for the other side.

A second call with the same name changes nothing of that: it makes a token and a line for one more client. Read next:
config/texts.py, the file that it writes; client.py, which takes the line.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from etherws.addresses import authority
from etherws.cli import admin, config_option, offered
from etherws.cli.examples import init_server_notes
from etherws.cli.init import units
from etherws.cli.init.common import SetupName, ask, common_options, file_of, tell
from etherws.cli.number_options import Within
from etherws.cli.sections import Command, flag, option
from etherws.config import texts
from etherws.config.invitation import Invitation
from etherws.config.new_files import NewFiles
from etherws.errors import SettingsError, printable, some_of
from etherws.file_names import absolute
from etherws.settings import ServerSettings
from etherws.small_files import read_file

#: The port of HTTPS: what lets HTTP out lets this out.
PORT = 443

#: Bytes of a certificate file that are read.
_FILE_MAX = 1 << 20

server_sections = {
    "Options": [
        option(
            "--host",
            metavar="HOST[:PORT]",
            help="Let clients reach the server by this name or address.  [default: asked for]",
        ),
        option(
            "--port",
            type=Within(click.IntRange(1, 65535)),
            metavar="PORT",
            help=f"Listen on this TCP port.  [default: that of --host, or {PORT}]",
        ),
        option("--client", metavar="NAME", help="Make a token and a line for this client.  [default: asked for]"),
        flag("--renew", help="Make a new token for a client that has one, which then ends."),
        option(
            "--certfile",
            type=click.Path(),
            metavar="FILE",
            help="Use this certificate with its chain.  [default: one that is made here]",
        ),
        option("--keyfile", type=click.Path(), metavar="FILE", help="Use its private key.  [default: as --certfile]"),
        option(
            "--out",
            type=click.Path(),
            metavar="FILE",
            help="Write the line to this new file, which only you can read.  [default: print it]",
        ),
        *common_options("server"),
    ]
}


@click.command("server", cls=Command, sections=server_sections, notes=init_server_notes)
@click.argument("name", type=SetupName(), default="lan", metavar="[NAME]", shell_complete=offered.set_ups)
@click.pass_context
def init_server(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Set up a server: its file NAME.toml, a certificate, a token.

    Prints the line that etherws init client takes on the other side. It is a secret. NAME is lan by default. Again with
    the same NAME: a line for one more client.
    """
    path = file_of(options["config_dir"], name)
    again = os.path.lexists(path)
    enable = units.wanted(options["enable"], asks=not again)
    out = options["out"]
    with NewFiles() as files, admin.new_file(out) if out else contextlib.nullcontext(admin.print_secret) as deliver:
        values = _present(ctx, path, options) if again else _made(ctx, files, name, path, options)
        _invite(files, name, values, options, deliver)
    if again:
        units.reload("server", name)
    if enable:
        units.enable("server", name, restart=False)
    elif not again:
        tell(f"{path} is written. Start the server: etherws server --config {path}")
        tell(f"or by systemd, also at each boot: {units.later('server', name)}")


def _made(ctx: click.Context, files: NewFiles, name: str, path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write a new set-up; return what the invitation needs of it. Raises SettingsError, and click.UsageError."""
    folder = os.path.dirname(path)
    host, public_port = _host(
        options["host"] or ask("Name or address by which clients reach this server", _own_address())
    )
    port = options["port"] or public_port or PORT
    certfile, keyfile = options["certfile"], options["keyfile"]
    if (certfile is None) != (keyfile is None):
        raise click.UsageError("--certfile and --keyfile belong together")
    bridge = options["bridge"]
    # Who names the host has read which options there are.
    if not (bridge or options["host"]):
        bridge = ask("Bridge that all clients join; empty for none")
    # A mistake is found before anything is written.
    ServerSettings(device=options["device"] or ServerSettings.device, bridge=bridge)
    client = _client(options)
    tokens = os.path.join(folder, f"{name}.tokens")
    if certfile is None:
        from etherws.access.new_certificate import new_certificate

        certificate, key = new_certificate(host)
        files.write(os.path.join(folder, f"{name}.key"), key, 0o600)
        files.write(os.path.join(folder, f"{name}.crt"), certificate, 0o644)
        certfile, keyfile = f"{name}.crt", f"{name}.key"
    else:
        certfile, keyfile = absolute("--certfile", certfile), absolute("--keyfile", keyfile)
    values: dict[str, str | int | None] = {
        "port": port,
        "certfile": certfile,
        "keyfile": keyfile,
        "token-file": f"{name}.tokens",
        "bridge": bridge,
        "device": options["device"],
    }
    files.write(path, texts.server(name, path, values).encode(), 0o640)
    # A key that all can read, for instance, is refused here already, and not at the first start.
    config_option.read_file_as("server", path, ctx)
    pin = _pin(os.path.join(folder, certfile), os.path.join(folder, keyfile), host)
    uri = f"wss://{authority(host, public_port or port)}/"
    return {"uri": uri, "pin": pin, "tokens": tokens, "client": client}


def _present(ctx: click.Context, path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a set-up that is there already. Raises SettingsError."""
    values = config_option.read_file_as("server", path, ctx).params
    given = [f"--{key}" for key in ("certfile", "keyfile", "port", "bridge", "device") if options[key] is not None]
    if given:
        raise SettingsError(f"{path} is there already: change it there, without {given[0]}; or choose another NAME")
    if not (values["certfile"] and values["keyfile"] and values["token_file"]):
        raise SettingsError(f"{path} has no certfile, keyfile or token-file: an invitation needs all three")
    host, port = _host(options["host"] or next(iter(_names_in(values["certfile"])), None))
    uri = f"wss://{authority(host, port or values['port'] or PORT)}{values['path']}"
    pin = _pin(values["certfile"], values["keyfile"], host)
    return {"uri": uri, "pin": pin, "tokens": values["token_file"], "client": _client(options)}


def _invite(
    files: NewFiles, name: str, values: Mapping[str, Any], options: Mapping[str, Any], deliver: Callable[[str], None]
) -> None:
    """Give the client a token, and the user the line. Raises SettingsError."""
    from etherws.access import passwd
    from etherws.access.credential_files import Tokens

    path, client = values["tokens"], values["client"]
    if not os.path.lexists(path):
        files.note(path)
    elif Tokens.load(path).has(client) and not options["renew"]:
        words = "--renew makes a new one, and ends the old; or choose another --client NAME"
        raise SettingsError(f"{path}: {client} has a token already; {words}")
    # Behind a router that forwards another port, for instance, only the user knows the address.
    tell(f"Clients reach this server at {values['uri']}; if that is wrong, give --host HOST:PORT.")
    tell(f"On the other side type etherws init client, and paste this line. It lets {client} in: keep it secret.")

    def invite(token: str) -> None:
        deliver(Invitation(values["uri"], token, values["pin"], name, client, int(time.time())).line())

    # What cannot be delivered is not stored.
    passwd.add_token(path, client, invite, renew=options["renew"])


def _client(options: Mapping[str, Any]) -> str:
    """The name of the client that is invited. Raises CredentialsError."""
    from etherws.access.credential_files import check_name

    client = options["client"] or ask("Name of the client", "client1") or "client1"
    check_name("--client", client)
    return client


def _host(text: str | None) -> tuple[str, int | None]:
    """The host and the port in HOST[:PORT]. Raises SettingsError, and click.UsageError."""
    from etherws.client.uris import split_uri

    if not text:
        raise click.UsageError("name the server as clients reach it: --host HOST")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    try:
        uri, _, _ = split_uri(f"wss://{text}/")
        port = urlsplit(f"wss://{text}/").port
    except (SettingsError, ValueError):
        uri = None
    if uri is None or set(text) & set("/@?#") or not uri.host:
        words = printable(repr(text[:64]))
        raise SettingsError(f"--host {words} is no name and no address; write host.example, 192.0.2.1 or HOST:PORT")
    if "%" in text or uri.host in ("0.0.0.0", "::"):
        raise SettingsError(f"--host {text} is an address that no other machine can connect to; give one of its others")
    return uri.host, port


def _own_address() -> str | None:
    """The address from which this machine reaches others; None if it reaches none. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # An address of the documentation's (RFC 5737): only the route to it is looked up.
            sock.connect(("192.0.2.1", 9))
            return str(sock.getsockname()[0])
    except OSError:
        return None


def _names_in(certfile: str) -> list[str]:
    """The names of a certificate that can be connected to."""
    from etherws.access.certificate_facts import facts_of_file

    facts = facts_of_file(certfile)
    return [name for name in facts.names if "*" not in name] if facts else []


def _pin(certfile: str, keyfile: str, host: str) -> str:
    """The pin of a certificate that signed itself. Empty if an authority has signed it: then clients verify it by that,
    since each renewal may bring another key. Raises SettingsError if the two files cannot be used, or if such a
    certificate is not for this host."""
    from etherws.access.certificate_facts import facts_of_file, pin_of_private_key
    from etherws.access.certificates import server_context
    from etherws.errors import ListenError

    try:
        server_context(certfile, keyfile)
    except ListenError as exc:
        raise SettingsError(str(exc)) from exc
    facts = facts_of_file(certfile)
    if facts and facts.whole_subject != facts.authority:
        # A wildcard stands for one label (RFC 9525, section 6.3).
        if not {host.lower(), f"*.{host.lower().partition('.')[2]}"} & {name.lower() for name in facts.names}:
            names = some_of(facts.names, 5) or "no name"
            raise SettingsError(f"--certfile {certfile} is for {names}: clients would refuse it for {host}; see --host")
        return ""
    return pin_of_private_key(read_file(keyfile, _FILE_MAX))
