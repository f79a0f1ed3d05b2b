#!/usr/bin/env bash
# Starts the API for production: GUNICORN_WORKERS processes on MACHINA_HOST:MACHINA_PORT. With
# arguments, any other command of machina-server instead, found and set up in the same way:
#
#   ./start-prod.sh
#   ./start-prod.sh worker --queues streaming_priority
#   ./start-prod.sh worker --queues high_priority,normal_priority,low_priority
#   ./start-prod.sh keys create --scope admin
#
# Settings come from the environment and, where it has none, from the file .env beside this script.
# The server reads that file itself: nothing in it is executed, and what was exported wins over it.
# What runs is, in this order: the environment of `uv sync` beside this script, machina-server on
# PATH, this checkout with the packages of `pip install -r requirements.txt`, and `uv run`.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
export MACHINA_ENVIRONMENT="${MACHINA_ENVIRONMENT:-production}"

if [ "$#" -eq 0 ]; then
  set -- api
fi

has_requirements() {
  command -v python3 >/dev/null && python3 - <<'PYTHON'
import sys
from importlib.util import find_spec

sys.path.insert(0, ".")
sys.exit(not all(map(find_spec, ("machina", "dramatiq", "fastapi", "motor", "uvicorn"))))
PYTHON
}

if [ -x .venv/bin/machina-server ]; then
  exec .venv/bin/machina-server "$@"
elif command -v machina-server >/dev/null; then
  exec machina-server "$@"
elif has_requirements; then
  exec python3 -m machina "$@"
elif command -v uv >/dev/null; then
  exec uv run --frozen --no-dev machina-server "$@"
fi

cat >&2 <<'MESSAGE'
start-prod.sh: machina-server is not installed. In this directory, run one of these and start again:
  uv sync --frozen --no-dev
  pip install -r requirements.txt
uv is at https://docs.astral.sh/uv/, or: pipx install uv
MESSAGE
exit 127
