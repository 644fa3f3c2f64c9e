"""The ``etherws`` command: options in, processes started, errors printed. Only this module exits.

Every option can be set in the environment: ETHERWS_SERVER_PORT, ETHERWS_CLIENT_URI, and so on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from etherws import __version__, daemon
from etherws.errors import EtherwsError, SettingsError
from etherws.settings import DeviceSettings, Retry, ServerSettings, duration

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


class Group(click.Group):
    """Shows our own errors as click shows its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is printed and exits with 1."""
        try:
            return super().invoke(ctx)
        except EtherwsError as exc:
            raise click.ClickException(str(exc)) from exc


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


@main.command()
@click.option("--address", help="Listen on this address only.  [default: all, IPv4 and IPv6]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 picks a free one.  [default: 80, with TLS 443]")
@click.option("--path", default="/", show_default=True, help="The path of the tunnel; others get 404.")
@click.option("--keyfile", type=click.Path(), help="TLS: the private key, PEM.")
@click.option("--certfile", type=click.Path(), help="TLS: the certificate and its chain, PEM.")
@common
def server(
    address: str | None,
    port: int | None,
    path: str,
    keyfile: str | None,
    certfile: str | None,
    **options: Any,
) -> None:
    """Listen for clients; each gets a TAP, the first ethws0. Goes on in the background."""
    from etherws import server as serving
    from etherws.wsgi import Application

    settings = ServerSettings(**_device(options), path=path)
    context = None
    if keyfile and certfile:
        context = serving.tls_context(keyfile, certfile)
    elif keyfile or certfile:
        given, missing = ("--keyfile", "--certfile") if keyfile else ("--certfile", "--keyfile")
        raise SettingsError(f"{given} needs {missing} as well")
    if port is None:
        port = 443 if context else 80

    def run(ready: Any, stop: Any) -> None:
        serving.serve(Application(settings), address=address, port=port, context=context, ready=ready, stop=stop)

    _run(run, **options)


@main.command()
@click.argument("positional", metavar="[URI]", required=False)
@click.option(
    "--uri", multiple=True, help="The server: ws://HOST[:PORT]/[PATH] or wss://...; of several the first that answers."
)
@click.option("--cacert", type=click.Path(), metavar="FILE", help="Trust these certificates (PEM), not the system's.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("--connect-timeout", type=Duration(), default="10s", show_default=True, help="For one attempt.")
@click.option("--retry-interval", type=Duration(), default="0.5s", show_default=True, help="Before the second attempt.")
@click.option("--max-retry-interval", type=Duration(), default="30s", show_default=True, help="The longest wait.")
@common
def client(
    positional: str | None,
    uri: tuple[str, ...],
    cacert: str | None,
    insecure: bool,
    connect_timeout: float,
    retry_interval: float,
    max_retry_interval: float,
    **options: Any,
) -> None:
    """Connect ethws0 to a server, and again whenever it is lost. Goes on in the background."""
    from etherws import client as connecting

    if positional and uri and (positional,) != uri:
        raise click.UsageError("name the server once: as an argument or by --uri; name several by --uri alone")
    if not (positional or uri):
        raise click.UsageError("which server? Say --uri ws://HOST/")
    servers = [connecting.parse(each) for each in uri or (str(positional),)]
    secure = any(server.secure for server in servers)
    settings = DeviceSettings(**_device(options))
    retry = Retry(retry_interval, max_retry_interval, connect_timeout)
    context = connecting.tls_context(cacert, insecure) if secure else None
    if secure and insecure:
        click.echo("warning: --insecure: the server's certificate is not verified; anyone between can read", err=True)
    _run(connecting.Client(servers, settings, retry, context).run, **options)


@main.command()
@click.option("--seconds", type=click.FloatRange(0.1, 20), default=3, show_default=True, help="Of TCP throughput.")
def demo(seconds: float) -> None:
    """Show a link between two virtual hypervisors, in network namespaces of its own."""
    from etherws import demo as showing

    showing.run(seconds)


def _device(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the common options that are DeviceSettings."""
    return {field.name: options[field.name] for field in fields(DeviceSettings)}


def _run(body: daemon.Main, *, foreground: bool, pidfile: str | None, debug: bool, log_level: str, **_: Any) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    # Ours alone: pyroute2 writes pages at the debug level.
    log.setLevel(logging.DEBUG if debug else log_level.upper())
    if foreground or daemon.stays_in_front():
        daemon.in_front(body, pidfile)
    else:
        click.echo(daemon.in_background(body, pidfile))
