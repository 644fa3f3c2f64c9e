"""The options of ``etherws server`` and ``etherws client``: names, types, defaults and help texts, by headings.

Every option can be set in the environment: ETHERWS_SERVER_PORT, ETHERWS_CLIENT_URI, and so on. To add an option, add it
here and as a field in settings.py, which checks it. Each help text is a sentence that says all that one line can say;
README.rst lists the option too. Read next: sections.py, which shows them; examples.py, which is shown behind them;
commands.py, which runs the commands.
"""

from __future__ import annotations

from typing import Any

import click

from etherws.cli.file_options import Address, FileName, Header, Pins, WrittenFile
from etherws.cli.monitor_options import monitor_options
from etherws.cli.number_options import Duration, Wait, Within
from etherws.cli.process.log_formats import FORMATS
from etherws.cli.process.waiting import FOREVER
from etherws.cli.sections import Sections
from etherws.cli.user_option import UserName


def _option(*names: str, help: str, **attributes: Any) -> click.Option:
    """An option. Its help ends with its default: click adds the one that it knows, `help` has any other in brackets."""
    return click.Option(names, help=help, show_default=True, **attributes)


def _flag(*names: str, help: str) -> click.Option:
    return _option(*names, help=help, is_flag=True)


def _file(name: str, help: str, metavar: str = "FILE") -> click.Option:
    return _option(name, help=help, metavar=metavar, type=FileName())


def _time(name: str, default: str, help: str) -> click.Option:
    return _option(name, help=help, type=Duration(), default=default)


#: Where times are: the heading says how to write them.
TIMING = "Timing (seconds, or with a unit: 500ms, 20s, 5m, 1h)"

_interface = [
    _option(
        "--device",
        default="ethws%d",
        metavar="NAME",
        help="Name the network interface; %d is the first free number.",
    ),
    _option("--bridge", metavar="NAME", help="Put the interface into this bridge, made if needed.  [default: none]"),
    _option("--mtu", type=int, metavar="BYTES", help="Set the interface's MTU.  [default: the kernel's, 1500]"),
    _option(
        "--mac",
        metavar="ADDRESS",
        help="Give the interface this Ethernet address.  [default: one of its own that stays]",
    ),
    _flag("--accept-ra", help="Let the far LAN's routers configure this machine's IPv6.  [default: they cannot]"),
]

_connection = [
    _option(
        "--wire",
        type=Within(click.IntRange(1, 2)),
        metavar="1|2",
        default=2,
        help="Use this version of the wire format, or an older.",
    ),
    _option("--congestion", default="auto", metavar="NAME", help="Use this congestion control of TCP."),
]

_pings = [
    _time("--ping-interval", "20s", "Send a ping each time that this passes; 0 sends none."),
    _time("--ping-timeout", "10s", "Wait so much longer for any byte, then give the connection up."),
    _time("--carrier-timeout", "30s", "Take the carrier from the interface if unconnected so long; 0 never."),
]

_process = [
    _flag("--foreground", help="Stay in the foreground and log to standard error.  [default: background, syslog]"),
    _option(
        "--pidfile",
        type=WrittenFile(),
        metavar="FILE",
        help="Keep the process ID in this file.  [default: none]",
    ),
    _option(
        "--run-as",
        type=UserName(),
        metavar="USER[:GROUP]",
        help="Run as this user once all is open.  [default: who starts it, with CAP_NET_ADMIN alone]",
    ),
    _option(
        "--state-dir",
        type=WrittenFile(),
        metavar="DIR",
        help="Keep the interface's address in this folder; '' keeps it nowhere.  [default: /var/lib/etherws for root]",
    ),
    _option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        metavar="LEVEL",
        default="info",
        help="Log this and what is graver: debug, info, warning or error.",
    ),
    _option(
        "--log-format",
        type=click.Choice(FORMATS),
        metavar="FORMAT",
        default="text",
        help="Log text, json (one object a line), or to the systemd journal with fields: text, json or journal.",
    ),
    _flag("--debug", help="Log all, as --log-level debug does."),
]

server_sections: Sections = {
    "Server": [
        _option(
            "--address",
            type=Address(),
            metavar="ADDRESS",
            help="Listen on this address only, or on unix:/PATH.  [default: all, IPv4 and IPv6]",
        ),
        _option(
            "--port",
            type=Within(click.IntRange(0, 65535)),
            metavar="PORT",
            help="Listen on this TCP port; 0 takes any free one.  [default: 80, with TLS 443]",
        ),
        _option("--path", default="/", metavar="PATH", help="Serve the tunnel at this path; any other gets 404."),
        _option(
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
        _option(
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
        _option(
            "--trusted-proxy",
            multiple=True,
            metavar="NETWORK",
            help="Believe the reverse proxies of this network when they say who their client is; unix for those on "
            "the UNIX socket. Repeatable.  [default: none]",
        ),
        _flag("--proxy-protocol", help="Expect the PROXY protocol, version 1 or 2, from the trusted proxies."),
    ],
    "Interface": _interface,
    TIMING: [*_pings, _time("--resume-timeout", "30s", "Keep a lost client's interface so long for its return.")],
    "Status and metrics": [
        *monitor_options,
        _flag("--monitor-clients", help="Give each client metrics of its own, with its name."),
    ],
    "Process and log": _process,
}

client_sections: Sections = {
    "Connection": [
        _option(
            "--uri",
            multiple=True,
            metavar="URI",
            help="Connect to ws://HOST/, or with TLS to wss://HOST:PORT/PATH. Repeatable: the first that answers.",
        ),
        _option("--connect-to", metavar="HOST:PORT", help="Connect there.  [default: to the URI's host]"),
        _flag("-4", "--ipv4", help="Use IPv4 only.  [default: IPv6 and IPv4]"),
        _flag("-6", "--ipv6", help="Use IPv6 only.  [default: IPv6 and IPv4]"),
        _option(
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
        _option(
            "--pinnedpubkey",
            type=Pins(),
            metavar="PINS",
            help="Demand this public key of the server: sha256//BASE64;... or a file with it.  [default: any]",
        ),
        _option("--sni", metavar="NAME", help="Ask for this name, and verify it.  [default: the URI's host]"),
        _flag("-k", "--insecure", help="Do not verify the server's certificate.  [default: verify it]"),
        _file("--certfile", "Show the server the certificate and its chain in this PEM file.  [default: none]"),
        _file("--keyfile", "Use the private key of --certfile in this PEM file.  [default: in --certfile]"),
    ],
    "Log in": [
        _file("--token-file", "Log in with the token in the first line of this file.  [default: no token]"),
        _option(
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
        _option(
            "-x",
            "--proxy",
            metavar="URL",
            help="Connect through this proxy: http://, https:// or socks5://.  [default: the environment's]",
        ),
        _option(
            "--noproxy",
            metavar="LIST",
            help="Use no proxy for these hosts, domains and networks; * for all.  [default: the environment's]",
        ),
    ],
    "Interface": [
        *_interface,
        _option(
            "--drop",
            multiple=True,
            metavar="LIST",
            help="Drop bpdu, dhcp-server or router-advertisement frames of the far LAN. Repeatable.  [default: none]",
        ),
        _flag("--allow-second-link", help="Start even if another client links the same bridge to the same server."),
    ],
    TIMING: [
        _time("--connect-timeout", "10s", "Give one attempt to connect so long."),
        _time("--retry-interval", "0.5s", "Wait so long before the second attempt."),
        _time("--max-retry-interval", "30s", "Wait no longer than this between attempts."),
        *_pings,
    ],
    "Status and metrics": monitor_options,
    "Process and log": [
        _option(
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

demo_sections: Sections = {
    "Options": [
        _option(
            "--seconds",
            type=Within(click.FloatRange(0.1, 20)),
            metavar="SECONDS",
            default=3,
            help="Measure TCP for so long, 0.1 to 20 seconds.",
        ),
        _flag("--page", help="Keep the tunnel, and show its live page, until Ctrl-C."),
    ]
}
