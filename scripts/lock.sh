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
# What each image installs: the versions of run.lock, but only those that the service needs.
image() { # NAME EXTRA
  printf -- '-e ./clients/python\n-e .[%s]\n' "$2" | compile - --override requirements/images/overrides.txt \
    -c requirements/run.lock -c services/cli/local_model.lock -o "requirements/images/$1.lock"
}
for service in auth embeddings embeddings-model gateway memory models routing; do image "$service" "$service"; done
image models-llamacpp llamacpp
compile requirements/build.in -c requirements/run.lock -o requirements/images/build.lock
compile requirements/chart.in -o requirements/chart.lock
compile requirements/integrations.in -o requirements/integrations.lock
compile requirements/terraform.in -o requirements/terraform.lock
# vLLM on a CPU is for Linux alone. Its wheels' own lists name other releases than work together
# (requirements/engine.in), so they are locked without them.
on_linux() {
  .venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 "$@"
}
on_linux requirements/engine.in --override requirements/overrides.txt -c requirements/run.lock \
  --no-emit-package echomesh --no-emit-package echomesh-services -o requirements/engine.lock
on_linux --no-deps requirements/engine-extra.in >> requirements/engine.lock
