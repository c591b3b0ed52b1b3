# Each target sets up all it needs, once, in .venv: `make train` on a bare checkout is enough.
# It needs Python 3.11 or later with venv, make and git.

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3.11 python3,\
	$(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $(name))))
BIN = .venv/bin
ARGS ?=

.PHONY: help train test test-long bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make train      train, evaluate and export on the demo data (ARGS="..." goes to train.py)'
	@echo 'make test       ruff and the quick tests (ARGS="..." goes to pytest)'
	@echo 'make test-long  the tests that take minutes'
	@echo 'make bench      every benchmark, one after the other'
	@echo 'make clean      remove .venv, caches and build leftovers; data/ and runs/ stay'
	@echo 'PYTHON=...      the Python to make .venv with (default: python3.11, else python3)'

train: .venv/.installed
	$(BIN)/python train.py --dataset demo $(ARGS)

test: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadfile $(ARGS)

test-long: .venv/.installed-test
	$(BIN)/python -m pytest -m long $(ARGS)

bench: .venv/.installed
	@for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; \
	done

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,beam,tfds]'
	@touch $@
