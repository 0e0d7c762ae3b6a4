# tonfs: see README.md. Every target sets up what it needs first.
.PHONY: setup demo demo-check test bench lint interop clean
.DEFAULT_GOAL := setup
PY := .venv/bin/python
JOBS ?= 2

setup:
	@scripts/setup.sh

demo: setup
	@.venv/bin/tonfs --volume ./.demo/volume up .demo/tonfs --s3 127.0.0.1:8080

demo-check: setup
	@scripts/judges.sh aws tonutils
	@$(PY) scripts/demo_check.py

test: setup
	@$(PY) -m pytest -q -n $(JOBS) --dist worksteal

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy tonfs
	@.venv/bin/lint-imports

bench: setup
	@scripts/judges.sh nanio
	@$(PY) benchmarks/run.py

# ONLY="words" chooses groups or judges, SUITES=DIR adds public suites that somebody built there (docs/posix.md)
interop: setup
	@scripts/judges.sh
	@SUITES="$(SUITES)" $(PY) -m scripts.interop $(ONLY)

clean:
	rm -rf .venv .judges build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
