"""The options of ``etherws server`` and ``etherws client``: names, types, defaults and help texts, by headings.

Every option can be set in the environment: ETHERWS_SERVER_PORT, ETHERWS_CLIENT_URI, and so on. To add an option, add it
here and as a field in settings.py, which checks it. Each help text is a sentence that says all that one line can say;
the reference and the manual pages are made of them (manual.py). Read next: sections.py, which shows them; examples.py,
which is shown behind them; commands.py, which runs the commands.
"""

from __future__ import annotations

import click

from etherws.cli import offered
from etherws.cli.config_option import config_option
from etherws.cli.file_options import Address, FileName, Header, Pins, WrittenFile
from etherws.cli.interface_options import interface_options
from etherws.cli.monitor_options import monitor_options
from etherws.cli.number_options import Duration, Wait, Within
from etherws.cli.process.log_formats import FORMATS
from etherws.cli.process.waiting import FOREVER
from etherws.cli.sections import Sections, flag, option
from etherws.cli.user_option import UserName
from etherws.settings import CONNECTIONS_MAX


def _file(name: str, help: str, metavar: str = "FILE") -> click.Option:
    return option(name, help=help, metavar=metavar, type=FileName())


def _time(name: str, default: str, help: str) -> click.Option:
    return option(name, help=help, type=Duration(), default=default)


#: Where times are: the heading says how to write them.
TIMING = "Timing (seconds, or with a unit: 500ms, 20s, 5m, 1h)"

_connection = [
    option(
        "--wire",
        type=Within(click.IntRange(1, 2)),
        metavar="1|2",
        default=2,
        help="Use this version of the wire format, or an older.",
    ),
    option(
        "--congestion",
        default="auto",
        metavar="NAME",
        help="Use this congestion control of TCP.",
        shell_complete=offered.congestion_controls,
    ),
    click.Option(
        ["--padding/--no-padding"],
        default=True,
        help="Let both ends send up to 128 KiB of padding when they begin on a long path, or neither.  [default: both]",
    ),
]

_pings = [
    _time("--ping-interval", "20s", "Send a ping each time that this passes; 0 sends none."),
    _time("--ping-timeout", "10s", "Wait so much longer for any byte, then give the connection up."),
    _time("--carrier-timeout", "30s", "Take the carrier from the interface if unconnected so long; 0 never."),
]

_process = [
    flag("--foreground", help="Stay in the foreground and log to standard error.  [default: background, syslog]"),
    option(
        "--pidfile",
        type=WrittenFile(),
        metavar="FILE",
        help="Keep the process ID in this file.  [default: none]",
    ),
    option(
        "--run-as",
        type=UserName(),
        metavar="USER[:GROUP]",
        help="Run as this user once all is open.  [default: who starts it, with CAP_NET_ADMIN alone]",
    ),
    option(
        "--state-dir",
        type=WrittenFile(),
        metavar="DIR",
        help="Keep the interface's address in this folder; '' keeps it nowhere.  [default: /var/lib/etherws for root]",
    ),
    option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        metavar="LEVEL",
        default="info",
        help="Log this and what is graver: debug, info, warning or error.",
    ),
    option(
        "--log-format",
        type=click.Choice(FORMATS),
        metavar="FORMAT",
        default="text",
        help="Log text, json (one object a line), or to the systemd journal with fields: text, json or journal.",
    ),
    flag("--debug", help="Log all, as --log-level debug does."),
]

server_sections: Sections = {
    "Server": [
        config_option(),
        option(
            "--address",
            type=Address(),
            metavar="ADDRESS",
            help="Listen on this address only, or on unix:/PATH.  [default: all, IPv4 and IPv6]",
        ),
        option(
            "--port",
            type=Within(click.IntRange(0, 65535)),
            metavar="PORT",
            help="Listen on this TCP port; 0 takes any free one.  [default: 80, with TLS 443]",
        ),
        option("--path", default="/", metavar="PATH", help="Serve the tunnel at this path; any other gets 404."),
        option(
            "--workers",
            type=Within(click.IntRange(0, 64)),
            metavar="N",
            default=1,
            help="Serve clients in so many processes; 0 is one for each processor.",
        ),
        *_connection,
    ],
    "TLS": [
        _file("--certfile", "Use TLS with the certificate and its chain in this PEM file.  [default: no TLS]"),
        _file("--keyfile", "Use TLS with the private key in this PEM file.  [default: no TLS]"),
    ],
    "Who may join": [
        _file("--token-file", "Demand a token that this file knows; etherws passwd --token adds one.  [default: none]"),
        _file("--htpasswd", "Demand a user and password in this file; etherws passwd adds them.  [default: none]"),
        _file("--client-ca", "Demand a client certificate signed by an authority in this file.  [default: none]"),
        _file("--policy", "Apply the rules in this file to each client; see etherws check.  [default: none]"),
        option(
            "--allow-origin",
            multiple=True,
            metavar="ORIGIN",
            help="Let in web pages of this origin; * for all. Repeatable.  [default: none of other sites]",
        ),
        click.Option(
            ["--check/--no-check"],
            default=True,
            help="Let who may join measure the path by etherws check URI, or nobody.  [default: who may join]",
        ),
    ],
    "Proxy": [
        option(
            "--trusted-proxy",
            multiple=True,
            metavar="NETWORK",
            help="Believe the reverse proxies of this network when they say who their client is; unix for those on "
            "the UNIX socket. Repeatable.  [default: none]",
        ),
        flag("--proxy-protocol", help="Expect the PROXY protocol, version 1 or 2, from the trusted proxies."),
    ],
    "Interface": interface_options,
    TIMING: [*_pings, _time("--resume-timeout", "30s", "Keep a lost client's interface so long for its return.")],
    "Status and metrics": [
        *monitor_options,
        flag("--monitor-clients", help="Give each client metrics of its own, with its name."),
    ],
    "Process and log": _process,
}

client_sections: Sections = {
    "Connection": [
        config_option(),
        option(
            "--uri",
            multiple=True,
            metavar="URI",
            help="Connect to ws://HOST/, or with TLS to wss://HOST:PORT/PATH. Repeatable: the first that answers.",
        ),
        option("--connect-to", metavar="HOST:PORT", help="Connect there.  [default: to the URI's host]"),
        option(
            "--connections",
            type=Within(click.IntRange(1, CONNECTIONS_MAX)),
            metavar="N",
            default=1,
            help="Join the server by so many connections, which share the frames.",
        ),
        flag("-4", "--ipv4", help="Use IPv4 only.  [default: IPv6 and IPv4]"),
        flag("-6", "--ipv6", help="Use IPv6 only.  [default: IPv6 and IPv4]"),
        option(
            "-H",
            "--header",
            type=Header(),
            multiple=True,
            metavar="'NAME: VALUE'|@FILE",
            help="Add this header to the request, or those in FILE, one a line. Repeatable.  [default: none]",
        ),
        *_connection,
    ],
    "TLS": [
        _file("--cacert", "Trust the certificates in this PEM file or directory.  [default: the system's]", "FILE|DIR"),
        option(
            "--pinnedpubkey",
            type=Pins(),
            metavar="PINS",
            help="Demand this public key of the server: sha256//BASE64;... or a file with it.  [default: any]",
        ),
        option("--sni", metavar="NAME", help="Ask for this name, and verify it.  [default: the URI's host]"),
        flag("-k", "--insecure", help="Do not verify the server's certificate.  [default: verify it]"),
        _file("--certfile", "Show the server the certificate and its chain in this PEM file.  [default: none]"),
        _file("--keyfile", "Use the private key of --certfile in this PEM file.  [default: in --certfile]"),
    ],
    "Log in": [
        _file("--token-file", "Log in with the token in the first line of this file.  [default: no token]"),
        option(
            "-u",
            "--user",
            metavar="NAME[:PASSWORD]",
            help="Log in as this user; a missing password is asked for.  [default: the URI's]",
        ),
        _file("--password-file", "Log in with the password in the first line of this file.  [default: none]"),
        click.Option(
            ["--retry-on-auth-failure/--no-retry-on-auth-failure"],
            default=True,
            help="Go on after the server refuses the credentials, or end with status 77.  [default: go on]",
        ),
    ],
    "Proxy": [
        option(
            "-x",
            "--proxy",
            metavar="URL",
            help="Connect through this proxy: http://, https:// or socks5://.  [default: the environment's]",
        ),
        option(
            "--noproxy",
            metavar="LIST",
            help="Use no proxy for these hosts, domains and networks; * for all.  [default: the environment's]",
        ),
    ],
    "Interface": [
        *interface_options,
        option(
            "--drop",
            multiple=True,
            metavar="LIST",
            help="Drop bpdu, dhcp-server or router-advertisement frames of the far LAN. Repeatable.  [default: none]",
        ),
        flag("--allow-second-link", help="Start even if another client links the same bridge to the same server."),
    ],
    TIMING: [
        _time("--connect-timeout", "10s", "Give one attempt to connect so long."),
        _time("--retry-interval", "0.5s", "Wait so long before the second attempt."),
        _time("--max-retry-interval", "30s", "Wait no longer than this between attempts."),
        _time("--max-age", "0s", "Replace each connection, without loss, before it is so old; 0 never."),
        *_pings,
    ],
    "Status and metrics": monitor_options,
    "Process and log": [
        option(
            "--wait",
            type=Wait(),
            is_flag=False,
            flag_value=FOREVER,
            metavar="[=SECONDS]",
            help="Return when connected, or after this time with status 75; without a time wait for ever."
            "  [default: return after the first attempt]",
        ),
        *_process,
    ],
}
