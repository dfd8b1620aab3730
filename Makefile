# Five verbs. Each works on a fresh clone: the environment is made when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test lint check run picture

install: $(BIN)/clew

$(BIN)/clew: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

test: install
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -p clew

check: lint test

run: install
	$(BIN)/clew serve --demo

# The README's picture, drawn again from the demo.
picture: install
	$(BIN)/python docs/picture.py docs/tree.svg
