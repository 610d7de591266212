# `make help` lists the targets. Each one does all of its own set-up; a set-up that is there already costs nothing.

TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=. OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false $(BIN)

.PHONY: help demo space test slow quality style bench-quick

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The CPU-friendly torch goes in first, so that nothing pulls another build of it.
$(VENV)/.installed: setup.cfg pyproject.toml Makefile | $(BIN)/python
	@echo "Installing into $(VENV) (a minute or two, once)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e '.[test]'
	@touch $@

$(VENV)/.installed-space: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e '.[space]'
	@touch $@

demo: $(VENV)/.installed ## backdoor the sandbox CLIP, clean it, print the before/after table (outputs/demo)
	@$(RUN)/python scripts/demo.py

space: $(VENV)/.installed-space ## the page: put a trigger on a picture, ask both models (http://127.0.0.1:7860)
	@MODEL_ROOTS="$${MODEL_ROOTS:-$(CURDIR)/outputs}" $(RUN)/python spaces_demo/app.py

bench-quick: $(VENV)/.installed ## the table of three attacks x three methods
	@$(RUN)/python -m benchmarks.quick

test: $(VENV)/.installed-test ## run the default test suite
	@$(RUN)/python -m pytest -q -n 2 --dist loadfile tests

slow: $(VENV)/.installed-test ## run the long tests only
	@$(RUN)/python -m pytest -q -m slow tests

quality: $(VENV)/.installed-test ## check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

style: $(VENV)/.installed-test ## mend style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
