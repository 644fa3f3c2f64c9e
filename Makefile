# make demo         a link between two virtual hypervisors, in network namespaces
# make test         lint, types and every test
# make fuzz         what strangers may send, for some minutes
# make conformance  the Autobahn test suite on both ends, where there is a Python 2.7
# make bench        etherws beside its peers, as root
#
# Each installs what it needs: Python packages into .venv, Debian's packages when run as root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# program:package of Debian and Ubuntu, for the tests and the benchmark. Tests whose program is missing are skipped.
TEST_PROGRAMS := ip:iproute2 ping:iputils-ping iperf3:iperf3 brctl:bridge-utils ifconfig:net-tools openssl:openssl \
	htpasswd:apache2-utils nft:nftables unshare:util-linux squid:squid microsocks:microsocks chromium:chromium
# gcc comes without the C library's headers there; c99, which is missing when gcc is, stands for them.
BENCH_PROGRAMS := $(TEST_PROGRAMS) cc:gcc c99:libc6-dev openvpn:openvpn vtund:vtun tincd:tinc

# Servers to stand behind, for the tests. A file that is no program is named by its path.
PROXY_PROGRAMS := nginx:nginx /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream \
	haproxy:haproxy caddy:caddy apache2:apache2-bin

.PHONY: demo test fuzz conformance bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -7

demo: $(VENV)/demo.done
	$(BIN)/etherws demo $(ARGS)

test: $(VENV)/test.done
	@sh contrib/apt-programs $(TEST_PROGRAMS) $(PROXY_PROGRAMS) || true
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(VENV)/test.done
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/system/test_fuzz.py $(ARGS)

conformance: $(VENV)/test.done
	$(BIN)/python -m tests.autobahn.run

bench: $(VENV)/bench.done
	@sh contrib/apt-programs $(BENCH_PROGRAMS) || true
	$(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Debian keeps venv's own pip in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh contrib/apt-programs venv:python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: $(BIN)/python requirements.txt setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	@touch $@

$(VENV)/bench.done: $(VENV)/test.done bench/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

$(VENV)/test.done: $(VENV)/demo.done tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@
