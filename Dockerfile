# Three images from one file: `docker build --target ingest|train|dev .`
#   ingest  area to shards; no torch
#   train   shards to checkpoints, and ITR; torch for CUDA, or for CPUs with --build-arg TORCH=cpu
#   dev     both sides and the tests
# PYTHON is any Debian image with Python 3.11 or newer and its venv module.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON} AS base
# tini is process 1: it hands SIGTERM to the whole group (a trainer then saves and exits with 75) and reaps orphans.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app \
 && install --directory --owner app --group app /data /runs
# Nothing is written outside /tmp and what is mounted: the root file system may be read-only. A new volume on /data or
# /runs takes their owner.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONSAFEPATH=1 PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp DASK_TEMPORARY_DIRECTORY=/tmp/dask
WORKDIR /app
ENTRYPOINT ["tini", "-g", "--"]

FROM base AS build
# BYTECODE=0 builds in half the time, and every start takes seconds more.
ARG BYTECODE=1
ENV UV_COMPILE_BYTECODE=$BYTECODE UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON=/opt/venv/bin/python UV_SYSTEM_CERTS=1
# What runs has no pip.
# hadolint ignore=DL3013
RUN python3 -m venv --without-pip /opt/venv && python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --quiet uv
# What is pinned, without the source: a change of the source leaves the layers of the dependencies alone.
COPY pyproject.toml constraints.txt README.md LICENSE ./
# A folder of wheels (a mount) that is asked first, for machines without the indexes.
ARG PIP_FIND_LINKS=
ENV UV_FIND_LINKS=$PIP_FIND_LINKS

FROM build AS build-ingest
RUN /opt/uv/bin/uv pip install -c constraints.txt -r pyproject.toml --extra ingest --extra s3 \
 && /opt/uv/bin/uv pip install --no-deps -e .

FROM build AS build-train
ARG TORCH=cuda
# hadolint ignore=SC2086
RUN case "$TORCH:$UV_FIND_LINKS" in \
      cuda:* | cpu:?*) backend= ;; \
      cpu:) backend="--torch-backend cpu" ;; \
      *) echo "TORCH is cuda or cpu, not $TORCH" >&2; exit 1 ;; \
    esac \
 && /opt/uv/bin/uv pip install -c constraints.txt -r pyproject.toml --extra train --extra s3 $backend \
 && /opt/uv/bin/uv pip install --no-deps -e .

FROM build-train AS build-dev
RUN /opt/uv/bin/uv pip install -c constraints.txt -r pyproject.toml --extra dev

FROM base AS labelled
ARG REVISION=
LABEL org.opencontainers.image.title=sentinel-pretrain \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.revision=${REVISION:-unknown}
# A run writes it down: an image has no checkout to ask.
ENV SENTINEL_PRETRAIN_REVISION=$REVISION
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline

FROM labelled AS ingest
COPY --from=build-ingest /opt/venv /opt/venv
COPY ingest ingest
USER 10001
CMD ["ingest", "--help"]

FROM labelled AS train
COPY --from=build-train /opt/venv /opt/venv
COPY infra/accelerate infra/accelerate
COPY train train
USER 10001
CMD ["python", "train/croma.py", "--help"]

FROM labelled AS dev
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
COPY --from=build-dev /opt/venv /opt/venv
COPY . .
USER 10001
CMD ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
