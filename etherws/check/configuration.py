"""``etherws check FILE`` for a configuration: could a server or a client start with it now?

It tries certificates, keys, files, rules, bridges and ports, and starts nothing: a port is bound for a moment, and
nobody is let in. cli/config_check.py has read the file, so each value has the right form. Read next:
certificate_files.py; host_place.py, this machine's part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from etherws.access import policy
from etherws.access.certificates import client_context, server_context
from etherws.access.credential_files import FILE_MAX, Passwords, Tokens
from etherws.check import certificate_files, host_place
from etherws.check.findings import Finding, Verdict
from etherws.check.path.said import failed
from etherws.client.credentials import Credentials, split_user
from etherws.client.uris import ServerUri
from etherws.errors import EtherwsError, printable
from etherws.file_names import is_credential
from etherws.hooks import program
from etherws.settings import ClientSettings, ServerSettings, Trust
from etherws.small_files import read_file

#: The values of the options, by their names with _ for the dashes.
Values = Mapping[str, Any]

#: URIs of servers, each with a user and password.
Uris = Sequence[tuple[ServerUri, str | None, str | None]]

_GIVEN_LATER = "a credential, which systemd passes at the start"


def server(settings: ServerSettings, values: Values) -> Iterator[Finding]:
    """What a server with these options meets. `values` has the options that are no settings, too."""
    yield from _tls(values)
    yield from _admission(settings, values)
    bridges = {settings.bridge} - {None}
    filtering = {settings.bridge} if settings.vlan else set()
    if settings.policy and not is_credential(settings.policy):
        try:
            rules = policy.load(settings.policy, policy.Profile(vlan=settings.vlan))
        except EtherwsError as exc:
            yield failed("policy", exc)
        else:
            profiles = (rules.default, *rules.clients.values())
            bridges |= {each.bridge for each in profiles} - {None}
            filtering = {each.bridge or settings.bridge for each in profiles if each.vlan or each.vlans}
            words = f"{len(rules.clients)} named clients; everyone else: {rules.default.summary()}"
            yield Finding("policy", words, hint=f"etherws check {settings.policy} shows all", data={})
            programs = [path for each in profiles for path in (each.up, each.down, each.change) if path]
            for path in dict.fromkeys(programs):
                yield from _tried("policy", partial(program.check, "a program of it,", path), f"{path} can be run")
    yield from host_place.interfaces(settings.device, sorted(filter(None, bridges)), filtering)
    port = values["port"]
    if port is None:
        port = 443 if values["certfile"] else 80
    yield host_place.port("port", values["address"], port)
    yield from _shared(settings, values)


def client(settings: ClientSettings, uris: Uris, trust: Trust, values: Values) -> Iterator[Finding]:
    """What a client with these options meets on this machine. `uris` are those of the servers, with user and password.
    The path to them is not tried."""
    secure = [uri for uri, _, _ in uris if uri.secure]
    if secure and not any(map(is_credential, filter(None, trust.files))):
        yield from _tried("TLS", lambda: client_context(trust), _how_verified(trust))
    yield from _login(uris, values)
    if len(secure) < len(uris):
        words = "a server is named by ws://: anyone on the path can read and change all"
        yield Finding("TLS", words, Verdict.WARNING, "use wss://, unless another program encrypts the path")
    bridges = [settings.bridge] if settings.bridge else []
    yield from host_place.interfaces(settings.device, bridges, {settings.bridge} if settings.vlan else ())
    yield from _shared(settings, values)


def _tried(topic: str, attempt: Callable[[], object], good: str) -> Iterator[Finding]:
    try:
        attempt()
    except EtherwsError as exc:
        yield failed(topic, exc)
    else:
        yield Finding(topic, good)


def _tls(values: Values) -> Iterator[Finding]:
    certfile, keyfile, client_ca = values["certfile"], values["keyfile"], values["client_ca"]
    if not (certfile and keyfile):
        if certfile or keyfile or client_ca:
            words = "certfile and keyfile belong together, and client-ca needs both"
            yield Finding("TLS", words, Verdict.FAILED, "name the missing file")
        elif not str(values["address"] or "").startswith(("unix:", "127.", "::1")):
            words = "there is none: anyone on the path can read and change all"
            yield Finding(
                "TLS", words, Verdict.WARNING, "set certfile and keyfile, or listen behind a proxy that has TLS"
            )
        return
    if any(map(is_credential, filter(None, (certfile, keyfile, client_ca)))):
        yield Finding("TLS", _GIVEN_LATER, Verdict.SKIPPED)
        return
    good = True
    for finding in _tried(
        "TLS", lambda: server_context(certfile, keyfile, client_ca), "certificate and key can be used"
    ):
        good = finding.verdict is Verdict.OK
        yield finding
    if good:
        for finding in certificate_files.look(certfile, read_file(certfile, FILE_MAX)):
            # That the key fits is known already.
            if finding.topic != "key":
                yield finding


def _admission(settings: ServerSettings, values: Values) -> Iterator[Finding]:
    loaders: tuple[tuple[str, str | None, Any], ...] = (
        ("token-file", settings.token_file, Tokens.load),
        ("htpasswd", settings.htpasswd, Passwords.load),
    )
    for topic, path, load in loaders:
        if not path:
            continue
        if is_credential(path):
            yield Finding(topic, _GIVEN_LATER, Verdict.SKIPPED)
            continue
        try:
            known = load(path)
        except EtherwsError as exc:
            yield failed(topic, exc)
            continue
        if len(known):
            yield Finding(topic, f"{len(known)} can join by it")
        else:
            hint = f"etherws passwd {'--token ' if topic == 'token-file' else ''}{path} NAME"
            yield Finding(topic, "nobody can join by it yet", Verdict.WARNING, hint)
        for warning in known.warnings:
            words, _, hint = warning.rpartition("; ")
            yield Finding(topic, words, Verdict.WARNING, hint)
    if not (settings.token_file or settings.htpasswd or values["client_ca"]):
        words = "anyone who reaches this server may join"
        yield Finding("login", words, Verdict.WARNING, "set token-file, htpasswd or client-ca")


def _login(uris: Uris, values: Values) -> Iterator[Finding]:
    option_user, option_password = split_user(values["user"] or "")
    files = {name: values[name] for name in ("token_file", "password_file") if values[name]}
    if any(map(is_credential, files.values())):
        yield Finding("login", _GIVEN_LATER, Verdict.SKIPPED)
        return
    for _, uri_user, uri_password in uris[:1] if values["user"] else uris:
        user, password = (option_user, option_password) if values["user"] else (uri_user, uri_password)
        given = None if files else password or ("-" if user is not None else None)
        good = "by a token" if "token_file" in files else f"as {printable(user)}" if user else "none"
        yield from _tried("login", lambda user=user, given=given: Credentials(user, given, **files), good)  # type: ignore[misc]
        if user is not None and not files and password is None:
            words = "no password is given: it is asked for at the start, which a unit cannot"
            yield Finding("login", words, Verdict.WARNING, "write it to a file, and set password-file")


def _how_verified(trust: Trust) -> str:
    if trust.pins:
        return "the server is known by its key"
    if trust.insecure:
        return "the server is not verified"
    return f"the server is verified by {trust.cacert or 'the authorities of this system'}"


def _shared(settings: ServerSettings | ClientSettings, values: Values) -> Iterator[Finding]:
    if settings.monitor:
        yield host_place.monitor(settings.monitor)
    for name, path in settings.programs().items():
        yield from _tried(name, partial(program.check, f"--{name}", path), f"{path} can be run")
    if values["pidfile"]:
        yield from host_place.folder_of("pidfile", values["pidfile"])
