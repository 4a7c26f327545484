# The service as an image: docker build -t notification-service:local .

# The builder's distribution is the runtime's, for the C libraries' sake. It brings what librdkafka, OpenSSL
# and SQLite are built with from their vendored sources: a C compiler, make and perl.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Registry and target folder live in caches, so a change of the code rebuilds this crate alone. A cache is
# no part of the layer: the binary is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bin notification-service \
    && install -D target/release/notification-service /out/notification-service

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="notification-service" \
      org.opencontainers.image.description="Turns domain events on Kafka into delivered notifications, and can prove it" \
      org.opencontainers.image.licenses="Apache-2.0"

# The uid is fixed so that a mounted folder can be given to it, and numeric in USER so that Kubernetes'
# runAsNonRoot can see that it is not root.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin notification \
    && install -d -o notification -g notification -m 0750 /data

COPY --from=build /out/notification-service /usr/local/bin/notification-service

# From here the default paths, data/…, lead into the volume.
WORKDIR /
VOLUME /data
USER 10001:10001

# In a container, loopback would be nobody's to reach. The API stays closed to others until authentication
# is configured.
ENV HTTP_ADDRESS=0.0.0.0:8088 \
    LOG_FORMAT=json
EXPOSE 8088

# Liveness, not readiness: an orchestrator that restarts the unhealthy shall not do so for a broker's outage.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD wget -q -T 3 -t 1 -O /dev/null "http://127.0.0.1:${HTTP_ADDRESS##*:}/health/live" || exit 1

# SIGTERM is what starts the drain; give it longer than shutdown.timeout_ms before SIGKILL.
STOPSIGNAL SIGTERM
ENTRYPOINT ["notification-service"]
CMD ["serve"]
