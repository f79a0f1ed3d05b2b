# Seven verbs; CI calls these and nothing else.
.PHONY: help install format check lint types imports test dev docs build lock

RUN := uv run --frozen
NO_INDEX := env -u UV_DEFAULT_INDEX -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install:  ## everything needed to develop, from the frozen lock
	uv sync --frozen

format:  ## rewrite the sources in the house style
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

check: lint types imports  ## format, lint, types, import rules

lint:
	$(RUN) ruff format --check .
	$(RUN) ruff check .

types:
	$(RUN) mypy

imports:
	$(RUN) lint-imports

test:  ## the whole suite on a real Redis
	$(RUN) pytest

dev:  ## the server with embedded defaults
	uv run --frozen --no-dev machina-server dev

docs:  ## write the committed OpenAPI document
	$(RUN) machina-server openapi > docs/openapi.json

build:  ## the wheel and the source archive
	uv build

lock:  ## resolve again, against the public index only
	$(NO_INDEX) uv lock --no-config --default-index https://pypi.org/simple
	sed -i '/^#/!d' requirements.txt
	uv export --frozen --no-dev --no-emit-project --no-header --no-annotate >> requirements.txt
