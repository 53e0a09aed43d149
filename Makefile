# make demo: a running pair and matching keys.   make test: every test.   Nothing needs doing before either.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test coverage lint soak bench deb installed clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "qmodd needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/qmodd demo $(ARGS)

test: install
	$(BIN)/python -m pytest -m "not processes and not long" -n 2 --dist loadfile $(ARGS)
	$(BIN)/python -m pytest -m "processes and not long" $(ARGS)

# The same with line coverage, which makes simulated time almost twice as slow.
coverage: install
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -m "not processes and not long" -n 2 --dist loadfile --cov --cov-report= $(ARGS)
	$(BIN)/python -m pytest -m "processes and not long" --cov --cov-append --cov-report=term:skip-covered $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: install
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile $(ARGS)
	$(BIN)/qmodd soak --days 0.2 --seed 1 --json
	$(BIN)/python -m benchmarks.kills

bench: install
	$(BIN)/python -m benchmarks

# The Debian package, for the Python and the architecture of this host.
deb:
	python3 systemd/deb/build.py --out dist

# Installed in a Debian of its own, upgraded, rolled back; minutes, as root, with debootstrap and systemd-container.
installed: install
	QMODD_TEST_INSTALLED=1 $(BIN)/python -m pytest tests/systemd/test_installed.py $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* dist build
