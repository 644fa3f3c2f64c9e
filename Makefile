# make demo         a tunnel between two virtual hypervisors, in network namespaces
# make test         lint and every test
# make quick        the tests that need no network namespaces, in seconds
# make lint         style, format and types
# make format       put the code into the one format
# make coverage     every test again; prints the lines and branches that no test runs
# make acceptance   the README typed on a bare Debian, peers of others, make docs, vm and guests; needs root
# make vm           the tests that need systemd or a kernel of Debian's, in a virtual machine; needs root once
# make guests       README and tutorials typed on two bare Debian machines that reboot, with the time of each; needs root
# make fuzz         random bytes as strangers may send them, for five minutes or FUZZ_SECONDS=N
# make conformance  the Autobahn test suite on both ends, where there is a Python 2.7
# make bench        etherws beside its peers, as root; bench/README.rst lists the other benchmarks
# make docs         the documentation as HTML, in docs/_build/html; a wrong link is an error
# make man          manual pages and completions for bash, zsh and fish, in share/
# make release      source archive and wheel in dist/, checked, installed and tried
# make deb          a package for the release of Debian or Ubuntu that this machine runs, in dist/
# make clean        remove everything that make made
#
# Each installs what it needs: Python packages into .venv, Debian's packages when run as root.
# make acceptance LONG= leaves out what takes half an hour more where guests are emulated: the Debian package and the
# container in the virtual machine, and make guests.
# ARGS="..." adds arguments to pytest, to the demo or to the benchmark, and names targets of the fuzzing.
# make vm ARGS="--figures bench/soak.py --minutes 30" runs a script of bench/ in the virtual machine instead.

PYTHON ?= python3
FUZZ_SECONDS ?= 300
LONG ?= yes
VENV := .venv
BIN := $(VENV)/bin
# Each worker has a network namespace of its own. There are two more than there are processors, since tests wait for
# processes and networks most of the time. Tests of a group follow each other on one worker.
PYTEST := $(BIN)/python -m pytest --numprocesses $(shell expr $$(nproc) + 2) --dist loadgroup
# The tests of one file follow each other. Each of two workers waits half the time, for packages and for machines.
BY_FILE := --numprocesses 2 --dist loadfile
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# program:package of Debian and Ubuntu, for the tests and the benchmark. Tests whose program is missing are skipped.
TEST_PROGRAMS := ip:iproute2 ping:iputils-ping iperf3:iperf3 brctl:bridge-utils ifconfig:net-tools openssl:openssl \
	htpasswd:apache2-utils nft:nftables unshare:util-linux squid:squid microsocks:microsocks chromium:chromium
# gcc comes without the C library's headers there; c99, which is missing when gcc is, stands for them.
BENCH_PROGRAMS := $(TEST_PROGRAMS) cc:gcc c99:libc6-dev openvpn:openvpn vtund:vtun tincd:tinc

# Reverse proxies, for the tests. A module of one is named by its path.
PROXY_PROGRAMS := nginx:nginx /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream \
	haproxy:haproxy caddy:caddy apache2:apache2-bin

# Go and its WebSocket packages, for the peers of others.
PEER_PROGRAMS := go:golang-go /usr/share/gocode/src/golang.org/x/net:golang-golang-x-net-dev \
	/usr/share/gocode/src/github.com/gorilla/websocket:golang-github-gorilla-websocket-dev \
	/usr/share/gocode/src/nhooyr.io/websocket:golang-nhooyr-websocket-dev

# For the Debian systems that tests make, and for the one of them that boots. On Ubuntu, debootstrap has no keys of Debian.
DEBIAN_PROGRAMS := debootstrap:debootstrap /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
# Several gateways: contrib/evpn/.
GATEWAY_PROGRAMS := vtysh:frr /lib/systemd/systemd-networkd:systemd tc:iproute2
# For the commands of docs/, beside those of the tests.
DOCS_PROGRAMS := qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils dhclient:isc-dhcp-client \
	dnsmasq:dnsmasq-base curl:curl fish:fish zsh:zsh man:man-db \
	ifup:ifupdown netplan:netplan.io udevadm:udev certbot:certbot pebble:pebble
# It checks the metrics and the alerts of contrib/.
PROMETHEUS_PROGRAMS := promtool:prometheus
VM_PROGRAMS := mke2fs:e2fsprogs setpriv:util-linux qemu-system-x86_64:qemu-system-x86

.PHONY: help demo test quick lint compiled format coverage programs root acceptance vm guests fuzz conformance bench docs man release deb clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/demo.done
	$(BIN)/etherws demo $(ARGS)

test: programs
	@$(MAKE) --no-print-directory --jobs 2 lint compiled
	$(PYTEST) $(ARGS)

quick: $(VENV)/test.done
	$(PYTEST) --quiet -m "not namespaces and not packages and not frr and not vm and not guests" --hypothesis-profile=quick $(ARGS)

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A first look at the tests compiles them, which else each worker would do for itself. Some modules are imported only by
# the processes that tests start; each start would compile them.
compiled: $(VENV)/test.done
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only --quiet >/dev/null || true
	@$(BIN)/python -m compileall -q etherws

format: $(VENV)/test.done
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

coverage: $(VENV)/test.done programs
	$(BIN)/python -m tests.coverage_report $(ARGS)

programs:
	@sh contrib/apt-programs $(TEST_PROGRAMS) $(PROXY_PROGRAMS) || true

acceptance: root $(VENV)/acceptance.done docs programs
	@sh contrib/apt-programs $(DEBIAN_PROGRAMS) $(PEER_PROGRAMS) $(PROMETHEUS_PROGRAMS) $(GATEWAY_PROGRAMS) \
		$(DOCS_PROGRAMS) || true
	rm -rf $(VENV)/typed
	$(BIN)/python -m pytest -m "packages or frr or types" $(BY_FILE) --durations 12 $(ARGS)
	$(MAKE) vm ARGS=$(if $(LONG),,--no-long)
	$(if $(LONG),$(MAKE) guests ARGS=)
	$(if $(ARGS),,$(if $(LONG),$(BIN)/python -m tests.typed))

root:
	@[ "$$(id -u)" = 0 ] || { echo "make acceptance needs root: it makes Debian systems by debootstrap" >&2; exit 1; }

vm: $(VENV)/test.done
	@sh contrib/apt-programs $(DEBIAN_PROGRAMS) $(VM_PROGRAMS)
	@$(BIN)/python -m tests.vm.run $(ARGS)

# One after the other: two machines have a processor each.
guests: $(VENV)/test.done
	@sh contrib/apt-programs $(DEBIAN_PROGRAMS) $(VM_PROGRAMS)
	$(BIN)/python -m pytest -m guests tests/guests $(ARGS)

fuzz: $(VENV)/test.done
	$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(ARGS)

conformance: $(VENV)/test.done
	$(BIN)/python -m tests.autobahn.run

bench: $(VENV)/bench.done
	@sh contrib/apt-programs $(BENCH_PROGRAMS) || true
	$(BIN)/python bench/run.py $(ARGS)

docs: $(VENV)/docs.done
	rm -rf docs/_build
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "read docs/_build/html/index.html"

man: $(VENV)/docs.done
	rm -rf share
	$(BIN)/python docs/manual.py share
	@echo "try: man ./share/man/man1/etherws.1"

release: $(VENV)/release.done man
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m tests.release dist

# It installs what it needs itself: the system's Python decides what that is.
deb: man
	sh contrib/deb/build

clean:
	rm -rf $(VENV) build dist docs/_build docs/commands share *.egg-info .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/etherws"

# Debian keeps venv's own pip in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh contrib/apt-programs venv:python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: $(BIN)/python requirements.txt setup.py
	$(PIP_INSTALL) -r requirements.txt -e .
	@touch $@

$(VENV)/test.done: $(VENV)/demo.done tests/requirements.txt
	$(PIP_INSTALL) -r tests/requirements.txt
	@touch $@

$(VENV)/bench.done: $(VENV)/test.done bench/requirements.txt
	$(PIP_INSTALL) -r bench/requirements.txt
	@touch $@

# npm brings its packages into a folder of their own; without npm their tests are skipped. Node has authorities of its
# own: those that this machine trusts come in addition, since a registry may be behind one of them.
$(VENV)/acceptance.done: $(VENV)/test.done tests/requirements-acceptance.txt tests/peers/package.json
	$(PIP_INSTALL) -r tests/requirements-acceptance.txt
	@sh contrib/apt-programs npm:npm node:nodejs || true
	@mkdir -p $(VENV)/peers && cp tests/peers/package.json $(VENV)/peers/
	@! command -v npm >/dev/null || \
		NODE_EXTRA_CA_CERTS=$${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt} npm install --silent --no-audit --no-fund --prefix $(VENV)/peers
	@touch $@

$(VENV)/docs.done: $(VENV)/demo.done docs/requirements.txt
	$(PIP_INSTALL) -r docs/requirements.txt
	@touch $@

$(VENV)/release.done: $(VENV)/test.done tests/requirements-release.txt
	$(PIP_INSTALL) -r tests/requirements-release.txt
	@touch $@
