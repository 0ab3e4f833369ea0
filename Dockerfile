# syntax=docker/dockerfile:1

# docker build --tag sluice:local .
# docker build --tag sluice:local --build-arg EXTRAS="openai" .     other extras of pyproject.toml

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build

# faust-streaming has no wheel for Linux on ARM.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.8

ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/sluice \
    UV_PYTHON_DOWNLOADS=never

WORKDIR /src
# Before the code, so that a change of the code leaves this layer as it is.
COPY pyproject.toml uv.lock ./
ARG EXTRAS="openai registry"
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-install-project $(echo "${EXTRAS}" | sed -E 's/[^ ]+/--extra &/g')

COPY . .
# Inexact: the extras of the layer before stay.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-editable --inexact


FROM python:${PYTHON_VERSION}-slim

LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="Durable, governed LLM calls over Kafka, live in the browser." \
      org.opencontainers.image.source="https://github.com/sluice-llm/sluice" \
      org.opencontainers.image.licenses="Apache-2.0"

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sluice

COPY --from=build /opt/sluice /opt/sluice
COPY deploy/probe.py /opt/sluice/probe.py

# APP_DATADIR: Faust makes a folder at each start, in the working folder if not told otherwise; it stays empty.
ENV PATH=/opt/sluice/bin:$PATH \
    APP_DATADIR=/tmp/faust \
    SLUICE_OPS__PORT=9464

# A sluice.toml that is mounted here is read.
WORKDIR /etc/sluice
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001

# The page of a bridge, and every role's /metrics, /healthz and /readyz.
EXPOSE 8080 9464

STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=2s --retries=3 \
    CMD ["python", "/opt/sluice/probe.py", "/healthz"]

ENTRYPOINT ["sluice"]
CMD ["--help"]
