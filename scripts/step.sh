# What the set-up scripts share; read with `.`, not run.
# shellcheck shell=sh

# Where everything is kept that is not built from this tree alone.
VIRTCONTAINERS_CACHE=${VIRTCONTAINERS_CACHE:-/var/cache/virtcontainers}

# One line for each step: its name, and what became of it.
step() {
    printf '%-22s %s\n' "$1" "$2"
}

# Ends with a message and what to do about it.
fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command whose output matters only when it fails.
quietly() {
    log=$(mktemp)
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" = 0 ] || tail -n 40 "$log" >&2
    rm -f "$log"
    return "$status"
}

# install_tool CRATE VERSION: builds a program from the package registry once, into
# $VIRTCONTAINERS_CACHE/tools/CRATE-VERSION/bin, whole or not at all.
install_tool() {
    tool=$VIRTCONTAINERS_CACHE/tools/$1-$2
    if [ -x "$tool/bin/$1" ]; then
        step "$1 $2" "there"
        return 0
    fi
    step "$1 $2" "building (once, some minutes)"
    mkdir -p "$VIRTCONTAINERS_CACHE/tools"
    new=$(mktemp -d "$VIRTCONTAINERS_CACHE/tools/.new-XXXXXX")
    trap 'rm -rf "$new"' EXIT
    # Not from inside this tree: its cargo configuration is not meant for other programs.
    (
        cd "$new"
        quietly cargo install --locked --target "$(host_target)" --target-dir "$new/target" \
            --root "$new/root" --version "$2" "$1"
    ) || fail "cannot build $1 $2"
    chmod 755 "$new/root"
    rm -rf "$tool"
    mv "$new/root" "$tool"
    rm -rf "$new"
    trap - EXIT
    step "$1 $2" "built"
}

host_target() {
    rustc -vV | sed -n 's/^host: //p'
}
