# Each target sets up all it needs, once, in .venv: `make train` on a bare checkout is enough.
# It needs Python 3.11 or later with venv, make and git.

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3.11 python3,\
	$(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $(name))))
BIN = .venv/bin
ADDONS_PYTHON ?= $(shell command -v python3.11)
ADDONS_BIN = .venv-addons/bin
ADDONS_OUT = build/addons
ARGS ?=
OF_DEMO = $(if $(or $(findstring --dataset,$(ARGS)),$(findstring --resume,$(ARGS))),,--dataset demo)

.PHONY: help train test test-long bench addons clean
.DELETE_ON_ERROR:

help:
	@echo 'make train      train, evaluate and export, on the demo data or ARGS="--dataset ..."'
	@echo 'make test       ruff and the quick tests (ARGS="..." goes to pytest)'
	@echo 'make test-long  the tests that take minutes'
	@echo 'make bench      every benchmark, one after the other'
	@echo 'make addons     our search and measures beside those of tensorflow-addons, in .venv-addons'
	@echo 'make clean      remove .venv*, caches and build leftovers; data/ and runs/ stay'
	@echo 'PYTHON=...      the Python to make .venv with (default: python3.11, else python3)'
	@echo 'ADDONS_PYTHON=... the Python 3.11 to make .venv-addons with (default: python3.11)'

train: .venv/.installed
	$(BIN)/python train.py $(OF_DEMO) $(ARGS)

test: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10 $(ARGS)

test-long: .venv/.installed-test
	$(BIN)/python -m pytest -m long $(ARGS)

bench: .venv/.installed .venv-addons/.installed
	@status=0; for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || status=1; \
	done; exit $$status

# Minutes. The two environments cannot be one, so each writes files: ours first, for theirs reads them.
addons: .venv/.installed .venv-addons/.installed
	@echo 'Searching and measuring in both environments: two to six minutes.'
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python benchmarks/addons/ours.py $(ADDONS_OUT) $(ARGS)
	@TF_CPP_MIN_LOG_LEVEL=3 $(ADDONS_BIN)/python benchmarks/addons/theirs.py $(ADDONS_OUT)
	@$(BIN)/python benchmarks/addons/compare.py $(ADDONS_OUT)

clean:
	rm -rf .venv .venv-addons build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './data/*' -not -path './runs/*' -prune -exec rm -rf {} +

# The environment, by stamps: made once, installed again when the dependencies change.

.venv/.made:
	@fail() { echo "$$1" >&2; exit 1; }; python='$(PYTHON)'; \
	test -n "$$python" || \
		fail 'no Python 3.11 or later found: sudo apt install python3.11-venv'; \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null || \
		fail "PYTHON=$$python: expected Python 3.11 or later"; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || \
		fail "the venv module is missing: sudo apt install $$($$python -c \
			'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
	rm -rf .venv; \
	$$python -m venv .venv || { rm -rf .venv; fail "$$python -m venv failed"; }
	@touch $@

.venv/.installed: .venv/.made setup.py pyproject.toml
	@echo 'Installing TensorFlow and what else is needed into .venv: once, some minutes.'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-test: .venv/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,beam,tfds,serving]'
	@touch $@

# tensorflow-addons has no wheel for a later Python than 3.11, and cannot be imported beside Keras 3.

.venv-addons/.made:
	@fail() { echo "$$1" >&2; exit 1; }; python='$(ADDONS_PYTHON)'; \
	test -n "$$python" || \
		fail 'no Python 3.11 found: sudo apt install python3.11-venv, or make addons ADDONS_PYTHON=...'; \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		fail "ADDONS_PYTHON=$$python: expected Python 3.11, the last that tensorflow-addons has wheels for"; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || \
		fail 'the venv module is missing: sudo apt install python3.11-venv'; \
	rm -rf .venv-addons; \
	$$python -m venv .venv-addons || { rm -rf .venv-addons; fail "$$python -m venv failed"; }
	@touch $@

.venv-addons/.installed: .venv-addons/.made benchmarks/addons/requirements.txt
	@echo 'Installing tensorflow-addons and TensorFlow 2.15 into .venv-addons: once, 1.7 GB, some minutes.'
	@$(ADDONS_BIN)/python -m pip install --quiet --disable-pip-version-check \
		--requirement benchmarks/addons/requirements.txt
	@touch $@
