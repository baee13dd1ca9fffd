#!/bin/sh
# Measures the floors with the guest and the virtiofsd that `make guest` and `make setup` left.
set -eu
cd "$(dirname "$0")/../.."
. scripts/step.sh

version=${VIRTIOFSD_VERSION:-1.14.0}
exec cargo run --quiet --release -p xtask -- floor --guest "$VIRTCONTAINERS_CACHE/guest/current" \
    --virtiofsd "$VIRTCONTAINERS_CACHE/tools/virtiofsd-$version/bin/virtiofsd" "$@"
