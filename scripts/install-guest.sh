#!/bin/sh
# install-guest.sh GUEST-IMAGE DIR: puts the current set of guest assets below DIR and checks it.
set -eu
. "$(dirname "$0")/step.sh"

guest_image=$1
out=$2
set=$(readlink "$VIRTCONTAINERS_CACHE/guest/current") || fail "there are no guest assets" "run \`make guest\`"

mkdir -p "$out"
if [ ! -d "$out/$set" ]; then
    new=$(mktemp -d "$out/.new-XXXXXX")
    trap 'rm -rf "$new"' EXIT
    for file in vmlinux initrd manifest.json; do
        install -m 444 "$VIRTCONTAINERS_CACHE/guest/$set/$file" "$new/$file"
    done
    chmod 755 "$new"
    mv "$new" "$out/$set"
    trap - EXIT
fi
# The copy has other inodes: only this makes its next opening cheap.
"$guest_image" verify "$out/$set" >/dev/null
link=$out/.current-$$
ln -sfn "$set" "$link"
mv -T "$link" "$out/current"
step "guest assets" "installed ($out/$set)"
