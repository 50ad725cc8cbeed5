# `just` lists what there is. Each recipe is one command that also works without just.

default:
    @just --list --unsorted

# The example of the README: JSON files in, Parquet under ./trusted out
run-example:
    cargo run --release --no-default-features -- run --once --landing examples/landing --trusted ./trusted

# All tests, among them those against real Kafka and S3 servers
test:
    ./test

# Formatting and lints, as strict as they have to be for a change to go in
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- --deny warnings

# Format all code
fmt:
    cargo fmt --all

# Licences, advisories and sources of all dependencies (needs the network)
deny:
    tests/cargo-deny check

# Render the Kubernetes files and validate them, without a cluster
check-k8s:
    k8s/check

# The container image, for this machine
image:
    docker build --tag event-distributor:local .
