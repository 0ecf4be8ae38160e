# make run   everything on a fresh machine with Python 3.11: environment, the quickstart study, its leaderboard
# make test  the tests;  make ui  Dagster on http://127.0.0.1:3000;  make lint  ruff and pyright

PYTHON ?= python3.11
STUDY ?= quickstart
PORT ?= 3000
BIN := .venv/bin
READY := .venv/ready

.PHONY: run test ui lint clean

run: $(READY)
	$(BIN)/interlingua run $(STUDY)

test: $(READY)
	$(BIN)/pytest -q -n auto --dist loadfile

ui: $(READY)
	$(BIN)/interlingua ui --port $(PORT)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# pip compiles on one core, and packages' own tests too: here it is all cores, without those. What is written for a
# later Python fails to compile, harmlessly.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable . --group dev
	-$(BIN)/python -m compileall -q -j 0 -x '/tests?/|py312_' .venv/lib/python3*/site-packages >/dev/null 2>&1
	touch $(READY)

# What runs produced stays; only the environment goes.
clean:
	rm -rf .venv
