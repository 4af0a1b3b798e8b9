# Format, lint and test, as CI does.
check:
    .ci/run

# The main job on this machine, once.
lab:
    cargo run --release -- lab --once

# The scenarios alone.
scenarios:
    cargo test --test scenarios

# One fuzz target (needs cargo-fuzz and a nightly compiler).
fuzz NAME:
    cargo fuzz run {{NAME}}

# The development configuration.
dev:
    certs/make-test-certificates
    cargo run -- serve --config deploy/dev.toml
