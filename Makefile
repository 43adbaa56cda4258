# make demo   does Diff-II help on five images per class?  (creates .venv on the first run)
# make test   everything that is checked: style, habits, exported code, pytest, all notebooks, all pages
# make test-long  what takes longer: fuzz with many examples, 40 folder layouts with ten planted wrongs each, faults for real (under an hour)
# make faults     only the faults for real: kills, full and read-only disks, damaged files, several processes (under 30 minutes)
# make lab    JupyterLab on the notebooks (LAB='--no-browser --port 8899' for its options)
# make prepare  everything that is made from the notebooks: genaug/, the sidebar, the tables of the index, README.md
# make docs   the site in _docs/
# make wheel-check   build a wheel, install it alone into a fresh environment, run the command line there
# VENV=... uses another environment, WORKERS=... another number of test processes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 8 ? n : 8 )))
BIN := $(VENV)/bin
# Installed once per environment and per content of what is installed from.
STAMP := $(VENV)/.installed-$(shell cat settings.ini setup.py constraints.txt | cksum | cut -d' ' -f1)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# This checkout is what runs, also where several share one environment; and no test needs a network.
export PYTHONPATH := $(CURDIR)
QUIET := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=Agg TOKENIZERS_PARALLELISM=false

.PHONY: demo test test-long faults style pytest notebooks pages prepare lab docs wheel-check install clean
.DEFAULT_GOAL := test

install: $(STAMP)

$(STAMP):
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt setuptools wheel
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e ".[dev,tables]"
	rm -f $(VENV)/.installed-* && touch $@

demo: $(STAMP)
	$(BIN)/genaug compare digit-scenes --shots 5 --methods original,diff-ii --seeds 5 --out demo_out
	$(BIN)/genaug report demo_out

test: $(STAMP)
	@started=$$(date +%s); \
	$(MAKE) --no-print-directory style pytest notebooks pages; \
	echo "make test: everything passed in $$(( $$(date +%s) - started )) s"

test-long: $(STAMP)
	@started=$$(date +%s); \
	$(QUIET) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --timeout 1800 --durations 10 -p no:cacheprovider --long -m long tests; \
	$(MAKE) --no-print-directory faults; \
	echo "make test-long: everything passed in $$(( $$(date +%s) - started )) s"

faults: $(STAMP)
	$(QUIET) $(BIN)/python tools/faults.py

style: $(STAMP)
	$(BIN)/ruff format --check --quiet --no-cache --config tools/ruff.toml nbs tests tools setup.py
	$(BIN)/ruff check --quiet --no-cache --config tools/ruff.toml nbs tests tools setup.py
	$(BIN)/ruff check --quiet --no-cache --config tools/ruff.toml --line-length 130 genaug  # nbdev wraps __all__ at 130

pytest: $(STAMP)
	$(QUIET) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --timeout 900 --durations 10 -p no:cacheprovider tests

notebooks: $(STAMP)
	@echo "nbdev_test: every notebook from top to bottom"
	@log=$$(mktemp); trap 'rm -f $$log' EXIT; started=$$(date +%s); \
	$(QUIET) $(BIN)/nbdev_test --n_workers $(WORKERS) --timing > $$log 2>&1 || { cat $$log; exit 1; }; \
	grep ' secs$$' $$log | head -n 10 || true; \
	echo "nbdev_test: $$(grep -c ' secs$$' $$log) notebooks passed in $$(( $$(date +%s) - started )) s; the slowest stand above"

pages: $(STAMP)
	$(QUIET) $(BIN)/python tools/sidebar.py --check
	$(QUIET) $(BIN)/python tools/readme.py --check
	$(QUIET) $(BIN)/python tools/pages.py --out _docs

prepare: $(STAMP)
	$(BIN)/ruff format --quiet --no-cache --config tools/ruff.toml nbs tests tools setup.py
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/sidebar.py
	$(QUIET) $(BIN)/python tools/readme.py

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir nbs $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

docs: $(STAMP)
	$(BIN)/python tools/sidebar.py
	if command -v quarto >/dev/null; then $(BIN)/nbdev_docs; else $(BIN)/python tools/pages.py --out _docs; fi

wheel-check: $(STAMP)
	bash tools/wheel_check.sh $(BIN)/python

clean:
	rm -rf _proc _docs build dist demo_out *.egg-info .pytest_cache nbs/nbdev.yml nbs/sidebar.yml
	find genaug tests tools nbs -name __pycache__ -prune -exec rm -rf {} +
