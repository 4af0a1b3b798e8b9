# Format, lint and test, as CI does.
check:
    .ci/run

# The main job on this machine, once.
lab:
    cargo run --release -- lab --once

# The scenarios alone.
scenarios:
    cargo test --test scenarios

# One fuzz target (needs cargo-fuzz; see fuzz/README.md).
fuzz NAME SECONDS="180":
    mkdir -p fuzz/found/{{NAME}} && cargo fuzz run -s none {{NAME}} fuzz/found/{{NAME}} fuzz/corpus/{{NAME}} -- -dict=fuzz/dictionaries/{{NAME}}.dict -max_len=8192 -timeout=10 -max_total_time={{SECONDS}}

# The development configuration.
dev:
    certs/make-test-certificates
    cargo run -- serve --config deploy/dev.toml

# With other people's programs.
interop *NAMES:
    tests/interop/run {{NAMES}}

# Licences, duplicates, sources (needs cargo-deny).
deny:
    cargo deny --locked check bans licenses sources
