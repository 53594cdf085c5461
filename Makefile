# Every target sets up what it needs: an environment in .venv, from Python 3.10 or 3.11 and a package index.
# With PY=3.11 (or 3.10) it is one of that version, in .venv-3.11.

PY ?=
VENV := .venv$(if $(PY),-$(PY))
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
# A fifth of MNIST keeps the demonstration under two minutes on two cores; the figures in dgl/ come from all of it.
# From other seeds this small net knows eight or nine of the ten digits for as long.
DEMO := --rows 12000 --epochs 16 --prune-percent 6 --seed 3 --restarts 3
DEMO_OPTIONS ?=
DEMO_OUT ?= demo
FAST := 'not slow and not production and not install and not index and not faults'
SLOW := 'slow and not production and not install and not index and not faults'

.DEFAULT_GOAL := help
.PHONY: help env demo experiment docs test test-models test-rest test-slow test-fast test-other-python test-install test-production test-faults test-faults-protocol test-faults-fit lint bench bench-aggregator bench-attack bench-attack-peers bench-bytes bench-channels bench-contributors bench-dropouts bench-flower bench-leaving bench-parties bench-peers bench-quick bench-small audit evaluate release clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 28

env: $(READY) ## make the environment

$(READY): pyproject.toml setup.py
	@.ci/environment $(VENV) $(PY)
	@touch $@

demo: $(READY) ## train with and without pruning, attack, draw, in two minutes (into demo/)
	@$(PYTHON) experiments/test_h_nn_prune.py $(DEMO) --out $(DEMO_OUT) $(DEMO_OPTIONS)

experiment: $(READY) ## the same on all of MNIST, beside upstream's strategy: the figures in dgl/ (five minutes)
	$(PYTHON) experiments/test_h_nn_prune.py --upstream --epochs 10 --out dgl

docs: $(READY) ## the documentation site, into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

lint: $(READY) ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# In two processes at a time, for a test mostly uses one core; the dots of both alternate.
test: lint ## lint and the tests, in about ten minutes
	$(MAKE) -j 2 test-models test-rest

test-models: $(READY) ## the tests of models and their training, and some more, for both halves to take as long
	$(PYTHON) -m pytest tests/ml tests/benchmarks tests/party -m $(FAST) --durations 15

test-rest: $(READY) ## all other tests that do not take long
	$(PYTHON) -m pytest tests --ignore tests/ml --ignore tests/benchmarks --ignore tests/party -m $(FAST) --durations 15

test-slow: $(READY) ## the tests that take long: the examples and the main job as printed, starts of Ray
	$(PYTHON) -m pytest -m $(SLOW) --durations 15

test-fast: $(READY) ## what the package's own code does, in about three minutes, and whether its requirements agree
	$(PYTHON) -m pip check
	$(PYTHON) -m pytest tests/test_overlay.py tests/ml tests/security tests/device tests/simulation -m $(FAST)

# The version that the environment of `make test` does not have.
test-other-python: $(READY) ## the fast tests on the other one of Python 3.10 and 3.11, in an environment of its own
	$(MAKE) test-fast PY=$$($(PYTHON) -c 'import sys; print("3.10" if sys.version_info[1] == 11 else "3.11")')

test-install: $(READY) ## the package installed into new environments: wheel, editable, beside another copy, types
	$(PYTHON) -m pytest tests/packaging -m install

test-production: $(READY) ## three parties in network namespaces, which take root; without, what was not tested is said
	$(PYTHON) -m pytest tests/production -m "namespaces and not faults"

test-faults: ## parties, links and disks that fail, a server that lies, random schedules (45 minutes)
	$(MAKE) test-faults-protocol
	$(MAKE) test-faults-fit

test-faults-protocol: $(READY) ## the part of it that no fit is needed for (ten minutes)
	FAULTS_TABLE=docs/production.md $(PYTHON) -m pytest tests/security/aggregation/dropouts -m "faults or not faults"

test-faults-fit: $(READY) ## the rest of it: fits in a simulation and over a network, some in namespaces as root
	FAULTS_TABLE=docs/production.md $(PYTHON) -m pytest tests/simulation/test_survivors.py tests/simulation/test_signals.py -m "faults or not faults"
	$(PYTHON) -m pytest tests/production/test_survivors.py tests/production/test_unreachable.py tests/production/test_signals.py -m faults

bench-aggregator: $(READY) ## the aggregator beside upstream's, into benchmarks/results/aggregator.json
	$(PYTHON) -m benchmarks.aggregator

bench: $(READY) ## rounds and starts beside upstream, into benchmarks/results/latest.json (35 minutes)
	$(PYTHON) -m benchmarks.training

bench-quick: $(READY) ## the same in five minutes, rounds and starts only, into bench-quick/
	$(PYTHON) -m benchmarks.training --quick --out bench-quick/latest.json

bench-attack: $(READY) ## the batched attack beside a loop, into benchmarks/results/attack.json
	$(PYTHON) -m benchmarks.attack

bench-attack-peers: $(READY) ## the search by direction beside breaching's, into benchmarks/results/attack_peers.json
	$(PYTHON) -m benchmarks.attack_peers

bench-bytes: $(READY) ## bytes and accuracy of rounded updates, into benchmarks/results/bytes.json (an hour; goes on where it was stopped)
	$(PYTHON) -m benchmarks.bytes

bench-channels: $(READY) ## the channel to the server beside others, into benchmarks/results/channels.json
	$(PYTHON) -m benchmarks.channels

bench-contributors: $(READY) ## what the rules about contributors cost in accuracy, into benchmarks/results/contributors.json (an hour)
	$(PYTHON) -m benchmarks.contributors

bench-dropouts: $(READY) ## rounds that lose parties beside those that cannot, into benchmarks/results/dropouts.json
	$(PYTHON) -m benchmarks.dropouts

bench-peers: $(READY) ## one secure average here, in Flower, NVFlare and Fed-BioMed, into benchmarks/results/peers.json
	$(PYTHON) -m benchmarks.peers

bench-flower: $(READY) ## rounds beside Flower's simulation, into benchmarks/results/flower.json (11 minutes)
	$(PYTHON) -m benchmarks.flower

bench-parties: $(READY) ## rounds of 2 to 256 parties in two processes, into benchmarks/results/parties.json (15 minutes)
	$(PYTHON) -m benchmarks.parties

bench-leaving: $(READY) ## what a party that leaves a weight leaks, and the rules' cost, into benchmarks/results/leaving.json
	$(PYTHON) -m benchmarks.leaving

bench-small: $(READY) ## the small net of structured pruning beside the whole one, into benchmarks/results/small_export.json
	$(PYTHON) -m benchmarks.small_export

audit: $(READY) ## the leakage audit, into dgl/audit (20 minutes on two cores; goes on where it was stopped)
	$(PYTHON) experiments/leakage_audit.py --out dgl/audit

evaluate: $(READY) ## accuracy and upload of pruned training beside published methods, into docs/results (hours; goes on where it was stopped)
	$(PYTHON) -m experiments.sparse_training

release: $(READY) ## build a release into dist/ and go through its checklist
	$(PYTHON) .ci/check_release.py

clean: ## remove the environment and what was built
	rm -rf .venv .venv-3.10 .venv-3.11 build dist site *.egg-info
