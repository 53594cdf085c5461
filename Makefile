# Every target sets up what it needs: an environment in .venv, from Python 3.10 and a package index.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
# One epoch keeps the demonstration under five minutes on two cores; the figures in dgl/ come from ten.
DEMO_EPOCHS ?= 1
DEMO_OUT ?= demo

.DEFAULT_GOAL := help
.PHONY: help env demo experiment docs test test-install test-production test-faults lint bench bench-quick bench-aggregator bench-attack bench-channels bench-dropouts bench-flower bench-leaving bench-small audit evaluate clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

env: $(READY) ## make the environment

$(READY): pyproject.toml setup.py
	@.ci/environment $(VENV)
	@touch $@

demo: $(READY) ## train with and without pruning, attack, draw (into demo/)
	$(PYTHON) experiments/test_h_nn_prune.py --compare --epochs $(DEMO_EPOCHS) --out $(DEMO_OUT)

experiment: $(READY) ## the same with the ten epochs of the figures in dgl/
	$(PYTHON) experiments/test_h_nn_prune.py --compare --epochs 10 --out dgl

docs: $(READY) ## the documentation site, into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

lint: $(READY) ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint ## lint and all tests
	$(PYTHON) -m pytest --durations 15

test-install: $(READY) ## the package installed into new environments: wheel, editable, beside another copy, types
	$(PYTHON) -m pytest tests/packaging -m install

test-production: $(READY) ## three parties in network namespaces, which take root; without, what was not tested is said
	$(PYTHON) -m pytest tests/production -m namespaces

test-faults: $(READY) ## parties that are killed, stopped or slow, a server that lies, random schedules (8 minutes)
	FAULTS_TABLE=docs/production.md $(PYTHON) -m pytest tests/security/aggregation/dropouts -m "faults or not faults"

bench-aggregator: $(READY) ## the aggregator beside upstream's, into benchmarks/results/aggregator.json
	$(PYTHON) -m benchmarks.aggregator

bench: $(READY) ## rounds and starts beside upstream, into benchmarks/results/latest.json (35 minutes)
	$(PYTHON) -m benchmarks.training

bench-quick: $(READY) ## the same in five minutes, rounds and starts only, into bench-quick/
	$(PYTHON) -m benchmarks.training --quick --out bench-quick/latest.json

bench-attack: $(READY) ## the batched attack beside a loop, into benchmarks/results/attack.json
	$(PYTHON) -m benchmarks.attack

bench-channels: $(READY) ## the channel to the server beside others, into benchmarks/results/channels.json
	$(PYTHON) -m benchmarks.channels

bench-dropouts: $(READY) ## rounds that lose parties beside those that cannot, into benchmarks/results/dropouts.json
	$(PYTHON) -m benchmarks.dropouts

bench-flower: $(READY) ## rounds beside Flower's simulation, into benchmarks/results/flower.json (11 minutes)
	$(PYTHON) -m benchmarks.flower

bench-leaving: $(READY) ## what a party that leaves a weight leaks, and the rules' cost, into benchmarks/results/leaving.json
	$(PYTHON) -m benchmarks.leaving

bench-small: $(READY) ## the small net of structured pruning beside the whole one, into benchmarks/results/small_export.json
	$(PYTHON) -m benchmarks.small_export

audit: $(READY) ## the leakage audit, into dgl/audit (20 minutes on two cores; goes on where it was stopped)
	$(PYTHON) experiments/leakage_audit.py --out dgl/audit

evaluate: $(READY) ## accuracy and upload of pruned training, into docs/results (hours; goes on where it was stopped)
	$(PYTHON) -m experiments.evaluate

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist site *.egg-info
