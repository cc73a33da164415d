# syntax=docker/dockerfile:1
# Two stages: build with everything, run with nothing but the binary, as nobody.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p cli && cp target/release/caravan /caravan \
    && mkdir -p /data/models

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /caravan /usr/local/bin/caravan
COPY --from=build --chown=nonroot:nonroot /data /data
# In a container the loopback address reaches nobody.
ENV OLLAMA_HOST=0.0.0.0:11434 \
    CARAVAN_WORKER_LISTEN=0.0.0.0:11500 \
    CARAVAN_ADMIN_LISTEN=0.0.0.0:11435 \
    CARAVAN_STORE=/data/models
# Clients; admin of every role; gRPC of a worker, which needs CARAVAN_ADVERTISE.
EXPOSE 11434 11435 11500
VOLUME /data
USER nonroot
ENTRYPOINT ["/usr/local/bin/caravan"]
CMD ["serve"]
