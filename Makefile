# Everything runs in .venv, made from the lock file. Python 3.11 to 3.13 and make are
# all that a fresh machine needs. Another interpreter: make PYTHON=/path/to/python3.12

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := requirements/cpu.lock
JUDGES := .venv-judges
EXPLAINERS := .venv-explainers
SERVING := .venv-serving

# Warnings and errors of TensorFlow's native part only.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test test-slow test-oldest test-newest test-distributed serve serve-test load-test coverage docs check judges explainers study format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(READY) ## train, attack, explain: a first tour, written to quickstart/
	$(BIN)/python examples/quickstart.py --out quickstart

# Two processes: each holds a TensorFlow of its own, about 2 GB. One: make test JOBS=0
JOBS ?= 2

test: $(READY) ## run the tests, but for the slow ones
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

test-slow: $(READY) ## run the slow tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m slow tests

# The lowest versions that pyproject.toml admits, and the newest that there are.
test-oldest: ## run the tests with the lowest versions allowed (Python 3.11 or 3.12)
	$(call TEST_WITH,.venv-oldest,--resolution lowest-direct)

test-newest: ## run the tests with the newest versions that there are
	$(call TEST_WITH,.venv-newest,--upgrade)

test-distributed: $(READY) ## train on 2 and 3 worker processes and on 2 devices, kill one (10 minutes)
	$(BIN)/python -m pytest -m slow tests/training/test_distribution.py

# KServe needs another protobuf than the lock file has: an environment of its own.
$(SERVING)/.ready: $(LOCK) pyproject.toml
	@$(FIND_PYTHON); "$$python" -m venv --clear $(SERVING)
	$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check \
	  "kserve>=0.21" "locust>=2.40"
	$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	@touch $@

MODEL ?= served/fashion

serve: $(SERVING)/.ready ## serve the exports MODEL/1, MODEL/2 ... by KServe on 127.0.0.1:8080
	$(SERVING)/bin/python -m keras_jsigr.serving.server $(MODEL)

serve-test: $(SERVING)/.ready ## test the model server: answers, versions, malformed requests
	$(SERVING)/bin/python -m pytest tests/serving/test_server.py

load-test: $(SERVING)/.ready ## measure the model server under load (3 minutes)
	$(SERVING)/bin/python benchmarks/server_load.py

coverage: $(READY) ## run the tests of `make test` and print what they cover
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" \
	  --cov keras_jsigr --cov-branch --cov-report term:skip-covered

docs: $(READY) ## build the documentation site into build/docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

check: $(READY) docs ## style, types, spelling, structure, documentation and its code blocks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict keras_jsigr
	$(BIN)/codespell
	$(BIN)/python scripts/check_structure.py
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --recursive keras_jsigr --severity-level medium
	$(BIN)/python scripts/check_code_blocks.py

judges: $(READY) ## compare the attacks with ART, Foolbox, cleverhans, AutoAttack (an hour)
	$(BIN)/python -m venv --clear $(JUDGES)
	$(JUDGES)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r $(LOCK) -r requirements/judges.txt
	$(JUDGES)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	$(JUDGES)/bin/python -m pytest tests/peers/test_judges.py
	$(JUDGES)/bin/python benchmarks/judge_suite.py
	$(JUDGES)/bin/python benchmarks/attacks.py

explainers: $(READY) ## compare the maps with Xplique, tf-keras-vis and PAIR (15 minutes)
	$(BIN)/python -m venv --clear $(EXPLAINERS)
	$(EXPLAINERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r $(LOCK)
	$(EXPLAINERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps -r requirements/explainers.txt
	$(EXPLAINERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	$(EXPLAINERS)/bin/python -m pytest tests/peers/test_explainers.py
	$(EXPLAINERS)/bin/python benchmarks/saliency_speed.py

# Where the four IDX files of Fashion-MNIST are, if not where Debian puts them.
DATA_DIR ?=

# Of all of them, hours upon hours: make study METHODS=
METHODS ?= --methods plain j_sigr j_sigr_balanced fgsm_rs pgd_7 j_sigr_fgsm_rs

# What is measured already is not measured again: in a clone that is all. From nothing,
# into a file of its own: make study OUT=again.json
OUT ?=

study: $(READY) ## train and judge J-SIGR and its main peers (OUT=again.json: from nothing)
	$(BIN)/python benchmarks/study.py $(METHODS) $(if $(OUT),--out $(OUT)) \
	  $(if $(DATA_DIR),--data-dir $(DATA_DIR))

format: $(READY) ## put the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## choose the newest allowed versions anew
	@$(FIND_PYTHON); \
	"$$python" -m venv --clear .venv-lock; \
	.venv-lock/bin/python -m pip install --quiet --upgrade uv; \
	.venv-lock/bin/uv pip compile --quiet --upgrade --universal \
	  --fork-strategy fewest --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links \
	  requirements/cpu.in --group pyproject.toml:dev --output-file $(LOCK); \
	rm -rf .venv-lock

clean: ## remove .venv and everything that was generated
	rm -rf $(VENV) .venv-oldest .venv-newest $(JUDGES) $(EXPLAINERS) $(SERVING) .venv-lock build dist quickstart search *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted installation starts again from nothing.
$(READY): $(LOCK) pyproject.toml
	@$(FIND_PYTHON); \
	echo "making $(VENV) with $$python (installs TensorFlow: a few minutes)"; \
	"$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	@touch $@

# Sets the shell variable `python` to the first interpreter that fits and can make an
# environment, or stops with a message.
define FIND_PYTHON
set -eu; python=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
  if "$$candidate" -c 'import ensurepip, sys; \
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then \
    python="$$candidate"; break; \
  fi; \
done; \
if [ -z "$$python" ]; then \
  echo "no Python 3.11, 3.12 or 3.13 with venv found; name one: make PYTHON=..." >&2; \
  exit 1; \
fi
endef

# An environment of its own, resolved by uv for the interpreter at hand.
define TEST_WITH
@$(FIND_PYTHON); "$$python" -m venv --clear $(1); \
$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv; \
$(1)/bin/uv pip install --quiet --python $(1)/bin/python $(2) \
  -e ".[tensorflow-cpu,cleverhans]" --group test; \
$(1)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"
endef
