#!/bin/sh
# Builds the guest: its kernel and the initrd with our agent. The kernel is our own where the cache has
# the one of today's inputs (`make guest-kernel` builds it), otherwise that of the distribution's package.
#
# OWN_KERNEL=no takes the distribution's. KERNEL_PACKAGE=FILE takes another package; KERNEL=FILE with
# KERNEL_MODULES=DIR another kernel.
# GUEST_DIR=DIR puts it there, not where programs look for it.
# KERNEL_UPDATE=1 looks for a newer package than the one that was fetched before.
set -eu
. "$(dirname "$0")/step.sh"
cd "$(dirname "$0")/.."

guest=${GUEST_DIR:-$VIRTCONTAINERS_CACHE/guest}
list=${GUEST_MODULES:-guest/modules.toml}

# The newest kernel that the distribution's package of no kernel's name leads to.
fetch_kernel() {
    kernels=$VIRTCONTAINERS_CACHE/kernel
    mkdir -p "$kernels"
    if [ -e "$kernels/current.deb" ] && [ -z "${KERNEL_UPDATE:-}" ]; then
        step "guest kernel" "there ($(basename "$(readlink "$kernels/current.deb")"))"
        return 0
    fi
    have apt-get || fail "this system has no apt to get a kernel package with" \
        "give one: make guest KERNEL_PACKAGE=FILE, or KERNEL=FILE KERNEL_MODULES=DIR"
    package=$(newest_kernel)
    if [ -z "$package" ] || [ -n "${KERNEL_UPDATE:-}" ]; then
        quietly apt-get update || fail "apt-get update failed"
        package=$(newest_kernel)
    fi
    [ -n "$package" ] || fail "the package index has no linux-image-cloud-amd64" \
        "give a kernel package: make guest KERNEL_PACKAGE=FILE"
    step "guest kernel" "fetching $package"
    new=$(mktemp -d "$kernels/.new-XXXXXX")
    trap 'rm -rf "$new"' EXIT
    (cd "$new" && quietly apt-get -o APT::Sandbox::User=root download "$package") ||
        fail "cannot fetch $package"
    file=$(basename "$new"/*.deb)
    mv "$new/$file" "$kernels/$file"
    ln -s "$file" "$new/current.deb"
    mv "$new/current.deb" "$kernels/current.deb"
    rm -rf "$new"
    trap - EXIT
    step "guest kernel" "fetched"
}

newest_kernel() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | sort -V | tail -n 1
}

if [ -n "${KERNEL:-}" ]; then
    modules=${KERNEL_MODULES:-/lib/modules/$(basename "$KERNEL" | sed 's/^vmlinu[xz]-//')}
    set -- --vmlinuz "$KERNEL" --modules "$modules"
    source="$KERNEL $modules"
elif [ -n "${KERNEL_PACKAGE:-}" ]; then
    set -- --kernel-package "$KERNEL_PACKAGE"
    source=$KERNEL_PACKAGE
elif [ "${OWN_KERNEL:-yes}" != no ] && own=$(scripts/guest-kernel.sh --find); then
    set -- --vmlinuz "$own/vmlinux" --modules "$(echo "$own"/modules/*)" --archive
    source="own $(basename "$own")"
    step "guest kernel" "our own ($(basename "$own"))"
else
    fetch_kernel
    set -- --kernel-package "$VIRTCONTAINERS_CACHE/kernel/current.deb"
    source=$(readlink "$VIRTCONTAINERS_CACHE/kernel/current.deb")
fi

target=$(host_target)
cargo build --quiet --release --target "$target" -p guest-image --features guest-image/build
cargo build --quiet --profile guest --target "$target" -p virtc-agent
built=${CARGO_TARGET_DIR:-target}/$target/release
agent=${CARGO_TARGET_DIR:-target}/$target/guest/virtc-agent
step "guest agent" "built"

mkdir -p "$guest"
inputs=$({
    printf '%s\n' "$source"
    sha256sum <"$agent"
    sha256sum <"$built/guest-image"
    sha256sum <"$list"
} | sha256sum | cut -c 1-64)
if [ "$(cat "$guest/inputs" 2>/dev/null)" = "$inputs" ] && [ -e "$guest/current/manifest.json" ]; then
    step "guest assets" "there ($(readlink "$guest/current"))"
    exit 0
fi

"$built/guest-image" build "$@" --agent "$agent" --list "$list" --out "$guest" >/dev/null
printf '%s\n' "$inputs" >"$guest/inputs"

# Sets that no start has used for a week; a VM that runs has read its own long ago.
find "$guest" -mindepth 1 -maxdepth 1 -type d -name '[0-9a-f]*' -mtime +7 \
    ! -name "$(readlink "$guest/current")" -exec rm -rf {} +
step "guest assets" "built ($(readlink "$guest/current"), initrd $(wc -c <"$guest/current/initrd") bytes)"
