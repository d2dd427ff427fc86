# Everything runs in .venv, which is made here from a Python 3.11 or newer:
#
#   make demo [SECONDS=30] [PORT=8000] [ARGS=--stay]   a real cluster, a rebuild under load, and a proof
#   make test [ARGS="-k fold"]                         the tests, on a PostgreSQL of their own
#   make test ARGS="-m 'not slow'"                     those that take two minutes together
#   make bench [ARGS=--smoke]                          the benchmarks
#   make docs                                          the site, in docs/_build/html
#   make pictures                                      docs/pictures, of the page and of a terminal, light and dark
#   make lint                                          ruff and mypy
#   make release-check [ARGS=--no-tests]               whether a release could go out
#   make clean                                         remove .venv and what was built

SECONDS ?= 30
PORT ?= 8000
ARGS ?=

PY := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test bench docs pictures lint release-check clean
.DEFAULT_GOAL := test

demo: .venv/installed-demo
	@$(PY) -m examples.demo --seconds $(SECONDS) --port $(PORT) $(ARGS)

# One process more than there are cores, since many tests wait for a server or a browser; four at the most.
test: .venv/installed-test
	$(PY) -m pytest --numprocesses $$($(PY) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))') \
		--dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv/installed-dev
	$(PY) -m bench $(ARGS)

docs: .venv/installed-docs
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html

pictures: .venv/installed-test
	$(PY) -m examples.pictures $(ARGS)

# mypy does not see through an editable install, but it follows links laid out like the installed package.
lint: .venv/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@mkdir -p .venv/typed/chancy_metrics
	@ln -sfn $(foreach part,package/__init__.py events projections plugin migrations,$(CURDIR)/$(part)) .venv/typed/chancy_metrics/
	MYPYPATH=.venv/typed $(PY) -m mypy -p chancy_metrics -p examples -p bench $(ARGS)

release-check: .venv/installed-release
	@$(PY) -m tests.release_check $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One mark for each extra that is installed; another pyproject.toml installs again.
.venv/installed-%: pyproject.toml | .venv/bin/python
	@echo "Installing chancy-metrics[$*] into .venv"
	@$(PY) -m pip install --quiet --editable '.[$*]'
	@touch $@

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
		python=; \
	done; \
	test -n "$$python" || { \
		echo "chancy-metrics needs Python 3.11 or newer, and none of python3, python3.11 to python3.14 is one:" \
			"install it, or put it first on PATH." >&2; exit 1; }; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$$python can't make a virtual environment: install its venv module" \
			"(Debian and Ubuntu: apt-get install python3-venv), then run make again." >&2; exit 1; }; \
	echo "Making .venv with $$($$python --version)" && $$python -m venv --clear .venv || { rm -rf .venv; exit 1; }
