# syntax=docker/dockerfile:1
#
# The server as an image; the client comes with it, for the health check. For CPUs:
#
#     docker build --tag nst .
#
# For NVIDIA GPUs, whose driver the host brings:
#
#     docker build --tag nst:cuda --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .
#
# It needs no writable disk and no privileges, and leaves within its grace period of 30 seconds and a little more:
#
#     docker run --read-only --cap-drop ALL --stop-timeout 40 --env NST_INSECURE=1 --publish 127.0.0.1:50051:50051 nst
#     docker run ... --gpus all nst:cuda
#
# In its container it listens on all addresses, which it refuses to do without a choice: NST_INSECURE=1 where the port is
# published on loopback only or a proxy brings TLS, as above; otherwise NST_TLS_CERTIFICATE and NST_TLS_KEY. The health
# check then needs NST_CA, and NST_SERVER_NAME for a certificate that is not made out to localhost (docs/security.md).
#
# Every setting that `docker run --rm nst --help` lists is an environment variable too. Who moves the port by
# NST_ADDRESS tells the health check by NST_TARGET. The weights of torchvision are downloaded once, into a volume:
#
#     docker run ... --env NST_WEIGHTS=torchvision --volume nst-weights:/var/cache/nst nst

ARG PYTHON_IMAGE=python:3.12.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
# What comes below changes the more often the further down it stands.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore pip==26.3 && \
    python -m venv --without-pip /opt/nst
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/nst install --index-url "${TORCH_INDEX_URL}" torch==2.14.1 torchvision==0.29.1
WORKDIR /source
# For the native kernel of the convolutions; the image that runs needs no compiler.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends g++ && \
    rm -rf /var/lib/apt/lists/*
COPY LICENSE README.md pyproject.toml ./
# The versions stand in pyproject.toml.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/nst install --only-deps '.[server]'
COPY setup.py ./
COPY proto proto
COPY client client
COPY service service
# Into a tree of its own, and with it into a layer of its own: a new version leaves the gigabytes below as they are.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/nst install --no-deps --root /project .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="nst" \
      org.opencontainers.image.description="Neural style transfer as a gRPC service" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin nst && \
    install --directory --owner=nst --group=nst /var/cache/nst && \
    install --directory --owner=nst --group=nst --mode=0700 /var/lib/nst
COPY --from=builder /opt/nst /opt/nst
COPY --from=builder /project /
# torchvision's import wants a folder for compiled code, though nothing is compiled; the default is in /tmp, which
# cannot be written where the root is read-only.
ENV PATH=/opt/nst/bin:${PATH} \
    NST_ADDRESS=0.0.0.0:50051 \
    NST_DATA_DIR=/var/lib/nst \
    TORCH_HOME=/var/cache/nst \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/nst
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
# The jobs; mount a volume here for them to outlive the container.
VOLUME /var/lib/nst
EXPOSE 50051
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --start-interval=2s --retries=3 \
    CMD ["nst-client", "health"]
ENTRYPOINT ["nst-server"]
