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
from hypothesis import HealthCheck, settings

from etherws.netns import Namespace, enter_user_namespace
from tests.lab import Host, cable

# `make test` is quick; `make fuzz`, which names the other, takes its time.
settings.register_profile("test", max_examples=300, deadline=None)
settings.register_profile("fuzz", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("test")


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
    """A certificate for localhost, 127.0.0.1 and 192.0.2.1, which is its own authority."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> Certificate:
    """A fresh self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etherws test")])
    names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "192.0.2.1"))]
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
