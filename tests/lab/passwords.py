"""Entries of password and token files, as etherws and Apache's htpasswd write them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import bcrypt
import pytest
from hypothesis import strategies as st

#: bcrypt's least, so that tests are quick.
QUICK = 4


def hashed(password: str, cost: int = QUICK, kind: str = "2y") -> str:
    """What a password file has behind the colon."""
    return f"${kind}" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()[3:]


def sha(password: str) -> str:
    """The same, as etherws 1.3 had it."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


def write(file: Path, content: str | bytes) -> Path:
    """Make the file, closed to others."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(0o600)
    return file


def htpasswd(*arguments: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run Apache's own program with the password on its standard input."""
    if not shutil.which("htpasswd"):
        pytest.skip("there is no htpasswd here; install apache2-utils")
    return subprocess.run(
        ["htpasswd", "-i", *arguments], input=password, capture_output=True, text=True, check=False, timeout=30
    )


#: bcrypt's hash of "secret".
BCRYPT = "$2y$04$AVRZdYtzLihHWszQu/uGGOrxoN0DbXSBk8uf/6cbHCVv/k.mbK2kK"

#: The SHA-256 of "x".
DIGEST = hashlib.sha256(b"x").hexdigest()

#: Lines of a file, good and bad.
LINES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"a", b"b", "é".encode(), b"#"]).flatmap(
        lambda name: st.sampled_from(
            [hashed("x").encode(), sha("x").encode(), b"sha256:" + DIGEST.encode(), b"$2y$31$", b"{SHA}=", b""]
        ).map(lambda value: name + b":" + value)
    ),
)
