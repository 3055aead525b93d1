# The Docker engine, image tools and s390x emulation. Sourced by setup.sh.
# shellcheck shell=bash

engine_log=$root/var/log/testbed-dockerd.log
binfmt=$root/proc/sys/fs/binfmt_misc
engine= # what ask_engine.py said

ask_engine() {
    engine=$("$venv/bin/python" -I "$here/setup/ask_engine.py" 2>/dev/null) && return
    find_python # there is no .venv, or a broken one
    engine=$("$python" -I "$here/setup/ask_engine.py")
}

has() { command -v "$1" >/dev/null; }

# Emulation matters on the engine's machine, so not here when the engine is elsewhere, nor where s390x is native.
emulation_is_ours() {
    [ "$(uname -m)" != s390x ] && [[ $engine != "answers elsewhere"* ]]
}

# F: the kernel keeps the interpreter open, so that it is found from inside a container, which has none.
emulation_works() {
    [ "$(head -n 1 "$binfmt/status" 2>/dev/null)" = enabled ] &&
        grep -qx enabled "$binfmt/qemu-s390x" 2>/dev/null &&
        grep -q '^flags:.*F' "$binfmt/qemu-s390x"
}

# Which packages are not there. By what they bring, not by their names, so that other systems' count too.
want_packages() {
    if [[ $engine = silent* ]]; then
        has dockerd || want docker.io "a Docker engine"
        has iptables || want iptables "what the Docker engine sets up networks with"
    fi
    if emulation_is_ours && ! emulation_works; then
        has mount || want mount "the command mount"
        has qemu-s390x-static || want qemu-user-static "an emulator for programs of s390x"
    fi
    has mmdebstrap || want mmdebstrap "what host images are made with"
    [ -e "$root/usr/share/keyrings/debian-archive-keyring.gpg" ] || want debian-archive-keyring "the keys of Debian's archive"
    has ip || want iproute2 "the command ip"
    has xz || want xz-utils "the command xz"
    has sqfstar || want squashfs-tools "what the disks of guests are made with"
    has depmod || want kmod "what a guest's kernel modules are listed with"
    want_compilers
}

# For the C programs of host images, which the unit tests compile too.
want_compilers() {
    has "$(uname -m)-linux-gnu-gcc" || want gcc "a C compiler"
    [ -e "$root/usr/include/stdio.h" ] || want libc6-dev "the C library's headers"
    if [ "$(uname -m)" != s390x ]; then
        has s390x-linux-gnu-gcc || want gcc-s390x-linux-gnu "a C compiler for s390x"
        [ -e "$root/usr/s390x-linux-gnu/include/stdio.h" ] || want libc6-dev-s390x-cross "the C library for s390x"
    fi
}

# Whether someone (the package's own script, another setup) has started an engine that does not answer yet.
engine_is_starting() {
    local pid
    pid=$(cat "$root/var/run/docker.pid" 2>/dev/null) && [ "$(cat "$root/proc/$pid/comm" 2>/dev/null)" = dockerd ]
}

engine_failed() {
    [ ! -s "$engine_log" ] || tail_of "$engine_log"
    stop "$1" \
        "usual reasons: this machine is itself a container without the right to mount or to set up networks;" \
        "no cgroups are mounted on /sys/fs/cgroup; iptables does not work with this kernel; the disk is full." \
        "With systemd see also: journalctl -u docker. An engine elsewhere can be named in DOCKER_HOST."
}

start_engine() {
    local pid=''
    changed=true
    if [ -d "$root/run/systemd/system" ] && has systemctl; then
        say "starting the Docker engine (systemctl start docker)"
        systemctl start docker || engine_failed "systemd could not start the Docker engine"
    elif engine_is_starting; then
        say "waiting for the Docker engine, which is starting"
    else
        say "starting the Docker engine (dockerd in the background, its log is $engine_log)"
        if ! grep -qE '^\S+ \S+ cgroup2? ' "$root/proc/self/mounts"; then
            mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup" || engine_failed "cgroups could not be mounted"
        fi
        # Detached, and without the lock, which it would hold for as long as it lives.
        setsid dockerd >"$engine_log" 2>&1 </dev/null 9>&- &
        pid=$!
    fi
    local deadline=$((SECONDS + ${SETUP_ENGINE_TIMEOUT_S:-60}))
    until ask_engine && [[ $engine = answers* ]]; do
        [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || engine_failed "the Docker engine ended at once"
        [ "$SECONDS" -lt "$deadline" ] || engine_failed "the Docker engine does not answer"
        sleep 0.2
    done
}

# The line that Debian's package registers, with F among its flags; or the same for an emulator of another origin.
registration() {
    local line=
    if [ -r "$root/usr/lib/binfmt.d/qemu-s390x.conf" ]; then
        line=$(grep -m 1 '^:qemu-s390x:' "$root/usr/lib/binfmt.d/qemu-s390x.conf" || true)
    fi
    if [ -z "$line" ]; then
        line=':qemu-s390x:M::\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16'
        line+=':\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff'
        line+=":$(command -v qemu-s390x-static):"
    fi
    case ${line##*:} in *F*) ;; *) line+=F ;; esac
    printf '%s' "$line"
}

register_emulation() {
    changed=true
    if [ ! -e "$binfmt/register" ]; then
        say "mounting binfmt_misc"
        modprobe binfmt_misc 2>/dev/null || true # it may be built in
        mount -t binfmt_misc binfmt_misc "$binfmt" || emulation_failed "binfmt_misc cannot be mounted"
        if emulation_works; then return; fi # registered before, and out of sight
    fi
    [ "$(head -n 1 "$binfmt/status")" = enabled ] || echo 1 >"$binfmt/status" || emulation_failed "binfmt_misc cannot be enabled"
    if [ -e "$binfmt/qemu-s390x" ]; then
        say "registering s390x again with binfmt_misc: it is disabled or lacks the flag F"
        echo -1 >"$binfmt/qemu-s390x" || emulation_failed "the old registration of s390x cannot be removed"
    else
        say "registering s390x with binfmt_misc"
    fi
    registration >"$binfmt/register" || emulation_failed "the kernel refused the registration of s390x"
    emulation_works || emulation_failed "s390x is registered, and yet not in force"
}

emulation_failed() {
    stop "$1, so emulated s390x hosts would not run" \
        "the kernel needs CONFIG_BINFMT_MISC, and this machine must not be a container without the right to register there"
}

# only_root_may DO-WHAT: stops when we are not root.
only_root_may() {
    [ "$(id -u)" = 0 ] || stop "only root may $1. Run, then repeat:" "${SETUP_AS_ROOT:-sudo ${here@Q}/setup/setup.sh machine}"
}

set_up_machine() {
    ask_engine
    want_packages
    local unmendable=false # by us
    if [[ $engine = denied* ]]; then
        $check || stop "a Docker engine is there, and you may not use its socket ${engine#denied }" \
            "sudo usermod -aG docker \"\$USER\", then log in again (or: newgrp docker)"
        unmendable=true
        missing+=("the right to use the Docker engine's socket ${engine#denied } (group docker)")
    fi
    if [[ $engine = silent* && $engine != "silent unix:///var/run/docker.sock" && $engine != "silent unix:///run/docker.sock" ]]; then
        $check || stop "no Docker engine answers at ${engine#silent }" \
            "that is what DOCKER_HOST or the Docker context in use names: start it there, or unset DOCKER_HOST (docker context use default)"
        missing+=("a Docker engine that answers at ${engine#silent }")
        unmendable=true
    fi
    if [[ $engine != silent* ]] && [ ${#wanted[@]} -eq 0 ] && { ! emulation_is_ours || emulation_works; }; then return; fi
    if $check; then
        bring_packages
        [[ $engine != silent* ]] || $unmendable || missing+=("a running Docker engine")
        ! emulation_is_ours || emulation_works || missing+=("s390x registered with binfmt_misc, with the flag F")
        return
    fi
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$root/run/lock"
        take_lock "$root/run/lock/testbed-setup.lock"
        # What another setup did meanwhile is not done again.
        wanted=() wanted_for=()
        ask_engine
        want_packages
    fi
    bring_packages
    ask_engine
    if [[ $engine != answers* ]]; then
        only_root_may "start the Docker engine"
        start_engine
    fi
    if emulation_is_ours && ! emulation_works; then
        only_root_may "register s390x with binfmt_misc"
        register_emulation
    fi
    exec 9>&-
}

set_up_compilers() {
    want_compilers
    bring_packages
}

set_up_compose() {
    has docker-compose || want docker-compose "the command docker-compose, which the benchmark compares with"
    bring_packages
}
