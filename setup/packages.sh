# Debian packages. Sourced by setup.sh.
# shellcheck shell=bash

wanted=()     # packages that are not there ...
wanted_for=() # ... and what each is needed for

# want PACKAGE WHAT-FOR
want() {
    wanted+=("$1")
    wanted_for+=("$2")
}

is_debian() {
    [ -r "$root/etc/os-release" ] || return 1
    local like
    like=$(sed -n 's/^ID\(_LIKE\)\?=//p' "$root/etc/os-release" | tr -d '"' | tr '\n' ' ')
    case " $like " in
    *' debian '* | *' ubuntu '*) command -v apt-get >/dev/null ;;
    *) return 1 ;;
    esac
}

# Installs what is wanted, or says why it cannot.
bring_packages() {
    [ ${#wanted[@]} -gt 0 ] || return 0
    local index
    if $check; then
        for index in "${!wanted[@]}"; do missing+=("${wanted[index]} (${wanted_for[index]})"); done
        wanted=() wanted_for=()
        return
    fi
    if ! is_debian; then
        local needs=()
        for index in "${!wanted[@]}"; do needs+=("${wanted_for[index]} (Debian's package ${wanted[index]})"); done
        stop "this system is not Debian or Ubuntu, so these are for you to install:" "${needs[@]}"
    fi
    if [ "$(id -u)" != 0 ]; then
        stop "packages are missing, and only root may install them. Run, then repeat:" \
            "sudo apt-get update && sudo apt-get install --no-install-recommends ${wanted[*]}"
    fi
    install_packages "${wanted[@]}"
    wanted=() wanted_for=()
}

install_packages() {
    say "installing $*"
    changed=true
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    if ! apt_get "$@" >"$log" 2>&1 </dev/null 9>&-; then
        tail_of "$log"
        local hint="the whole output is in $log"
        if grep -qiE 'temporary failure|could not resolve|unable to connect|could not connect|connection timed out' "$log"; then
            hint="the package archive cannot be reached: is there a network, or a proxy to name in http_proxy?"
        fi
        stop "apt-get could not install: $*" "$hint"
    fi
    rm -f "$log"
}

apt_get() {
    local options=(--quiet --yes --no-install-recommends -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
    apt-get "${options[@]}" update || true # one source of several that cannot be read does not matter, if the package is found
    # After an interrupted installation apt-get refuses until that one is finished.
    apt-get "${options[@]}" install "$@" || { dpkg --configure -a && apt-get "${options[@]}" install "$@"; }
}
