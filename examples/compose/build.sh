#!/usr/bin/env bash
# Builds the static binary and the image `outrigger:local` (or the name given) from this clone. Needs Rust, an engine and, for
# the crates, their registry; no image is pulled.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=${1:-outrigger:local}
target=$(rustc -vV | sed -n 's/^host: //p')
# Named, the target's flags do not reach build scripts and procedural macros, which cannot be static.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --package outrigger --target "$target"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "${CARGO_TARGET_DIR:-target}/$target/release/outrigger" "$context/outrigger"
mkdir "$context/state"
docker build --quiet --file examples/compose/Dockerfile --tag "$image" "$context"
docker image inspect --format '{{.Size}}' "$image" | awk -v image="$image" '{printf "%s: %.1f MB\n", image, $1 / 1e6}'
