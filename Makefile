# Everything here makes its own virtual environment and installs what it needs.
#   make demo              one live upgrade on embedded SQLite; ON=postgresql, mariadb or mysql: on that server
#   make test              all checks and all tests, on every server; what continuous integration runs
#   make test-quick        the tests on SQLite alone; ARGS go to pytest
#   make lint | docs | bench | clean
# PYTHON chooses the interpreter (3.10 to 3.13), JOBS the number of parallel test processes.

PYTHON ?= python3
# On two processors: a test waits half its time, for locks, for a server or for the clock.
JOBS ?= 3
SERVERS ?= all
ON ?=
ARGS ?=
VENV := .venv
# The older of the two supported series of SQLAlchemy has an environment of its own. (On Python 3.10 both have
# the older one: SQLAlchemy 2.1 needs 3.11.)
VENV20 := .venv-sqlalchemy20
VENVDEMO := .venv-demo
PIP := -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-quick lint types docs pytest pytest-sqlalchemy20 bench clean
.DELETE_ON_ERROR:

demo: $(VENVDEMO)/installed
	$(VENVDEMO)/bin/contraflow demo $(if $(ON),--on $(ON)) $(ARGS)

# The quick checks come first, the long run over all servers last.
test:
	$(MAKE) lint types docs
	$(MAKE) pytest-sqlalchemy20
	$(MAKE) pytest

pytest: $(VENV)/installed
	@$(VENV)/bin/python -c 'import sqlalchemy as s, sys; print("SQLAlchemy", s.__version__, "Python", sys.version.split()[0])'
	$(VENV)/bin/python -m pytest --server $(SERVERS) -n $(JOBS) --durations 15 $(ARGS)

pytest-sqlalchemy20: $(VENV20)/installed
	@$(VENV20)/bin/python -c 'import sqlalchemy as s, sys; print("SQLAlchemy", s.__version__, "Python", sys.version.split()[0])'
	$(VENV20)/bin/python -m pytest --server sqlite -n $(JOBS) --load-requests 4000 $(ARGS)

test-quick: $(VENV)/installed
	$(VENV)/bin/python -m pytest --load-requests 4000 $(ARGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

# Against SQLAlchemy 2.1's types, which are stricter than 2.0's and not always compatible with them.
types: $(VENV)/installed
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "$(VENV)/bin/mypy" && $(VENV)/bin/mypy; \
	else \
		echo "types: NOT checked on Python 3.10, which SQLAlchemy 2.1 does not support; any newer Python checks them."; \
	fi

docs: $(VENV)/installed
	$(VENV)/bin/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

bench: $(VENV)/installed
	$(VENV)/bin/python -m bench.run $(ARGS)
	set -e; for script in $(wildcard bench/retry_*.py); do echo "== $$script"; $(VENV)/bin/python "$$script"; done

clean:
	rm -rf $(VENV) $(VENV20) $(VENVDEMO) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/installed: pyproject.toml tools/system-packages
	tools/system-packages $(PYTHON) servers
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(VENV)/bin/python $(PIP) -e . "SQLAlchemy>=2.1,<2.2; python_version >= '3.11'" --group test --group drivers --group keystone --group lint --group docs
	touch $@

$(VENV20)/installed: pyproject.toml tools/system-packages
	tools/system-packages $(PYTHON) servers
	$(PYTHON) -m venv --clear $(VENV20)
	$(VENV20)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(VENV20)/bin/python $(PIP) -e . "SQLAlchemy>=2.0.36,<2.1" --group test --group drivers
	touch $@

$(VENVDEMO)/installed: pyproject.toml tools/system-packages
	tools/system-packages $(PYTHON)
	$(PYTHON) -m venv --clear $(VENVDEMO)
	$(VENVDEMO)/bin/python $(PIP) -e ".[postgresql,mysql,servers]"
	touch $@
