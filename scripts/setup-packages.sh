#!/bin/sh
# Installs the system packages that building and running need. Does nothing where all are there.
set -eu
. "$(dirname "$0")/step.sh"

# gcc, libc6-dev            linking
# binutils                  taking the symbols off the agent
# libseccomp, libcap-ng     linked into the agent, virtc and virtiofsd
# qemu-system-x86           the VMM; qemu-system-data has qboot.rom
# e2fsprogs                 mkfs.ext4 for the scratch disk
# busybox-static            root directories for tests and benchmarks
# podman                    tests of the OCI command line
packages='gcc libc6-dev binutils libseccomp-dev libcap-ng-dev'
packages="$packages qemu-system-x86 qemu-system-data e2fsprogs busybox-static podman"

have dpkg-query || fail "this system has no dpkg" \
    "install the counterparts of: $packages, and run \`make\` with SETUP_PACKAGES=no"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
    step "system packages" "there"
    exit 0
fi
[ "$(id -u)" = 0 ] || fail "these packages are missing:$missing" "run as root: apt-get install$missing"

step "system packages" "installing$missing"
export DEBIAN_FRONTEND=noninteractive
quietly apt-get update || fail "apt-get update failed"
# shellcheck disable=SC2086 # a list of words
quietly apt-get install -y --no-install-recommends $missing || fail "apt-get install failed"
step "system packages" "installed"
