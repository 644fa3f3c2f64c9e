"""The ``etherws`` command: options in, processes started, errors printed. Only this module exits.

Every option can be set in the environment: ETHERWS_SERVER_PORT, ETHERWS_CLIENT_URI, and so on.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from etherws import __version__
from etherws.cli import admin, daemon
from etherws.client.credentials import Login, from_environ, hide, password_in, split
from etherws.client.proxy_choice import Route, parse_connect_to
from etherws.errors import EtherwsError, SettingsError
from etherws.settings import DeviceSettings, Retry, ServerSettings, Trust, duration, parse_header

log = logging.getLogger("etherws")


class Duration(click.ParamType[float]):
    """Seconds, bare or with a unit: 20, 20s, 500ms, 5m, 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds."""
        try:
            return duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Header(click.ParamType[str]):
    """A header, ``Name: value``."""

    name = "header"
    #: In the environment there are several, one a line.
    envvar_list_splitter = "\n"


class Group(click.Group):
    """Shows our own errors as click shows its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is printed and ends the process with its status."""
        try:
            return super().invoke(ctx)
        except EtherwsError as exc:
            raise Failure(exc) from exc


class Failure(click.ClickException):
    """One of our errors, as click shows it."""

    def __init__(self, error: EtherwsError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_status  # type: ignore[misc]


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that server and client share."""
    for option in reversed(
        [
            click.option(
                "--device", default="ethws%d", show_default=True, help="The TAP's name; %d: the first free number."
            ),
            click.option("--bridge", metavar="NAME", help="Put the TAP into this bridge, made if need be."),
            click.option("--mtu", type=int, metavar="BYTES", help="The TAP's MTU.  [default: the kernel's, 1500]"),
            click.option(
                "--wire", type=click.IntRange(1, 2), default=2, show_default=True, help="The newest wire format to use."
            ),
            click.option(
                "--congestion", default="auto", show_default=True, metavar="NAME", help="Of TCP to the other side."
            ),
            click.option(
                "--ping-interval", type=Duration(), default="20s", show_default=True, help="Between pings; 0: none."
            ),
            click.option(
                "--ping-timeout",
                type=Duration(),
                default="10s",
                show_default=True,
                help="For a sign of life after one.",
            ),
            click.option(
                "--carrier-timeout",
                type=Duration(),
                default="30s",
                show_default=True,
                help="Without a link, until the TAP has no carrier; 0: never.",
            ),
            click.option("--foreground", is_flag=True, help="Stay in front and log to standard error."),
            click.option("--pidfile", type=click.Path(dir_okay=False), help="Keep the process's number in this file."),
            click.option("--debug", is_flag=True, help="The same as --log-level debug."),
            click.option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                default="info",
                show_default=True,
                help="How much to log.",
            ),
        ]
    ):
        command = option(command)
    return command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ETHERWS"})
@click.version_option(__version__, prog_name="etherws")
def main() -> None:
    """Ethernet over WebSocket: one LAN across anything that lets HTTP out."""


main.add_command(admin.passwd)
main.add_command(admin.check_policy)


@main.command()
@click.option("--address", help="Listen on this address only, or on unix:/PATH.  [default: all, IPv4 and IPv6]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 picks a free one.  [default: 80, with TLS 443]")
@click.option("--path", default="/", show_default=True, help="The path of the tunnel; others get 404.")
@click.option(
    "--trusted-proxy",
    multiple=True,
    metavar="NETWORK",
    help="Believe these reverse proxies who the client is; unix: those on the UNIX socket. Can be repeated.",
)
@click.option("--proxy-protocol", is_flag=True, help="The trusted proxies speak the PROXY protocol, 1 or 2.")
@click.option("--keyfile", type=click.Path(), help="TLS: the private key, PEM.")
@click.option("--certfile", type=click.Path(), help="TLS: the certificate and its chain, PEM.")
@click.option("--client-ca", type=click.Path(), metavar="FILE", help="Demand a certificate of these authorities, PEM.")
@click.option("--htpasswd", type=click.Path(), metavar="FILE", help="Demand a user and password of this file.")
@click.option("--token-file", type=click.Path(), metavar="FILE", help="Demand a token of this file.")
@click.option("--policy", type=click.Path(), metavar="FILE", help="What each client may do; see check-policy.")
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Admit web pages of this origin; * for all.")
@click.option(
    "--resume-timeout", type=Duration(), default="30s", show_default=True, help="How long to keep a lost client's port."
)
@common
def server(
    address: str | None,
    port: int | None,
    keyfile: str | None,
    certfile: str | None,
    client_ca: str | None,
    **options: Any,
) -> None:
    """Listen for clients; each gets a TAP, the first ethws0. Goes on in the background."""
    from etherws.server import serve as serving
    from etherws.server.application import Application

    settings = ServerSettings(**_pick(ServerSettings, options))
    contexts = None
    if keyfile and certfile:
        contexts = serving.tls_contexts(certfile, keyfile, client_ca)
    elif keyfile or certfile:
        given, missing = ("--keyfile", "--certfile") if keyfile else ("--certfile", "--keyfile")
        raise SettingsError(f"{given} needs {missing} as well")
    elif client_ca:
        raise SettingsError("--client-ca needs TLS: --certfile and --keyfile")
    if port is None:
        port = 443 if contexts else 80
    application = Application(settings)

    def run(ready: Any, stop: Any) -> None:
        serving.serve(application, address=address, port=port, contexts=contexts, ready=ready, stop=stop)

    _run(run, **options)


@main.command()
@click.argument("positional", metavar="[URI]", required=False)
@click.option(
    "--uri", multiple=True, help="The server: ws://HOST[:PORT]/[PATH] or wss://...; of several the first that answers."
)
@click.option("--cacert", type=click.Path(), metavar="FILE|DIR", help="Trust these certificates, not the system's.")
@click.option("--pinnedpubkey", metavar="PINS", help="The server's key: sha256//BASE64;... or a file with it.")
@click.option("--sni", metavar="NAME", help="Ask for this name, and verify it, instead of the URI's.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("--certfile", type=click.Path(), help="TLS: this client's certificate and its chain, PEM.")
@click.option("--keyfile", type=click.Path(), help="TLS: its private key, PEM.  [default: in --certfile]")
@click.option("-u", "--user", metavar="NAME[:PASSWORD]", help="Log in so; asks for the password if need be.")
@click.option("--password-file", type=click.Path(), metavar="FILE", help="The password, in the file's first line.")
@click.option("--token-file", type=click.Path(), metavar="FILE", help="Log in by the token in the file's first line.")
@click.option("-x", "--proxy", metavar="URL", help="By http://, https:// or socks5://.  [default: the environment's]")
@click.option("--noproxy", metavar="LIST", help="Hosts, domains and networks without proxy; * for all.")
@click.option("--connect-to", metavar="HOST:PORT", help="Connect there instead of to the URI's host.")
@click.option("-4", "--ipv4", is_flag=True, help="Use IPv4 only.")
@click.option("-6", "--ipv6", is_flag=True, help="Use IPv6 only.")
@click.option("-H", "--header", type=Header(), multiple=True, metavar="'NAME: VALUE'", help="Add to the request.")
@click.option(
    "--retry-on-auth-failure/--no-retry-on-auth-failure", "refused", default=True, help="Else ends with status 77."
)
@click.option("--connect-timeout", type=Duration(), default="10s", show_default=True, help="For one attempt.")
@click.option("--retry-interval", type=Duration(), default="0.5s", show_default=True, help="Before the second attempt.")
@click.option("--max-retry-interval", type=Duration(), default="30s", show_default=True, help="The longest wait.")
@common
def client(
    positional: str | None,
    uri: tuple[str, ...],
    connect_timeout: float,
    retry_interval: float,
    max_retry_interval: float,
    refused: bool,
    pinnedpubkey: str | None,
    header: tuple[str, ...],
    **options: Any,
) -> None:
    """Connect ethws0 to a server, and again whenever it is lost. Goes on in the background."""
    from etherws.access.certificates import parse_pins
    from etherws.client import attempt as connecting
    from etherws.client import reconnect as running

    if positional and uri and (positional,) != uri:
        raise click.UsageError("name the server once: as an argument or by --uri; name several by --uri alone")
    if not (positional or uri):
        raise click.UsageError("which server? Say --uri ws://HOST/")
    settings = DeviceSettings(**_pick(DeviceSettings, options))
    retry = Retry(retry_interval, max_retry_interval, connect_timeout, refused)
    trust = Trust(**_pick(Trust, options), pins=parse_pins(pinnedpubkey) if pinnedpubkey else frozenset())
    route, headers = _route(**options), [parse_header(text) for text in header]
    connectors = []
    for each in uri or (str(positional),):
        where, user, password = connecting.parse(each)
        login = _login(options, each, user, password)
        connectors.append(
            connecting.Connector(
                where, settings, route=route, trust=trust, login=login, headers=headers, timeout=connect_timeout
            )
        )
    if trust.insecure and not trust.pins:
        click.echo("warning: --insecure: the server's certificate is not verified; anyone between can read", err=True)
    if any(connector.exposes for connector in connectors):
        click.echo("warning: without TLS anyone between can read the password or token; use wss://", err=True)
    _run(running.Client(connectors, settings, retry).run, **options)


def _route(
    *, proxy: str | None, noproxy: str | None, connect_to: str | None, ipv4: bool, ipv6: bool, **_: Any
) -> Route:
    """The client's way to the server."""
    if ipv4 and ipv6:
        raise click.UsageError("--ipv4 or --ipv6, not both")
    elsewhere = parse_connect_to(connect_to) if connect_to else None
    return Route(proxy, noproxy, elsewhere, 4 if ipv4 else 6 if ipv6 else 0, os.environ)


def _login(options: dict[str, Any], uri: str, user: str | None, password: str | None) -> Login:
    """The client's credentials, from wherever they were given; what is in the URI yields to the options."""
    given, file, token_file = options["user"], options["password_file"], options["token_file"]
    hide([password_in(uri), password_in(options["proxy"] or ""), split(given)[1] if given else None])
    if given is not None:
        user, password = split(given)
    known, token = from_environ(os.environ)
    if file or token_file:
        password = None
    elif user is not None and password is None:
        password = known
        if password is None:
            if not sys.stdin.isatty():
                raise SettingsError(
                    f"no password for the user {user!r}; give --password-file, or ETHERWS_CLIENT_PASSWORD"
                )
            password = click.prompt(f"Password of {user}", hide_input=True, err=True)
    return Login(user, password, file, None if user is not None or token_file else token, token_file)


@main.command()
@click.option("--seconds", type=click.FloatRange(0.1, 20), default=3, show_default=True, help="Of TCP throughput.")
def demo(seconds: float) -> None:
    """Show a link between two virtual hypervisors, in network namespaces of its own."""
    from etherws.cli import demo as showing

    showing.run(seconds)


def _pick(settings: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that are fields of this dataclass."""
    return {field.name: options[field.name] for field in fields(settings) if field.name in options}


def _run(body: daemon.Main, *, foreground: bool, pidfile: str | None, debug: bool, log_level: str, **_: Any) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    # Ours alone: pyroute2 writes pages at the debug level.
    log.setLevel(logging.DEBUG if debug else log_level.upper())
    if foreground or daemon.stays_in_front():
        daemon.in_front(body, pidfile)
    else:
        click.echo(daemon.in_background(body, pidfile))
