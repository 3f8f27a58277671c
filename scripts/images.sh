#!/usr/bin/env bash
# Build the services' images: echomesh/SERVICE:TAG, with whatever builder is there.
#
# TAG         the version in pyproject.toml
# SERVICES    "auth embeddings gateway memory models routing"
# BUILD_ARGS  further words for the builder, such as --build-arg BASE=vllm/vllm-openai:v0.32.0
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1)
TAG=${TAG:-$VERSION}
SERVICES=${SERVICES:-auth embeddings gateway memory models routing}
REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  build=(docker build --quiet)
elif command -v buildah >/dev/null; then
  build=(buildah bud --quiet --layers --format docker)
else
  echo "images: neither a running docker nor buildah is here" >&2
  exit 1
fi
for service in $SERVICES; do
  # shellcheck disable=SC2086 - BUILD_ARGS are words
  "${build[@]}" ${BUILD_ARGS:-} --build-arg SERVICE="$service" --build-arg VERSION="$VERSION" \
    --build-arg REVISION="$REVISION" -t "echomesh/$service:$TAG" . >/dev/null
  echo "echomesh/$service:$TAG"
done
