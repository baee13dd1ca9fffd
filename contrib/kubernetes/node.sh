#!/bin/sh
# What the DaemonSets do on a node: `node.sh install|remove|wait`. The node's /usr/local is at
# $HOST/usr/local, and the files that go there are in $FILES.
set -eu

HOST=${HOST:-/host}
FILES=${FILES:-/virtcontainers}
to=$HOST/usr/local

# A command of the node's own, where its first process is.
on_node() {
    ${ON_NODE:-nsenter --target 1 --mount --} "$@"
}

# Puts a copy of a file or a directory at a name, at once: whoever has the old one open goes on with it.
place() {
    rm -rf "$2.new"
    cp -a "$1" "$2.new"
    mv -f -T "$2.new" "$2"
}

install() {
    guest=$to/share/virtcontainers/guest
    mkdir -p "$to/bin" "$guest"
    # The guest lies in a directory that is named by what is in it; `current` leads to it.
    set=$(readlink "$FILES/share/virtcontainers/guest/current")
    [ -d "$guest/$set" ] || place "$FILES/share/virtcontainers/guest/$set" "$guest/$set"
    place "$FILES/share/virtcontainers/guest/current" "$guest/current"
    for program in virtc containerd-shim-virtc-v2; do
        place "$FILES/bin/$program" "$to/bin/$program"
    done
    on_node /usr/local/bin/virtc install containerd --restart
}

remove() {
    [ -e "$to/bin/virtc" ] || return 0
    on_node /usr/local/bin/virtc uninstall containerd --restart
    rm -rf "$to/bin/virtc" "$to/bin/containerd-shim-virtc-v2" "$to/share/virtcontainers"
}

case ${1:-} in
install) install ;;
remove) remove ;;
# A shell that is the first process of its namespace hears only the signals that it asks for.
wait)
    trap 'exit 0' TERM INT
    while :; do
        sleep 3600 &
        wait $!
    done
    ;;
*)
    echo "usage: node.sh install|remove|wait" >&2
    exit 2
    ;;
esac
