"""What people type by habit from other programs, and what etherws calls it. Pure: tables of names and sentences.

No name here is accepted: each gets an error that says what to write. The names are those of OpenVPN, WireGuard,
wstunnel, chisel, curl, ssh, gunicorn and etherws 1.3. sections.py looks them up. A sentence names an option or a
command that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def _table(*rows: tuple[str, str]) -> Mapping[str, str]:
    """The sentence for each name. A row has names with blanks between, and the sentence that is for all of them."""
    return {name: sentence for names, sentence in rows for name in names.split()}


#: Names of options for both commands.
BOTH = _table(
    (
        "--cert --sslcert --ssl-cert --tls-cert --tls-certificate --certificate --cert-file --ssl-certfile -E",
        "the certificate is given by --certfile FILE",
    ),
    (
        "--key --sslkey --ssl-key --tls-key --tls-private-key --private-key --key-file --ssl-keyfile",
        "the private key is given by --keyfile FILE",
    ),
    (
        "--dev --tap --tun --interface --iface --ifname --tap-name --dev-node --dev-type --tunnel -i -w",
        "the interface's name is given by --device NAME",
    ),
    ("--ifconfig --ip-address --setif --addr", "IP addresses of the interface are given by --inet ADDRESS/PREFIX"),
    (
        "--mac-address --lladdr --hwaddr",
        "the interface's Ethernet address is given by --mac ADDRESS",
    ),
    (
        "--route --route-gateway --redirect-gateway --push --pull --topology --dhcp --dhcp-option --dns --allowed-ips",
        "addresses and routes are those of a LAN, by DHCP or ip route; --device NAME names the interface",
    ),
    ("--persist-tun --persist-key --nobind", "leave it out: the interface stays, also while unconnected; see --help"),
    ("--comp-lzo --compress --compressed --allow-compression", "nothing is compressed, so leave it out; see --help"),
    ("--netns --net", "ip netns exec starts etherws in a network namespace; see --help"),
    ("--br --bridge-name --server-bridge --addif", "the bridge to join is given by --bridge NAME"),
    ("--ageout", "the bridge learns addresses, for its ageing_time; it is given by --bridge NAME"),
    ("--tun-mtu --link-mtu --mssfix --fragment", "frames of every size pass; the MTU is given by --mtu BYTES"),
    ("--congestion-control --tcp-congestion", "TCP's congestion control is given by --congestion NAME"),
    (
        "--keepalive --persistent-keepalive --ping --ping-restart --ping-exit --websocket-ping-frequency "
        "--websocket-ping-frequency-sec --websocket-ping-interval",
        "pings are set by --ping-interval SECONDS and --ping-timeout SECONDS",
    ),
    (
        "--verb --verbose --loglevel --log-lvl --quiet --silent -v -q -s",
        "how much is logged is given by --log-level LEVEL",
    ),
    (
        "--log --log-append --logfile --log-file --logconf --syslog --stderr",
        "the log goes to syslog, with --foreground to standard error; its form is given by --log-format FORMAT",
    ),
    (
        "--daemon --daemonize --background --no-daemon --nodaemon --detach -d -D -f",
        "etherws goes into the background unless --foreground is given",
    ),
    ("--writepid --pid --pid-file -P", "the file for the process ID is given by --pidfile FILE"),
    ("--conf --config-file --configfile --cfg -c -C", "a configuration file is named by --config FILE"),
    (
        "--group --setuid --setgid --uid --gid --runas --run_as --drop-privileges --reduce-privileges",
        "the user and the group that etherws runs as are given by --run-as USER:GROUP",
    ),
    (
        "--chroot --setcon",
        "a systemd unit takes rights away, as those in contrib/ do; see --help for the options",
    ),
    (
        "--status --management --metrics --metrics-address --stats --admin-socket --prometheus --json",
        "status and metrics are on the control socket, --control FILE, and served over TCP by --monitor ADDRESS:PORT",
    ),
    ("--option -o", "each option has a name of its own; see --help"),
    ("--client --server --tls-client --tls-server --mode", "the command is etherws client or etherws server"),
)

#: Names of options for the server.
SERVER = _table(
    (
        "--ca --ca-cert --ca-certs --cacert --cacerts --cafile --ca-file --capath --tls-ca --tls-client-ca-certs",
        "the authorities of clients' certificates are given by --client-ca FILE",
    ),
    (
        "--host --listen --bind --local --ip --listen-address -b -l",
        "where to listen is given by --address ADDRESS and --port PORT",
    ),
    ("--unix --uds --socket", "a UNIX socket is given by --address unix:/PATH"),
    ("--lport --listen-port -p", "the port is given by --port PORT"),
    (
        "--url-path --prefix --http-upgrade-path-prefix --restrict-http-upgrade-path-prefix",
        "the path is given by --path PATH",
    ),
    ("--ssl --tls --wss", "TLS is switched on by --certfile FILE and --keyfile FILE"),
    (
        "--auth --authfile --auth-user-pass --auth-user-pass-verify --passwd --password --passwords --password-file "
        "--pass --users --user --login -u",
        "the users who may join are given by --htpasswd FILE, tokens by --token-file FILE",
    ),
    ("--token --tokens --oauth2-bearer", "the tokens that may join are given by --token-file FILE"),
    (
        "--restrict-config --restrict-to --client-config-dir --ccd-exclusive --client-to-client --duplicate-cn "
        "--max-clients --shaper --drop",
        "what each client may do is given by --policy FILE",
    ),
    ("--threads --processes", "the number of processes that serve clients is given by --workers N"),
    ("--origin --allow-origins --cors", "web pages of other sites are let in by --allow-origin ORIGIN"),
    (
        "--forwarded-allow-ips --proxy-allow-from --behind-proxy --reverse-proxy --proxy",
        "reverse proxies are given by --trusted-proxy NETWORK",
    ),
    ("--uri --url --remote --connect", "the server only listens, at --address and --port; etherws client has --uri"),
)

#: Names of options for the client.
CLIENT = _table(
    (
        "--ca --ca-cert --ca-certs --cacerts --cafile --ca-file --capath --tls-ca --client-ca",
        "the authorities of the server's certificate are given by --cacert FILE",
    ),
    (
        "--host --remote --server --url --connect --address --hostname --http-host --endpoint -r",
        "the server is given by --uri ws://HOST/",
    ),
    ("--workers", "a client is one process; a further one needs a --device NAME of its own"),
    ("--listen --bind --local -l", "the client listens nowhere; the server is given by --uri ws://HOST/"),
    ("--port --rport --lport --listen-port -p", "the port is a part of --uri ws://HOST:PORT/"),
    ("--path --url-path --prefix --http-upgrade-path-prefix", "the path is a part of --uri ws://HOST/PATH"),
    ("--ssl --tls --wss", "TLS is switched on by --uri wss://HOST/"),
    (
        "--tls-skip-verify --skip-verify --no-verify --no-check-certificate --tls-verify-certificate --verify "
        "--verify-server-cert",
        "the server's certificate is verified unless --insecure is given",
    ),
    ("--fingerprint --peer-fingerprint --pin --verify-hash", "the server's key is given by --pinnedpubkey PINS"),
    (
        "--tls-sni-override --servername --server-name --tls-server-name --verify-x509-name",
        "the name in the server's certificate is given by --sni NAME",
    ),
    ("--resolve --connect-address", "where to connect instead is given by --connect-to HOST:PORT"),
    (
        "--auth --auth-user-pass --authfile --htpasswd --username --login --http-upgrade-credentials",
        "the user is given by --user NAME, the password by --password-file FILE",
    ),
    (
        "--passwd --password --pass --askpass",
        "the password is in the file of --password-file FILE, or --user NAME asks for it",
    ),
    ("--token --bearer --oauth2-bearer", "the token is in the file of --token-file FILE"),
    (
        "--headers --http-header --http-headers --user-agent --origin --referer --cookie -A -b -e",
        "a header is added by --header 'NAME: VALUE'",
    ),
    (
        "--http-proxy --https-proxy --socks-proxy --socks --socks5 --socks5-hostname --preproxy",
        "the proxy is given by --proxy URL",
    ),
    (
        "--proxy-user --proxy-login --http-proxy-login --proxy-auth --http-proxy-user-pass -U",
        "the proxy's user and password are a part of its URL; all users can read --proxy, so use https_proxy",
    ),
    ("--no-proxy", "who is reached without the proxy is given by --noproxy LIST"),
    (
        "--retry --retries --max-retries --max-retry-count --connect-retry --connect-retry-max --retry-delay "
        "--retry-max-time --resolv-retry --connection-retry-max-backoff --reconnect",
        "the client tries for ever; waits are set by --retry-interval SECONDS and --max-retry-interval SECONDS",
    ),
    (
        "--parallel --parallel-max --streams --conns --num-connections --multi --mux --queues -P -n -j",
        "how many connections the link has is given by --connections N; the file for the process ID by --pidfile FILE",
    ),
    (
        "--max-connection-age --max-lifetime --max-conn-age --max-session --reneg-sec --rekey --lifetime",
        "the age before which connections are replaced is given by --max-age SECONDS",
    ),
    ("--timeout --max-time -m -t", "the time for an attempt is given by --connect-timeout SECONDS"),
    (
        "--location --max-redirs",
        "no redirects are followed; name the server itself by --uri ws://HOST/",
    ),
    ("--proto --dns-resolver-prefer-ipv4 --inet4-only --inet6-only", "use --ipv4 or --ipv6"),
)

OPTIONS = {"server": {**BOTH, **SERVER}, "client": {**BOTH, **CLIENT}}

#: Words in the place of a command.
COMMANDS = _table(
    ("start run up", "a server is started by etherws server, a client by etherws client --uri ws://HOST/"),
    (
        "down kill quit exit shutdown halt terminate restart",
        "a process is ended by etherws stop; a unit is ended by systemctl stop, and started anew by systemctl restart",
    ),
    ("hup sighup refresh retry reconnect", "files are read again, and a client connects at once, by etherws reload"),
    (
        "show info list ls ps top clients sessions peers who stat stats state inspect dump",
        "who is connected is shown by etherws status, again and again by etherws status --watch",
    ),
    ("watch monitor", "who is connected is shown again and again by etherws status --watch"),
    ("metrics counters netstat json", "figures for programs are printed by etherws status --json"),
    ("log logs journal history tail", "what has happened is shown by etherws events, what comes by etherws events -f"),
    (
        "disconnect drop evict ban block boot revoke",
        "a client's sessions are ended by etherws kick CLIENT; with etherws kick --for 10m it is refused meanwhile",
    ),
    ("maintenance cordon quiesce evacuate failover", "all clients are sent to their next server by etherws drain"),
    ("dashboard ui web webui gui console browser", "the address of the live page is printed by etherws page"),
    ("connect join dial open c", "a client is started by etherws client --uri ws://HOST/"),
    ("serve listen daemon bind sw s", "a server is started by etherws server"),
    (
        "ctl addif addport setif",
        "the kernel's bridge has taken its place: see etherws server --bridge NAME, and ip link",
    ),
    ("version -V -v", "the version is printed by etherws --version"),
    (
        "bugreport bug-report report support sosreport sos debug-info",
        "an archive for a bug report is made by etherws bundle",
    ),
    (
        "setup set-up install wizard configure configuration new genkey keygen pair invite add-client",
        "a server or a client is set up by etherws init server, and etherws init client",
    ),
    ("help", "help is shown by etherws --help, and for each command, as by etherws client --help"),
    (
        "test configtest doctor diag diagnose diagnostics netcheck ping probe trace traceroute speedtest bench verify",
        "a path is checked by etherws check URI, this machine by etherws check, a policy by etherws check FILE",
    ),
    ("password token htpasswd useradd adduser", "users and tokens are added by etherws passwd FILE NAME"),
)

#: A host, perhaps with a port and a path: it has a dot, a colon or brackets, or is localhost.
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|localhost|[\w-]*[.:][\w.:-]*)(?:[:/].*)?")


def option_hint(command: str, name: str, others: Iterable[str] = ()) -> str | None:
    """What to write for the option `name` that the command does not have; None if nobody knows.

    `others` are the commands that have an option of this name.
    """
    hint = OPTIONS.get(command, {}).get(name)
    owners = " and ".join(f"etherws {other}" for other in others)
    if owners:
        return "; ".join(filter(None, (f"{name} is an option of {owners}", hint)))
    if hint:
        return f"no option {name}; {hint}"
    # A name that makes sense for the other command only.
    found = [(other, table[name]) for other, table in OPTIONS.items() if other != command and name in table]
    return f"no option {name}; for etherws {found[0][0]}, {found[0][1]}" if found and command in OPTIONS else None


def command_hint(word: str) -> str | None:
    """What to write for a word in the place of a command; None if nobody knows."""
    if hint := COMMANDS.get(word):
        return f"no {'option' if word[0] == '-' else 'command'} {word}; {hint}"
    if "://" in word or _HOST.fullmatch(word):
        return f"no command is named; write etherws client --uri {_uri(word)}"
    if word.isdecimal():
        return f"no command is named; write etherws server --port {word}"
    if word.startswith("--"):
        return f"no option {word}; options stand behind the command, as in etherws client --uri ws://HOST/"
    return None


def argument_hint(command: str, word: str) -> str | None:
    """What to write for an argument that the command does not take; None if nobody knows."""
    if command == "client":
        if word.isdecimal():
            return f"the port is a part of the URI; write --uri ws://HOST:{word}/"
        return "the client takes one server as an argument; to name several, repeat --uri URI"
    if command == "passwd":
        return "all users can read a command line, so the password is asked for, or read from standard input"
    if command != "server":
        return None
    if word.isdecimal():
        return f"the server takes only options; write --port {word}"
    if word.startswith("/"):
        return "the server takes only options; a path is given by --path PATH, a UNIX socket by --address unix:/PATH"
    return "the server takes only options: it listens at --address ADDRESS and --port PORT; etherws client has --uri"


def _uri(word: str) -> str:
    """The URI that the word was meant to be, without the user and password, which no message shows."""
    scheme, _, rest = word.rpartition("://")
    scheme = {"https": "wss", "wss": "wss"}.get(scheme, "ws")
    rest = rest.rpartition("@")[2]
    return f"{scheme}://{rest if '/' in rest else rest + '/'}"
