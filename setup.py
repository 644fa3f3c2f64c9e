"""Packaging; `make` is the shorter way to try etherws out of a checkout."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
share = sorted(path.relative_to(here) for path in (here / "share").glob("**/*") if path.is_file())

setup(
    name="etherws",
    version=re.search(r'__version__ = "(.+)"', (here / "etherws/__init__.py").read_text())[1],
    description="Ethernet over WebSocket: one LAN across anything that lets HTTP out",
    long_description=(here / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license_expression="BSD-2-Clause",
    author="the etherws authors",
    python_requires=">=3.10",
    # Said aloud, so that an editable install is a line with this folder's path. Else it is a module that finds our
    # modules, and each start of Python takes twice the time, also of the thousand starts in the tests.
    package_dir={"": "."},
    packages=find_packages(include=["etherws", "etherws.*"]),
    # What etherws init --enable writes.
    data_files=[
        ("share/etherws", ["contrib/etherws-client@.service", "contrib/etherws-server@.service"]),
        # Manual pages and completions, if `make man` has made them; those of a release always have them.
        *((str(path.parent), [str(path)]) for path in share),
    ],
    package_data={"etherws": ["py.typed"], "etherws.observe": ["page/*"]},
    install_requires=[
        "bcrypt>=4.0.1",
        # The first whose types of parameters name their values: ParamType[float].
        "click>=8.4.0",
        "cryptography>=42",
        "gevent>=24.10.1",
        "gevent-websocket>=0.10.1",
        "prometheus-client>=0.20",
        "pyopenssl>=24.1",
        "pyroute2>=0.9.1",
        "python-pytun>=2.4.1",
        "setproctitle>=1.3.3",
        # The standard library has it as tomllib since 3.11.
        'tomli>=2.0.1; python_version < "3.11"',
        "wcwidth>=0.2.13",
        "websockets>=13.1",
    ],
    extras_require={
        # gunicorn's own extra brings what its gevent workers import.
        "gunicorn": ["gunicorn[gevent]>=23"],
        "tests": ["coverage", "hypothesis", "mypy", "pytest", "pytest-xdist", "ruff", "types-gevent"],
    },
    entry_points={"console_scripts": ["etherws = etherws.__main__:main"]},
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: System Administrators",
        "Topic :: System :: Networking",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        # Those that the tests run on.
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Typing :: Typed",
    ],
)
