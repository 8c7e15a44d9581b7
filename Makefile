# `make demo` and `make test` do their whole set-up: a virtual environment in .venv, and the package with its dependencies.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
INTEGRATIONS := .venv-integrations
# whole files, whose tests share models, in the order of tests/conftest.py
PYTEST := $(VENV)/bin/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick lint docs test-integrations clean

demo: $(STAMP)
	$(VENV)/bin/muquant demo

test: lint
	$(PYTEST)

quick: $(STAMP)
	$(PYTEST) -m "not slow"

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "built site/index.html"

# against the packages themselves, which want versions of their own
test-integrations: $(INTEGRATIONS)/.installed
	$(INTEGRATIONS)/bin/python -c 'import lightning, olive, optimum.onnxruntime, pyautoattack, torchao' # so that none is skipped
	$(INTEGRATIONS)/bin/pytest -W default tests/integrations

$(INTEGRATIONS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python -m pip install --quiet --upgrade pip
	$(INTEGRATIONS)/bin/python -m pip install --quiet --editable '.[dev,integrations]'
	@touch $@

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "muquant needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) $(INTEGRATIONS) demo dist build site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf examples/networks examples/*/node_modules tests/examples/browser/node_modules
