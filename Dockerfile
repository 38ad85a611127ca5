# syntax=docker/dockerfile:1
#
# Image of the server. It also contains the client, for the health check. For CPUs:
#
#     docker build --tag nst .
#
# For NVIDIA GPUs, with the driver of the host:
#
#     docker build --tag nst:cuda --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .
#
# The container needs no writable root file system and no privileges. It exits at most 45 s after SIGTERM: the grace
# period (NST_GRACE, 30 s) and 15 s:
#
#     docker run --read-only --cap-drop ALL --stop-timeout 45 --env NST_INSECURE=1 --publish 127.0.0.1:50051:50051 nst
#     docker run ... --gpus all nst:cuda
#
# The server listens on all addresses of its container. It therefore requires one of two choices. Set NST_INSECURE=1 if
# the port is published on loopback only, as above, or if a proxy provides TLS. Otherwise set NST_TLS_CERTIFICATE and
# NST_TLS_KEY. The health check then needs NST_CA, and NST_SERVER_NAME if the certificate is not for localhost
# (docs/security.md).
#
# Every setting is an environment variable (docs/reference/settings.md). If NST_ADDRESS changes the port, set NST_TARGET
# for the health check. The weights of torchvision are downloaded once, into a volume:
#
#     docker run ... --env NST_WEIGHTS=torchvision --volume nst-weights:/var/cache/nst nst

ARG PYTHON_IMAGE=python:3.12.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
# Later steps change more often than earlier ones.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore pip==26.3 && \
    python -m venv --without-pip /opt/nst
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/nst install --index-url "${TORCH_INDEX_URL}" torch==2.14.1 torchvision==0.29.1
WORKDIR /source
# The native kernel needs a compiler to build. The final image does not.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends g++ && \
    rm -rf /var/lib/apt/lists/*
COPY LICENSE README.md pyproject.toml ./
# Further packages, such as ray[default] for the devices of a cluster (docs/scaling.md).
ARG MORE_PACKAGES=
# pyproject.toml pins the versions.
# hadolint ignore=DL3013,SC2086
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/nst install --only-deps '.[server,s3,metrics]' && \
    { [ -z "${MORE_PACKAGES}" ] || pip --python /opt/nst install ${MORE_PACKAGES}; }
COPY setup.py ./
COPY proto proto
COPY client client
COPY service service
# A separate tree becomes a separate layer. A new version of nst reuses the layer with the large dependencies.
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
# torchvision requires a writable folder for compiled code at import, although nothing is compiled. The default is in
# /tmp, which is not writable with a read-only root file system.
ENV PATH=/opt/nst/bin:${PATH} \
    NST_ADDRESS=0.0.0.0:50051 \
    NST_DATA_DIR=/var/lib/nst \
    TORCH_HOME=/var/cache/nst \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/nst
# A number lets Kubernetes verify that the user is not root.
USER 10001:10001
# The jobs are stored here. Mount a volume to keep them after the container.
VOLUME /var/lib/nst
EXPOSE 50051
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --start-interval=2s --retries=3 \
    CMD ["nst-client", "health"]
ENTRYPOINT ["nst-server"]
