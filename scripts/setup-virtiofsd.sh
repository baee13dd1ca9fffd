#!/bin/sh
# Builds the pinned virtiofsd, statically linked, so that it runs in a share's empty root.
set -eu
. "$(dirname "$0")/step.sh"

version=${VIRTIOFSD_VERSION:-1.14.0}

libraries=/usr/lib/$(gcc -print-multiarch)
export LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH="$libraries"
export LIBCAPNG_LINK_TYPE=static LIBCAPNG_LIB_PATH="$libraries"
export RUSTFLAGS='-C target-feature=+crt-static'

install_tool virtiofsd "$version"

# The name under which virtc looks for it.
ln -sfn "virtiofsd-$version/bin/virtiofsd" "$VIRTCONTAINERS_CACHE/tools/.virtiofsd"
mv -T "$VIRTCONTAINERS_CACHE/tools/.virtiofsd" "$VIRTCONTAINERS_CACHE/tools/virtiofsd"
