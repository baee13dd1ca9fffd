#!/bin/sh
# setup-tool.sh PROGRAM VERSION: builds a cargo subcommand of the checks, where the system lacks it.
set -eu
. "$(dirname "$0")/step.sh"

if have "$1"; then
    step "$1" "there"
else
    install_tool "$1" "$2"
fi
