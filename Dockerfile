# An image with one program and what it asks for: no shell, no root, nothing to update but Perigee itself.
#   docker build -t perigee .
#   docker run --stop-timeout 40 -p 80:8080 -v ./perigee.toml:/etc/perigee/perigee.toml:ro -v perigee:/var/lib/perigee perigee
FROM rust:1.95-bookworm AS build
WORKDIR /perigee
COPY . .
RUN cargo build --release --locked -p perigee && packaging/container/root target/release/perigee /image

FROM scratch
COPY --from=build /image /
USER 65532:65532
# Where a state directory is looked for unless a command names one.
ENV HOME=/var/lib/perigee XDG_STATE_HOME=/var/lib
EXPOSE 8080/tcp 8443/tcp 8443/udp
# Running requests get limits.drain_timeout to end, 30 s, and Docker gives 10 unless --stop-timeout says more.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/perigee"]
CMD ["serve", "--config", "/etc/perigee/perigee.toml", "--state", "/var/lib/perigee"]
