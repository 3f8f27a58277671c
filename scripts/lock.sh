#!/usr/bin/env bash
# Resolve the requirements for every supported platform and Python, with hashes and no index address.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
    --no-header --python-version 3.11 --override requirements/overrides.txt \
    --no-emit-package echomesh --no-emit-package echomesh-services "$@"
}
compile requirements/uv.in -o requirements/uv.lock
compile requirements/run.in -o requirements/run.lock
compile requirements/local-model.in -o services/cli/local_model.lock
compile requirements/dev.in --group dev -c requirements/run.lock -c services/cli/local_model.lock -o requirements/dev.lock
