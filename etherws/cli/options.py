"""The options of ``etherws server`` and ``etherws client``: names, types, defaults and help texts.

Every option can be set in the environment: ETHERWS_SERVER_PORT, ETHERWS_CLIENT_URI, and so on. To add an option, add it
here and as a field in settings.py, which checks it. Read next: commands.py, which runs the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from etherws.settings import duration

Command = TypeVar("Command", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """Seconds, with or without a unit: 20, 20s, 500ms, 5m, 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds."""
        try:
            return duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Header(click.ParamType[str]):
    """An HTTP header, ``Name: value``."""

    name = "header"
    #: A variable of the environment can have several headers, one on each line.
    envvar_list_splitter = "\n"


def _file(name: str, help: str, metavar: str = "FILE") -> Callable[[Command], Command]:
    return click.option(name, type=click.Path(), metavar=metavar, help=help)


def _time(name: str, default: str, help: str) -> Callable[[Command], Command]:
    return click.option(name, type=Duration(), default=default, show_default=True, help=help)


def _add(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """A decorator that adds these options to a command, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


server_options = _add(
    click.option("--address", help="Listen on this address only, or on unix:/PATH.  [default: all, IPv4 and IPv6]"),
    click.option("--port", type=click.IntRange(0, 65535), help="0 takes any free port.  [default: 80, with TLS 443]"),
    click.option("--path", default="/", show_default=True, help="The tunnel's path; other paths get 404."),
    click.option(
        "--trusted-proxy",
        multiple=True,
        metavar="NETWORK",
        help="Reverse proxies that may say who their client is; unix: those on the UNIX socket. Repeatable.",
    ),
    click.option("--proxy-protocol", is_flag=True, help="The trusted proxies use the PROXY protocol, version 1 or 2."),
    _file("--keyfile", "TLS: the private key, PEM."),
    _file("--certfile", "TLS: the certificate and its chain, PEM."),
    _file("--client-ca", "Clients need a certificate signed by these authorities, PEM."),
    _file("--htpasswd", "Clients need a user and password from this file."),
    _file("--token-file", "Clients need a token from this file."),
    _file("--policy", "What each client may do; see check-policy."),
    click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Let web pages of this origin in; * for all."),
    _time("--resume-timeout", "30s", "How long to keep a lost client's port."),
)

client_options = _add(
    click.option(
        "--uri",
        multiple=True,
        help="The server: ws://HOST[:PORT]/[PATH] or wss://...; of several the first that answers.",
    ),
    _file("--cacert", "Trust these certificates instead of the system's.", "FILE|DIR"),
    click.option("--pinnedpubkey", metavar="PINS", help="The server's key: sha256//BASE64;... or a file with it."),
    click.option("--sni", metavar="NAME", help="Ask for this name, and verify it, instead of the URI's."),
    click.option("-k", "--insecure", is_flag=True, help="Do not verify the server's certificate."),
    _file("--certfile", "TLS: this client's certificate and its chain, PEM."),
    _file("--keyfile", "TLS: its private key, PEM.  [default: in --certfile]"),
    click.option("-u", "--user", metavar="NAME[:PASSWORD]", help="Log in as this user; asks for a missing password."),
    _file("--password-file", "The password is the first line of this file."),
    _file("--token-file", "Log in with the token in the first line of this file."),
    click.option(
        "-x", "--proxy", metavar="URL", help="http://, https:// or socks5://.  [default: from the environment]"
    ),
    click.option("--noproxy", metavar="LIST", help="Hosts, domains and networks without proxy; * for all."),
    click.option("--connect-to", metavar="HOST:PORT", help="Connect there instead of to the URI's host."),
    click.option("-4", "--ipv4", is_flag=True, help="Use IPv4 only."),
    click.option("-6", "--ipv6", is_flag=True, help="Use IPv6 only."),
    click.option(
        "-H",
        "--header",
        type=Header(),
        multiple=True,
        metavar="'NAME: VALUE'|@FILE",
        help="Add to the request; one in each line of a file.",
    ),
    click.option(
        "--retry-on-auth-failure/--no-retry-on-auth-failure",
        default=True,
        help="If off, refused credentials end it with status 77.",
    ),
    _time("--connect-timeout", "10s", "For one attempt."),
    _time("--retry-interval", "0.5s", "The wait before the second attempt."),
    _time("--max-retry-interval", "30s", "The longest wait between attempts."),
)

common_options = _add(
    click.option("--device", default="ethws%d", show_default=True, help="The TAP's name; %d: the first free number."),
    click.option("--bridge", metavar="NAME", help="Put the TAP into this bridge; make the bridge if needed."),
    click.option("--mtu", type=int, metavar="BYTES", help="The TAP's MTU.  [default: the kernel's, 1500]"),
    click.option("--accept-ra", is_flag=True, help="Let the far LAN's routers configure this machine's IPv6."),
    click.option(
        "--wire", type=click.IntRange(1, 2), default=2, show_default=True, help="The newest wire format to use."
    ),
    click.option("--congestion", default="auto", show_default=True, metavar="NAME", help="TCP's congestion control."),
    _time("--ping-interval", "20s", "Time between pings; 0: no pings."),
    _time("--ping-timeout", "10s", "How much longer the other side may be silent."),
    _time("--carrier-timeout", "30s", "The TAP loses its carrier after this time without connection; 0: never."),
    click.option("--foreground", is_flag=True, help="Stay in the foreground and log to standard error."),
    click.option("--pidfile", type=click.Path(dir_okay=False), help="Keep the process ID in this file."),
    click.option("--debug", is_flag=True, help="The same as --log-level debug."),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="How much to log.",
    ),
)
