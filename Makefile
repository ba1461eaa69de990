# Needs python3 (3.10 or newer) and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test benchmark clean

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name another one with make PYTHON=python3.11") if sys.version_info < (3, 10) else None'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	echo ../../../.. > "$$(echo $(VENV)/lib/python3*/site-packages)/checkout.pth"
	touch $(READY)

demo: $(READY)  ## set everything up and run BERT-of-Theseus to its table (under 5 minutes on two cores)
	$(BIN)/python scripts/theseus.py --output_dir output/theseus

test: $(READY)  ## the test suite, under 15 minutes on two cores
	$(BIN)/python -m pytest -q

benchmark: $(READY)  ## every speed and memory claim, ours beside the article's way; records go to output/benchmarks
	set -e; for program in $(filter-out %/make_knowledge.py,$(sort $(wildcard benchmarks/*.py))); do $(BIN)/python $$program; done

clean:  ## remove .venv, caches and output
	rm -rf $(VENV) output build *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
