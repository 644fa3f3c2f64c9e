"""A file with certificates or a private key: names, dates, and whether they belong together.

What a certificate says is read by access/certificate_facts.py. No key is shown. Read next: files.py, which calls this.
"""

from __future__ import annotations

import binascii
import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from etherws.access.certificate_facts import Facts, facts_of, pin_of_private_key
from etherws.check.findings import Finding, Verdict
from etherws.errors import SettingsError, printable, some_of
from etherws.small_files import is_open_to_all, read_file

#: Certificates of one file that are looked at; Mozilla's authorities are 150.
CERTIFICATES_MAX = 500

#: Bytes of a key file that is looked for beside a certificate.
_KEY_MAX = 64 * 1024

#: Before its end, a certificate is to be made anew.
SOON = datetime.timedelta(days=14)

#: The words of a certificate's line in PEM form; OpenSSL writes and reads all three.
_CERTIFICATE = (b"CERTIFICATE-----", b"X509 CERTIFICATE-----", b"TRUSTED CERTIFICATE-----")

_BEGIN, _END = b"-----BEGIN ", b"-----END "

_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")


def is_der(data: bytes) -> bool:
    """Whether this may be a certificate or a key in DER form: a sequence with a length of two bytes (X.690)."""
    return data[:2] == b"\x30\x82"


def look(path: str, data: bytes, now: datetime.datetime | None = None) -> Iterator[Finding]:
    """What is in a file of this content. `now` is the time, for tests."""
    shown, now = printable(path), now or datetime.datetime.now(datetime.timezone.utc)
    has_key = _KEY.search(data) is not None
    found = list(_certificates(data))
    if is_der(data):
        hint = f"openssl x509 -inform DER -in {shown} -out {shown}.pem"
        words = f"{shown} is in DER form, which etherws does not read"
        yield Finding("file", words, Verdict.FAILED, hint, {"kind": "der"})
    if found:
        yield from _certificate(found, now)
        if not has_key:
            yield from _key_beside(Path(path), found[0])
    if has_key:
        yield from _key(path, shown, data, found)
    if not (found or has_key or is_der(data)):
        kind = re.search(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", data)
        words = f"{shown} has {kind[1].decode().lower() if kind else 'PEM that is broken'}, and no certificate or key"
        verdict = Verdict.NOTE if kind and kind[1] in (b"PUBLIC KEY", b"X509 CRL") else Verdict.FAILED
        hint = (
            "--pinnedpubkey takes a public key, --client-ca a CRL behind its authority"
            if verdict is Verdict.NOTE
            else ""
        )
        yield Finding("file", words, verdict, hint, {"kind": "pem"})


def _certificates(data: bytes) -> Iterator[Facts | None]:
    blocks = [block for block in data.split(_BEGIN)[1:] if block.startswith(_CERTIFICATE)]
    for block in blocks[:CERTIFICATES_MAX]:
        base64 = block.partition(b"\n")[2].partition(_END)[0]
        try:
            yield facts_of(binascii.a2b_base64(base64))
        except binascii.Error:
            yield None
    if is_der(data) and (facts := facts_of(data)):
        yield facts


def _certificate(found: list[Facts | None], now: datetime.datetime) -> Iterator[Finding]:
    first = found[0]
    if first is None:
        hint = "make it anew; openssl x509 -noout -text -in FILE says more"
        yield Finding("certificate", "it is broken, or of a kind that is not known", Verdict.FAILED, hint)
    else:
        names = some_of(first.names, 10)
        chain = f"; {len(found) - 1} more behind it" if len(found) > 1 else ""
        data = {
            "kind": "certificate",
            "names": list(first.names),
            "issuer": first.issuer,
            "begins": first.begins.isoformat(),
            "ends": first.ends.isoformat(),
            "pin": first.pin,
            "chain": len(found) - 1,
        }
        if names:
            yield Finding("certificate", f"for {names}, by {first.issuer}{chain}; pin {first.pin}", data=data)
        else:
            yield Finding(
                "certificate",
                f"{first.subject}, by {first.issuer}{chain}: it has no name for a server",
                Verdict.NOTE,
                "as a server's certificate it needs subjectAltName; as an authority's or a client's it needs none",
                data,
            )
    for facts in found:
        if facts is not None:
            yield from _dates(facts, now, facts is first)


def _dates(facts: Facts, now: datetime.datetime, first: bool) -> Iterator[Finding]:
    topic = "certificate" if first else f"chain: {facts.subject}"
    data = {"ends": facts.ends.isoformat()}
    if facts.ends < now:
        words = f"it has expired, {facts.ends:%Y-%m-%d %H:%M} UTC"
        yield Finding(topic, words, Verdict.FAILED, "make or get a new one; is this machine's clock right?", data)
    elif facts.begins > now:
        words = f"it is not valid before {facts.begins:%Y-%m-%d %H:%M} UTC"
        yield Finding(topic, words, Verdict.FAILED, "is this machine's clock right?", data)
    elif facts.ends - now < SOON:
        days = (facts.ends - now).days
        hint = "renew it; the server reads a new file by itself"
        yield Finding(topic, f"it expires in {days} days, {facts.ends:%Y-%m-%d}", Verdict.WARNING, hint, data)
    elif first:
        yield Finding(topic, f"is valid until {facts.ends:%Y-%m-%d}", data=data)


def _key_beside(path: Path, first: Facts | None) -> Iterator[Finding]:
    """The key of a certificate, if it is in the same folder under one of the usual names."""
    usual = (path.with_suffix(".key"), path.with_name("privkey.pem"), path.with_name(path.name.replace("cert", "key")))
    for beside in dict.fromkeys(usual):
        if beside == path or first is None:
            continue
        try:
            pin = pin_of_private_key(read_file(beside, _KEY_MAX))
        except (OSError, SettingsError):
            continue
        yield _pair(printable(str(beside)), pin == first.pin, {"key": str(beside)})
        return


def _key(path: str, shown: str, data: bytes, found: list[Facts | None]) -> Iterator[Finding]:
    try:
        pin = pin_of_private_key(data)
    except SettingsError as exc:
        words, _, hint = str(exc).partition("; ")
        yield Finding("key", f"{shown}: {words}", Verdict.FAILED, hint, {"kind": "key"})
        return
    if is_open_to_all(path):
        hint = f"chmod o-rw {shown}, and make a new key if others use this machine"
        yield Finding(
            "key", "every user of this machine can read it", Verdict.FAILED, hint, {"kind": "key", "open": True}
        )
    if found and found[0] is not None:
        yield _pair(shown, pin == found[0].pin, {"kind": "key"})
    else:
        yield Finding("key", f"a private key; pin {pin}", data={"kind": "key", "pin": pin})


def _pair(shown: str, fits: bool, data: dict[str, str]) -> Finding:
    if fits:
        return Finding("key", f"{shown} is the key of this certificate", data={**data, "matches": True})
    hint = "name the key that the certificate was made for, by --keyfile"
    return Finding(
        "key", f"{shown} is not the key of this certificate", Verdict.FAILED, hint, {**data, "matches": False}
    )
