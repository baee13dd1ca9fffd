#!/bin/sh
# Builds the guest's own kernel from the distribution's source, the patches and the two lists of guest/kernel.
# Does nothing where the cache has the one that today's inputs give.
#
# `guest-kernel.sh --find` builds nothing: it prints the kernel's directory, or ends with 1. `--name`
# prints the name that today's inputs give it.
# KERNEL_SOURCE_PACKAGE=FILE is the source's package where the archive cannot be reached.
set -eu
. "$(dirname "$0")/step.sh"
scripts=$(cd "$(dirname "$0")" && pwd)
lists=$scripts/../guest/kernel
kernels=$VIRTCONTAINERS_CACHE/guest-kernel

# flex, bison, bc           the kernel's own build
# libelf-dev                objtool, by which returns and branches are found that are mitigated
packages='make gcc libc6-dev binutils flex bison bc libelf-dev xz-utils patch'

# Megabytes that the source and what is built from it take.
BUILD_MIB=4000
# Seconds to wait for somebody who builds a kernel just now.
BUILDER_WAIT_S=1200

value_of() {
    sed -n "s/^$1 *//p" "$lists/source"
}

# What the kernel is made of, and thereby its name. The compiler is not part of it: another one is
# no reason to build again.
inputs_digest() {
    cat "$lists/source" "$lists/builtin.config" "$lists/modules.config" "$lists"/patches/*.patch \
        "$scripts/guest-kernel.sh" | sha256sum | cut -c 1-16
}

name=$(inputs_digest)
kernel=$kernels/$name
if [ "${1:-}" = --name ]; then
    printf '%s\n' "$name"
    exit 0
fi
if [ "${1:-}" = --find ]; then
    [ -e "$kernel/vmlinux" ] || exit 1
    # What nobody has asked for during a month is removed below.
    touch -c "$kernel" 2>/dev/null || true
    printf '%s\n' "$kernel"
    exit 0
fi
if [ -e "$kernel/vmlinux" ]; then
    step "own guest kernel" "there ($name)"
    exit 0
fi

package=$(value_of package)
version=$(value_of version)
mkdir -p "$kernels"
# Two builders would only be slow together. The lock ends with this process.
exec 9>"$kernels/lock"
have flock || fail "this system has no flock"
flock -w "$BUILDER_WAIT_S" 9 || fail "somebody builds a kernel in $kernels for $BUILDER_WAIT_S s"
if [ -e "$kernel/vmlinux" ]; then
    step "own guest kernel" "there ($name)"
    exit 0
fi

# Only who builds a kernel needs these.
install_packages() {
    have dpkg-query || return 0
    missing=
    for needed in $packages; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$needed" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $needed"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || fail "these packages are missing:$missing" "run as root: apt-get install$missing"
    step "own guest kernel" "installing$missing"
    quietly apt-get update || fail "apt-get update failed"
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive quietly apt-get install -y --no-install-recommends $missing ||
        fail "apt-get install failed"
}

# The pinned source, from the cache, from KERNEL_SOURCE_PACKAGE, or from the archive.
fetch_source() {
    source=$kernels/${package}_$version.deb
    if [ ! -e "$source" ]; then
        if [ -n "${KERNEL_SOURCE_PACKAGE:-}" ]; then
            cp "$KERNEL_SOURCE_PACKAGE" "$work/source.deb"
        else
            download_source
        fi
        digest=$(sha256sum <"$work/source.deb" | cut -c 1-64)
        [ "$digest" = "$(value_of sha256)" ] ||
            fail "the package $package $version has the digest $digest, and guest/kernel/source names another"
        # The cache may be another file system: copied beside its place, and then there at once.
        cp "$work/source.deb" "$source.new-$$"
        mv "$source.new-$$" "$source"
    fi
}

archive_version() {
    apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: //p'
}

download_source() {
    have apt-get || fail "this system has no apt to get $package with" \
        "give the package: KERNEL_SOURCE_PACKAGE=FILE"
    candidate=$(archive_version)
    if [ "$candidate" != "$version" ]; then
        quietly apt-get update || fail "apt-get update failed"
        candidate=$(archive_version)
    fi
    if [ "$candidate" != "$version" ]; then
        step "own guest kernel" "the archive's $package is ${candidate:-missing}; $version is pinned, and tried"
    fi
    step "own guest kernel" "fetching $package $version"
    mkdir "$work/download"
    (cd "$work/download" && quietly apt-get -o APT::Sandbox::User=root download "$package=$version") ||
        fail "the archive has no $package $version (it has ${candidate:-none})" \
            "pin the version that it has in guest/kernel/source, or give a package: KERNEL_SOURCE_PACKAGE=FILE"
    mv "$work"/download/*.deb "$work/source.deb"
}

# What a list names and the configuration has not: lost to a dependency, or to a newer kernel.
lost_options() {
    awk '
        FILENAME ~ /\.config$/ && FILENAME !~ /\/out\/\.config$/ {
            if (match($0, /^CONFIG_[A-Z0-9_a-z]+=/))
                wanted[substr($0, 1, RLENGTH - 1)] = substr($0, RLENGTH + 1)
            next
        }
        match($0, /^CONFIG_[A-Z0-9_a-z]+=/) {
            found[substr($0, 1, RLENGTH - 1)] = substr($0, RLENGTH + 1)
        }
        END {
            for (option in wanted) {
                is = option in found ? found[option] : "n"
                if (is != wanted[option])
                    print "  " option " is to be " wanted[option] " and is " is
            }
        }' "$lists/builtin.config" "$lists/modules.config" "$1"
}

configure() {
    cat "$lists/builtin.config" "$lists/modules.config" >"$work/all.config"
    quietly make -C "$work/source" O="$work/out" KCONFIG_ALLCONFIG="$work/all.config" allnoconfig ||
        fail "the kernel cannot be configured"
    quietly make -C "$work/source" O="$work/out" olddefconfig || fail "the kernel cannot be configured"
    lost=$(lost_options "$work/out/.config" | sort)
    [ -z "$lost" ] || fail "the lists of guest/kernel name what the kernel does not take:
$lost" "name what the option depends on as well, or take it out (docs/guest-kernel.md)"
}

free_mib() {
    df -Pm "$1" | awk 'NR == 2 { print $4 }'
}

install_packages
work=$(mktemp -d "${TMPDIR:-/var/tmp}/virtcontainers-kernel-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
[ "$(free_mib "$work")" -ge "$BUILD_MIB" ] ||
    fail "a kernel's build takes $BUILD_MIB MiB, and $(dirname "$work") has $(free_mib "$work")" \
        "set TMPDIR to a directory with more room"

# The lists as they were when the kernel got its name: somebody may change them meanwhile.
cp -R "$lists" "$work/lists"
lists=$work/lists
[ "$(inputs_digest)" = "$name" ] || fail "the lists of guest/kernel have just been changed"

fetch_source
step "own guest kernel" "building $version (once, some minutes)"
dpkg-deb --extract "$source" "$work/package" || fail "cannot unpack $source"
mkdir "$work/source" "$work/out" "$work/new"
tar -C "$work/source" --strip-components=1 -xf "$work/package/usr/src/$package.tar.xz" ||
    fail "cannot unpack the source in $source"
rm -rf "$work/package"
for patch in "$lists"/patches/*.patch; do
    quietly patch -d "$work/source" -p1 --fuzz=0 --batch -i "$patch" || fail "the source does not take $(basename "$patch")" \
        "the patch is for another version: make it again (docs/guest-kernel.md)"
done

# The same inputs give the same bytes: nothing of this host or of today is in them.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=virtcontainers KBUILD_BUILD_HOST=guest LC_ALL=C
unset MAKEFLAGS MFLAGS MAKELEVEL CROSS_COMPILE ARCH KCONFIG_CONFIG KCFLAGS
configure
quietly nice make -C "$work/source" O="$work/out" -s -j "$(nproc)" vmlinux modules ||
    fail "the kernel cannot be built"
release=$(cat "$work/out/include/config/kernel.release")
quietly make -C "$work/source" O="$work/out" -s INSTALL_MOD_PATH="$work/installed" INSTALL_MOD_STRIP=1 \
    DEPMOD=true modules_install || fail "the kernel's modules cannot be put together"
strip --strip-debug -o "$work/new/vmlinux" "$work/out/vmlinux" || fail "strip failed"
rm -f "$work/installed/lib/modules/$release/build" "$work/installed/lib/modules/$release/source"
mkdir "$work/new/modules"
mv "$work/installed/lib/modules/$release" "$work/new/modules/$release"
cp "$work/out/.config" "$work/new/config"
cp "$lists/source" "$work/new/source"

# The cache may be another file system: copied beside its place, and then there at once.
new=$(mktemp -d "$kernels/.new-XXXXXX")
trap 'rm -rf "$work" "$new"' EXIT
cp -R "$work/new/." "$new"
chmod 755 "$new"
sync -f "$new" 2>/dev/null || true
mv "$new" "$kernel"

# Kernels that nobody has used for a month, and sources that are pinned no more.
find "$kernels" -mindepth 1 -maxdepth 1 -type d -name '[0-9a-f]*' -mtime +30 ! -name "$name" \
    -exec rm -rf {} +
find "$kernels" -maxdepth 1 \( -name '*.deb' -o -name '*.deb.new-*' \) -mtime +30 ! -name "${package}_$version.deb" \
    -delete
step "own guest kernel" "built ($name, $release, vmlinux $(wc -c <"$kernel/vmlinux") bytes)"
