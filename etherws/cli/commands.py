"""The ``etherws`` command: read the options, start the server or the client, print errors. Only this module exits.

Read next: options.py, the options; cli/process/daemon.py, the process in the background; admin.py, the other commands;
server/serve.py and client/reconnect.py, which run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import click
from click.core import ParameterSource

from etherws import __version__, garbage
from etherws.cli import admin, config_option, control_commands, login, sections
from etherws.cli.bundle import bundle
from etherws.cli.check import check
from etherws.cli.completion import completion
from etherws.cli.demo_command import demo
from etherws.cli.examples import client_notes, main_notes, server_notes
from etherws.cli.file_options import files_read
from etherws.cli.init.commands import init
from etherws.cli.options import client_sections, server_sections
from etherws.cli.process import background_log, daemon, inherited, log_writer, process_image, rehearsal
from etherws.cli.process.run_as import VARIABLE, Privileges
from etherws.cli.process.waiting import Start, spelled_out
from etherws.cli.stage import stage
from etherws.cli.user_option import User
from etherws.cli.way import way_of
from etherws.errors import EtherwsError, SettingsError
from etherws.file_names import use_copies
from etherws.hooks import program
from etherws.kernel import packet_sockets
from etherws.kernel.store import Store
from etherws.settings import ClientSettings, Retry, ServerSettings
from etherws.small_files import is_open_to_all

log = logging.getLogger("etherws")


class Group(sections.Group):
    """Shows our own errors as click shows its own."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run the command line; after another image of this process, by what that has left."""
        found = process_image.begin(sys.argv[1:] if args is None else list(args), os.environ)
        return super().main(found.arguments, *more, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. An error of ours is printed, and ends the process with its exit status."""
        try:
            return super().invoke(ctx)
        except EtherwsError as exc:
            raise Failure(exc) from exc


class Failure(click.ClickException):
    """One of our errors, in click's form."""

    def __init__(self, error: EtherwsError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_status  # type: ignore[misc]


@click.group(
    cls=Group,
    notes=main_notes,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ETHERWS"},
)
@click.version_option(__version__, prog_name="etherws")
def main() -> None:
    """Ethernet over WebSocket: one LAN across everything that lets HTTP out."""
    inherited.mend(again=bool(process_image.this().before))
    use_copies(os.environ.get(VARIABLE))


@main.command(cls=config_option.Command, sections=server_sections, notes=server_notes)
def server(
    address: str | None,
    port: int | None,
    keyfile: str | None,
    certfile: str | None,
    client_ca: str | None,
    run_as: User | None,
    workers: int,
    **options: Any,
) -> None:
    """Listen for clients. Each gets a TAP; the first gets ethws0. Runs in the background."""
    # Before pyroute2 is imported, which warns of what it misses there.
    inherited.need_proc()
    from etherws.cli.observing import Observing
    from etherws.server import kept_ports
    from etherws.server import serve as serving
    from etherws.server.application import Application
    from etherws.workers.parent import Parent

    settings = ServerSettings(**_fields_of(ServerSettings, options))
    program.check_all(settings)
    contexts = None
    if keyfile and certfile:
        contexts = serving.tls_contexts(certfile, keyfile, client_ca)
    elif keyfile or certfile:
        given, missing = ("--keyfile", "--certfile") if keyfile else ("--certfile", "--keyfile")
        raise SettingsError(f"{given} needs {missing} as well")
    elif client_ca:
        raise SettingsError("--client-ca needs TLS: --certfile and --keyfile")
    chosen = (address, port) != (None, None)
    if port is None:
        port = 443 if contexts else 80
    settings = replace(settings, link=f"{address or '*'}:{port}{settings.path}")
    store = process_image.this().store
    prepared = [Application(settings, store)]
    keeps = Privileges(
        run_as,
        files_read(),
        packet_sockets=packet_sockets.SERVER_NEEDS,
        pidfile=options["pidfile"],
        unix_socket=address.removeprefix("unix:") if address and address.startswith("unix:/") else None,
        hook_user=settings.hook_user,
    )
    count = workers or len(os.sched_getaffinity(0))
    tls = (certfile, keyfile, client_ca) if certfile and keyfile else None
    endpoint = serving.Endpoint(address, port, chosen, daemon.is_supervised())
    observing = Observing(settings, run_as, process_image.this())
    reload = config_option.reloading(keeps.reload)

    def run(ready: Any, stop: Any) -> None:
        # It runs a second time if a new image could not be executed.
        application = prepared.pop() if prepared else Application(settings, store)
        process_image.this().before_rehearsal = application.keep
        hooks = serving.Hooks(observing.before(ready), keeps.give_up, reload, observing.doors, certfile)

        def make(sock: Any) -> serving.Service:
            if count == 1:
                return serving.OneProcess(sock, application, contexts)
            return Parent(sock, application, count, tls)

        verify_mode = contexts.get().verify_mode if contexts else None
        serving.serve(application, endpoint, make, hooks, stop, verify_mode)

    _run(observing.around(run), kept_ports.check, **options)


class ClientCommand(config_option.Command):
    """Reads a ``--wait`` without a time."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        return super().parse_args(ctx, spelled_out(args))


@main.command(cls=ClientCommand, sections=client_sections, notes=client_notes)
@click.argument("positional", metavar="[URI]", required=False)
def client(
    positional: str | None,
    uri: tuple[str, ...],
    connect_timeout: float,
    retry_interval: float,
    max_retry_interval: float,
    retry_on_auth_failure: bool,
    header: tuple[str, ...],
    wait: float | None,
    run_as: User | None,
    **options: Any,
) -> None:
    """Connect ethws0 to a server, and again after each loss. Runs in the background."""
    # Before pyroute2 is imported, which warns of what it misses there.
    inherited.need_proc()
    from etherws.cli.observing import Observing
    from etherws.client import attempt, kept_port, reconnect
    from etherws.client.observed import ObservedClient
    from etherws.client.uris import split_uri

    in_file = click.get_current_context().get_parameter_source("uri") is ParameterSource.DEFAULT_MAP
    if positional and in_file:
        uri = ()
    uris = uri or ((positional,) if positional else ())
    login.hide_secrets(uris, header, options)
    if positional and uri and (positional,) != uri:
        raise click.UsageError("name the server once: as an argument or with --uri; to name several use only --uri")
    if not uris:
        raise click.UsageError("no server is named; give --uri ws://HOST/")
    settings = ClientSettings(**_fields_of(ClientSettings, options))
    program.check_all(settings)
    retry = Retry(retry_interval, max_retry_interval, connect_timeout, retry_on_auth_failure)
    parsed = [split_uri(text) for text in uris]
    way = way_of({**options, "header": header}, (each for each, _, _ in parsed))
    servers = []
    for server_uri, user, password in parsed:
        servers.append(
            attempt.RemoteServer(
                server_uri,
                settings,
                proxy_choice=way.proxy_choice,
                trust=way.trust,
                credentials=login.credentials(options, user, password),
                headers=way.headers,
                timeout=connect_timeout,
            )
        )
    settings = replace(settings, link=servers[0].target)
    if way.trust.insecure and not way.trust.pins:
        _tell("warning: --insecure: the server is not verified; anyone on the path can read and change all", err=True)
    for path in (
        options["password_file"],
        options["token_file"],
        *(text[1:] for text in header if text.startswith("@")),
    ):
        if path and is_open_to_all(path):
            _tell(f"warning: {path} is open to everyone on this machine; close it with chmod o-rw", err=True)
    if any(each.sends_secrets_in_clear for each in servers):
        _tell("warning: without TLS anyone on the path can read the password or token; use wss://", err=True)

    store, waits = process_image.this().store, not process_image.this().before
    needs = packet_sockets.CLIENT_NEEDS
    pidfile, hook_user = options["pidfile"], settings.hook_user
    keeps = Privileges(run_as, files_read(), packet_sockets=needs, pidfile=pidfile, hook_user=hook_user)
    observing = Observing(settings, run_as, process_image.this())
    reload = config_option.reloading(keeps.reload)

    def run(ready: daemon.Ready, stop: Any) -> None:
        nonlocal waits
        # Nobody waits for a further image.
        start = Start(ready, wait) if wait is not None and waits else None
        waits = False
        connection = reconnect.Client(servers, settings, retry, start.failed if start else None, store=store)
        with contextlib.ExitStack() as doors:

            def opened() -> None:
                doors.enter_context(observing.doors(ObservedClient(connection)))
                keeps.give_up()
                observing.start()
                garbage.settle()

            connection.run(start.connected if start else ready, stop, opened, reload)

    _run(observing.around(run), kept_port.check, **options)


for command in (demo, init, admin.passwd, check, *control_commands.COMMANDS, bundle, completion, stage):
    main.add_command(command)


def _fields_of(settings: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are fields of this dataclass."""
    return {field.name: options[field.name] for field in fields(settings) if field.name in options}


def _run(
    service: daemon.Service,
    check: Callable[[Store], None],
    /,
    *,
    foreground: bool,
    pidfile: str | None,
    debug: bool,
    log_level: str,
    log_format: str,
    **_: Any,
) -> None:
    """Run the server or the client, in the foreground or in the background. `check` raises DeviceError if what the last
    process left cannot be read."""
    this = process_image.this()
    if this.rehearsing:
        check(this.store)
        _tell(rehearsal.answer())
        return
    background_log.check(log_format)
    # Only our own logger: at the debug level pyroute2 logs very much. Events are complete whatever is written.
    level = logging.DEBUG if debug else logging.getLevelName(log_level.upper())
    log.setLevel(min(level, logging.INFO))
    log_writer.write_from(level)
    if not this.background and (foreground or daemon.is_supervised()):
        daemon.run_in_foreground(service, this, pidfile, log_format)
        daemon.leave(0)
    else:
        started = daemon.run_in_background(service, this, pidfile, log_format)
        # It runs from here on, whether these lines can be written or not.
        _tell(started.message)
        _tell(f"stop it: kill {started.pid}; {background_log.how_to_read(log_writer.SYSLOG, log_format)}")
        sys.exit(started.status)


def _tell(text: str, *, err: bool = False) -> None:
    """Print a line, if that is possible: a full disk or a reader that has gone is no reason to end."""
    try:
        click.echo(text, err=err)
    except OSError:
        # What is left in the buffer would fail again at the end of the interpreter, whose status is then 120.
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2 if err else 1)
