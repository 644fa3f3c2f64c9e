"""Fixtures: the machines of lab.py, certificates, and a network of the tests' own."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etherws.netns import Namespace, enter_user_namespace
from tests.lab import Host, cable


@pytest.fixture(scope="session")
def network() -> Iterator[None]:
    """Puts this process into a network namespace of its own, so that nothing of the machine's is touched."""
    try:
        try:
            namespace = Namespace()
        except PermissionError:
            enter_user_namespace()
            namespace = Namespace()
    except OSError as exc:
        pytest.skip(f"no network namespaces for this user here: {exc}")
    with contextlib.closing(namespace), namespace.inside():
        yield


@pytest.fixture
def host(network: None) -> Iterator[Host]:
    """One machine."""
    with contextlib.closing(Host()) as machine:
        yield machine


@pytest.fixture
def hosts(network: None) -> Iterator[tuple[Host, Host]]:
    """Two machines with a cable between: 192.0.2.1 and 192.0.2.2."""
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        cable(one, other, "192.0.2.1/24", "192.0.2.2/24")
        yield one, other


class Certificate(NamedTuple):
    """Files in PEM form."""

    key: Path
    cert: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost, 127.0.0.1, 192.0.2.1 and 198.51.100.1, which is its own authority."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> Certificate:
    """A fresh self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etherws test")])
    addresses = map(ipaddress.ip_address, ("127.0.0.1", "192.0.2.1", "198.51.100.1"))
    names = [x509.DNSName("localhost"), *map(x509.IPAddress, addresses)]
    now = datetime.datetime.now(datetime.timezone.utc)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = Certificate(folder / "ssl.key", folder / "ssl.crt")
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return pair
