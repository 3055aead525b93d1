#!/usr/bin/env bash
# Brings what testbed needs, and only what is not there yet.
#
#   setup/setup.sh [--check] [python] [compilers] [machine] [compose]
#
#   python    .venv with the locked dependencies and the command .venv/bin/testbed
#   compilers for the C programs of host images, which `make check` compiles
#   machine   these, a Docker engine that answers, image tools, s390x emulation
#   compose   docker-compose, for `make bench` only
#
# Without a name: python and machine. With --check, or SETUP=check in the environment, it only says what is missing.
# PYTHON names the interpreter to use, SETUP_AS_ROOT what root is to be told to run.
#
# Exit codes: 0 everything is there; 1 something is missing (--check); 2 it was called wrongly; 3 it could not go on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Tests put a made-up machine here: the files that are looked at, or written, outside the checkout.
root=${SETUP_ROOT:-}
PATH=$PATH:$root/usr/sbin:$root/sbin # of whoever is not root it often lacks these
check=false
missing=() # what --check found absent
changed=false

say() { printf 'setup: %s\n' "$*"; }

# stop MESSAGE [HOW TO MEND IT ...]
stop() {
    printf 'setup: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 3
}

wrong_call() {
    printf 'setup: %s\n  %s\n' "$1" "usage: setup/setup.sh [--check] [python] [compilers] [machine] [compose]" >&2
    exit 2
}

# The end of a log of a step that failed.
tail_of() { tail -n 15 "$1" | sed 's/^/  | /' >&2; }

# take_lock FILE: two runs at once do not do the same thing twice. The lock goes with this process.
take_lock() {
    exec 9>"$1"
    flock --nonblock 9 && return
    say "waiting for another setup that is at work"
    flock --timeout 1800 9 || stop "another setup holds $1 for more than 30 minutes"
}

# shellcheck source=setup/packages.sh
. "$here/setup/packages.sh"
# shellcheck source=setup/python.sh
. "$here/setup/python.sh"
# shellcheck source=setup/machine.sh
. "$here/setup/machine.sh"

parts=()
for word in "$@"; do
    case $word in
    --check) check=true ;;
    python | compilers | machine | compose) parts+=("$word") ;;
    *) wrong_call "'$word' is not a part of setup" ;;
    esac
done
case ${SETUP:-} in
check) check=true ;;
'') ;;
*) wrong_call "SETUP is '$SETUP'; it may only be 'check'" ;;
esac
[ ${#parts[@]} -gt 0 ] || parts=(python machine)

for part in "${parts[@]}"; do
    "set_up_$part"
done

if [ ${#missing[@]} -gt 0 ]; then
    printf 'setup: missing: %s\n' "${missing[@]}"
    exit 1
fi
if $changed; then say "done in $SECONDS s"; else say "everything is there"; fi
