#!/bin/sh
# Installs the system packages that building and running need. Does nothing where all are there.
set -eu
. "$(dirname "$0")/step.sh"

# gcc, libc6-dev            linking
# binutils                  taking the symbols off the agent
# libseccomp, libcap-ng     linked into the agent and virtc
# qemu-system-x86           the VMM; qemu-system-data has qboot.rom
# e2fsprogs                 mkfs.ext4 for the scratch disk
# erofs-utils               mkfs.erofs, for tests of roots that are disks
# busybox-static            root directories for tests and benchmarks
# podman, docker.io         tests of the OCI command line; they start a daemon of their own
# containerd                tests of the shim; docker.io brings it
# netavark, aardvark-dns    networks of podman for those tests; iptables is what netavark calls
# bsdutils                  script(1), a terminal for those tests
# iproute2                  network namespaces for tests
# nftables                  nft, by which addresses are translated
# passt                     connections of throw-away VMs with --net user
# containernetworking-plugins  CNI's plug-ins, for tests of their networks
# iperf3                    measurements of networks
# protobuf-compiler         the client of Kubernetes' runtime interface, for tests
packages='gcc libc6-dev binutils libseccomp-dev libcap-ng-dev'
packages="$packages qemu-system-x86 qemu-system-data e2fsprogs busybox-static podman"
packages="$packages docker.io containerd bsdutils iproute2 nftables netavark aardvark-dns iptables passt"
packages="$packages containernetworking-plugins iperf3 protobuf-compiler erofs-utils"

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

# Nobody asked for services on this host: docker's is neither started now nor at the next boot. Where
# it was installed before, it stays as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
containerd=$(dpkg-query -W -f '${db:Status-Status}' containerd 2>/dev/null || true)
quietly apt-get update || fail "apt-get update failed"
# shellcheck disable=SC2086 # a list of words
quietly apt-get install -y --no-install-recommends $missing || fail "apt-get install failed"
if have systemctl; then
    case " $missing " in
    *" docker.io "*)
        quietly systemctl disable docker.service docker.socket || true
        [ "$containerd" = installed ] || quietly systemctl disable containerd.service || true
        ;;
    esac
fi
step "system packages" "installed"
