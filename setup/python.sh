# The virtual environment. Sourced by setup.sh.
# shellcheck shell=bash

venv=$here/.venv
python=

# The first interpreter that is new enough, into $python.
find_python() {
    local candidate seen=
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return
        fi
        seen+=" $candidate is $("$candidate" --version 2>&1 || true)."
    done
    stop "Python 3.11 or newer is needed.${seen:- There is no python3.}" \
        "Debian 12 has it as python3; PYTHON=/path/to/python3.12 make setup takes another one"
}

# What .venv was made from: the place (its scripts hold absolute paths) and the lock; and how the package is described.
lock_id() { { echo "$here" && cat "$here/requirements.txt"; } | sha256sum; }
package_id() { sha256sum <"$here/pyproject.toml"; }

# Importing a locked package also notices that the interpreter under .venv was replaced by another version.
dependencies_are_there() {
    [ "$(cat "$venv/testbed.lock" 2>/dev/null)" = "$(lock_id)" ] && "$venv/bin/python" -c 'import hatchling' 2>/dev/null
}

package_is_there() {
    [ -x "$venv/bin/testbed" ] && [ "$(cat "$venv/testbed.package" 2>/dev/null)" = "$(package_id)" ]
}

# run_pip ARGUMENTS: quietly; on failure the end of its output and what to do.
run_pip() {
    local log
    log=$(mktemp)
    if ! "$venv/bin/python" -m pip --no-input --disable-pip-version-check "$@" >"$log" 2>&1 </dev/null; then
        tail_of "$log"
        local hint="if the cause is not to be seen above: the whole output is in $log"
        if grep -qiE 'NewConnectionError|name resolution|Network is unreachable|timed out|Could not find a version' "$log"; then
            hint="the Python package index may be out of reach: is there a network, or a mirror to name in PIP_INDEX_URL?"
        fi
        stop "pip could not install what testbed needs" "$hint"
    fi
    rm -f "$log"
}

python_version() { "$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Debian splits these modules off Python.
want_venv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || want "python$(python_version)-venv" "Python's module venv"
}

make_dependencies() {
    find_python
    want_venv
    bring_packages
    say "making .venv with Python $(python_version) ($(grep -c '==' "$here/requirements.txt") packages)"
    # From nothing: half of an interrupted one cannot be told from a whole one. The stamp comes last.
    rm -rf "$venv"
    "$python" -m venv "$venv" || stop "'$python -m venv' failed; see above"
    changed=true
    run_pip install --require-hashes --no-deps --only-binary :all: -r "$here/requirements.txt"
    lock_id >"$venv/testbed.lock"
}

make_package() {
    # The backend is in the lock, so nothing is fetched.
    changed=true
    run_pip install --no-deps --no-index --no-build-isolation --editable "$here"
    package_id >"$venv/testbed.package"
}

set_up_python() {
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_USER PIP_PREFIX # they would lead pip out of .venv
    if dependencies_are_there && package_is_there; then return; fi
    if $check; then
        find_python
        want_venv
        bring_packages
        missing+=(".venv (a virtual environment with the locked dependencies)")
        return
    fi
    take_lock "$here/.venv.lock"
    dependencies_are_there || make_dependencies
    package_is_there || make_package
    exec 9>&-
}
