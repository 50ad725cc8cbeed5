# Image of the binary `event-distributor`, for either role:
#
#   docker build -t event-distributor .
#   docker run --rm event-distributor --help
#
# Needs BuildKit (the default since Docker 23) for the cache mounts.

ARG RUST_IMAGE=rust:1.95-bookworm
# glibc and OpenSSL of the same Debian release as above, CA certificates, a user 65532, no shell.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build

# librdkafka, zstd and zlib are compiled from the sources inside their crates, OpenSSL is the distribution's. The usual
# Rust image has all that this takes; this line makes a `-slim` one do as well.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .

# Without this, libz-sys links the zlib of the build image if it finds one, and the runtime image has none.
ENV LIBZ_SYS_STATIC=1

# Cargo takes a file that is older than its last build for unchanged, which a checkout of an older commit may well be.
# Touched, the workspace's crates are always rebuilt; those of the registry come from the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --package event-distributor \
    && install -D target/dist/event-distributor /out/event-distributor

# What the runtime image does not hold must not be needed: better to fail here than at the first start.
RUN ldd /out/event-distributor >/out/libraries \
    && ! grep --invert-match --extended-regexp \
        '(linux-vdso|ld-linux[-a-z0-9_]*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|ssl|crypto))\.so' /out/libraries


FROM ${RUNTIME_IMAGE}

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Event Distributor" \
      org.opencontainers.image.description="Files of JSON events in, exactly-once partitioned Parquet out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY LICENSE /usr/share/doc/event-distributor/LICENSE
COPY --from=build /out/event-distributor /usr/local/bin/event-distributor

# As numbers, so that Kubernetes can tell that it is not root.
USER 65532:65532
# Where /livez, /readyz and /metrics are once ED__HTTP__LISTEN=0.0.0.0:8080 is set.
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/event-distributor"]
CMD ["--help"]
