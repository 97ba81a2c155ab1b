# Everything runs in .venv, made from requirements.lock where it is missing or older than the lock.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1

PRIVATE = for each in .dvc/cache data/ingest data/clean data/dedup_exact; do if [ -d $$each ]; then chmod 700 $$each; fi; done

.PHONY: setup repro private test check lock bench

setup: .venv/installed ## the environment

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Finery needs Python 3.11 or later, this is %s. Try: make PYTHON=python3.11" % sys.version.split()[0])'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	touch $@

repro: setup ## raw files to verdict; what is up to date does not run
	@dvc repro; result=$$?; $(PRIVATE); exit $$result
	@echo
	@echo "Curation report: reports/curation.html"
	@echo "Evaluation:      reports/evaluation.html"
	@echo "Model card:      reports/model-card.md"
	@python -c 'import json; e = json.load(open("reports/evaluation.json")); print("Verdict:         " + e["verdict"] + ". " + e["reason"])'

private: ## what holds originals, for the owner alone: `dvc checkout` makes folders that all can read
	@$(PRIVATE)

test: setup ## unit tests, then the whole pipeline
	python -m pytest

check: setup ## format, lint, types
	ruff format --check .
	ruff check .
	mypy curate train evaluate flows tests bench data/sample

lock: ## renew requirements.lock from pyproject.toml
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	$(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); print("\n".join(p["project"]["dependencies"] + p["dependency-groups"]["dev"]))' > .venv-lock/direct.txt
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-lock/direct.txt
	(echo "# Exact versions of everything; renewed by 'make lock'."; .venv-lock/bin/python -m pip freeze | sed 's/+cpu$$//') > requirements.lock
	rm -rf .venv-lock

bench: setup ## seconds and memory of every stage, then near-duplicates against the peers (half an hour; writes docs/benchmarks.md)
	python -m bench
	python -m bench.near_dup
	python -m bench.whole_way
	python -m bench.preparation
	python -m bench.pii
