"""The ``etherws`` command: options in, processes started, errors printed. Only this module exits.

Every option can be set in the environment: ETHERWS_SERVER_PORT, ETHERWS_CLIENT_URI, and so on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import click

from etherws import __version__, daemon
from etherws.errors import EtherwsError, SettingsError
from etherws.settings import DeviceSettings, Retry, ServerSettings

log = logging.getLogger("etherws")

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """Seconds, bare or with a unit: 20, 20s, 500ms, 5m, 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", str(value))
        if not found:
            self.fail(f"{value!r} is no duration; write 20s, 500ms, 5m or bare seconds", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


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
@common
def server(
    address: str | None,
    port: int | None,
    path: str,
    trusted_proxy: tuple[str, ...],
    proxy_protocol: bool,
    keyfile: str | None,
    certfile: str | None,
    **options: Any,
) -> None:
    """Listen for clients; each gets a TAP, the first ethws0. Goes on in the background."""
    from etherws import server as serving
    from etherws.wsgi import Application

    settings = ServerSettings(**_device(options), path=path, trusted_proxy=trusted_proxy, proxy_protocol=proxy_protocol)
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
@click.option("--uri", help="The server: ws://HOST[:PORT]/[PATH] or wss://...")
@click.option("--cacert", type=click.Path(), metavar="FILE", help="Trust these certificates (PEM), not the system's.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("--connect-timeout", type=Duration(), default="10s", show_default=True, help="For one attempt.")
@click.option("--retry-interval", type=Duration(), default="0.5s", show_default=True, help="Before the second attempt.")
@click.option("--max-retry-interval", type=Duration(), default="30s", show_default=True, help="The longest wait.")
@common
def client(
    positional: str | None,
    uri: str | None,
    cacert: str | None,
    insecure: bool,
    connect_timeout: float,
    retry_interval: float,
    max_retry_interval: float,
    **options: Any,
) -> None:
    """Connect ethws0 to a server, and again whenever it is lost. Goes on in the background."""
    from etherws import client as connecting

    if positional and uri and positional != uri:
        raise click.UsageError("name the server once: as an argument or by --uri")
    if not (positional or uri):
        raise click.UsageError("which server? Say --uri ws://HOST/")
    where = connecting.parse(str(positional or uri))
    settings = DeviceSettings(**_device(options))
    retry = Retry(retry_interval, max_retry_interval, connect_timeout)
    context = connecting.tls_context(cacert, insecure) if where.secure else None
    if where.secure and insecure:
        click.echo("warning: --insecure: the server's certificate is not verified; anyone between can read", err=True)
    _run(connecting.Client(where, settings, retry, context).run, **options)


@main.command()
@click.option("--seconds", type=click.FloatRange(0.1, 20), default=3, show_default=True, help="Of TCP throughput.")
def demo(seconds: float) -> None:
    """Show a link between two virtual hypervisors, in network namespaces of its own."""
    from etherws import demo as showing

    showing.run(seconds)


def _device(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the common options that are DeviceSettings."""
    return {key: options[key] for key in ("device", "bridge", "mtu", "wire", "congestion")}


def _run(body: daemon.Main, *, foreground: bool, pidfile: str | None, debug: bool, log_level: str, **_: Any) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    # Ours alone: pyroute2 writes pages at the debug level.
    log.setLevel(logging.DEBUG if debug else log_level.upper())
    if foreground or daemon.stays_in_front():
        daemon.in_front(body, pidfile)
    else:
        click.echo(daemon.in_background(body, pidfile))
