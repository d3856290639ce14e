# The whole interface of a fresh clone. Everything goes into .venv; a second call starts at once.
# It needs python3 (3.11 or newer), git and make. pip's own configuration (PIP_* and pip.conf) is respected.

PYTHON ?= python3
# Else every process compiles what it imports anew: 20 s for vLLM alone.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := demo-output

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow rehearse-nightly bench lint clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## everything into .venv, the CPU profile with the development tools

# Some samples are damaged on purpose, which is more than `ffaa score` takes for a success by itself.
demo: $(INSTALLED) ## score sample images and show their verdicts
	$(BIN)/python infra/samples.py $(DEMO)/images
	$(BIN)/ffaa score $(DEMO)/images $(DEMO)/verdicts --max-failure-rate 1
	$(BIN)/ffaa table show $(DEMO)/verdicts

# Two processes share the files: much of a test's time is one core loading models.
test: $(INSTALLED) ## the tests, with coverage
	$(BIN)/pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder --durations 12 --cov --cov-report=term

test-slow: $(INSTALLED) ## the tests that take long
	$(BIN)/pytest -m slow

# With CI=true what is missing is a failure.
rehearse-nightly: $(INSTALLED) ## three nights of k8s/ on a Ray cluster within this machine; needs root
	@test "$$(id -u)" = 0 || { echo "make rehearse-nightly needs root: each node has a network of its own" >&2; exit 2; }
	CI=true $(BIN)/pytest -s -q tests/k8s/test_rehearsal.py

# A million images take an hour or two on two cores.
bench: $(INSTALLED) ## what is claimed about memory and time, measured anew
	$(BIN)/python -m benchmarks.big_plans --json docs/big-plans.json --plot docs/big-plans.png

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## remove .venv and what the demo wrote
	rm -rf .venv $(DEMO)

# Not compiled: that takes 40 s, for modules most of which nobody imports.
$(INSTALLED): pyproject.toml infra/constraints-cpu.txt infra/system-packages $(wildcard infra/torchvision-hook/*.*)
	@infra/system-packages $(PYTHON)
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv: about 4 GB, which takes some minutes."
	@$(BIN)/pip install -qq --disable-pip-version-check --no-compile --constraint infra/constraints-cpu.txt \
		--editable '.[cpu,dev]' ./infra/torchvision-hook
	@touch $@
