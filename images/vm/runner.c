/* PID 1 of the container of a `kind: vm` host: runs QEMU, and makes its guest the host.
 *
 *     runner save|run MEMORY_MB NETWORKS QEMU_ARGUMENTS ARGUMENT... [INIT_ARGUMENT...]
 *
 * QEMU_ARGUMENTS says how many of the arguments that follow are QEMU's command line; it finds its ends of what it is given
 * as file descriptors AGENT_FD, QMP_FD and TAPS_FD, TAPS_FD + 1, ... The rest is for init (see init/init.c), which is run
 * in the guest once that answers. `init --wait` returns in it when it is a host.
 *
 * `run` restores the guest from the snapshot in DIRECTORY, or boots it where there is none or it does not answer, and
 * says which: "vm: restored RELEASE" or "vm: booted RELEASE". While QEMU restores, the host's links are put in from outside ("init:
 * waiting" asks for them). Then clients reach the guest's agent at AGENT_SOCKET (see sessions.h). The container
 * ends when the guest does. A client can have the guest made new: another one is restored, on the same links.
 *
 * `save` boots the guest and makes the snapshot: its memory is the file that is its memory while it runs, so that saving
 * takes no time, and a clone maps it and copies only the pages that it writes. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../agent/clock.h"
#include "guest_agent.h"
#include "link.h"
#include "sessions.h"

#define DIRECTORY "/vm"
#define MEMORY DIRECTORY "/memory"
#define STATE DIRECTORY "/state"
#define RELEASE DIRECTORY "/release"
#define FILES DIRECTORY "/files.tar"

extern char **environ;

enum { AGENT_FD = 100, QMP_FD, TAPS_FD, NETWORKS_MOST = 16 }; /* above all that we open ourselves */
enum { RESTORED_MS = 3000, BOOTED_MS = 60000, SAVED_MS = 60000, ENDED_MS = 500, SEED_SIZE = 32, INPUT_MOST = 256 * 1024 };
enum { GUEST_ENDED = 1, BAD_ARGUMENTS = 2 };
enum mode { SAVE, RESTORE, BOOT };

static struct { pid_t pid; int agent, qmp; } qemu;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "%s\n", line); /* one write, so that lines of others do not mix in */
}

static _Noreturn void die(const char *what)
{
    say("vm: %s: %s", what, strerror(errno));
    exit(GUEST_ENDED);
}

/* --- QEMU ----------------------------------------------------------------------------------------------------- */

static void give(int fd, int number)
{
    if (dup2(fd, number) < 0)
        die("passing a descriptor to QEMU");
}

static void start_qemu(enum mode mode, int memory_mb, int networks, const int *taps, char **arguments, int count)
{
    int agent[2], qmp[2];
    char memory[256];
    const char *form = mode == SAVE      ? "memory-backend-file,id=ram,size=%dM,mem-path=" MEMORY ",share=on"
                       : mode == RESTORE ? "memory-backend-file,id=ram,size=%dM,mem-path=" MEMORY ",share=off,readonly=on,rom=off"
                                         : "memory-backend-ram,id=ram,size=%dM";
    snprintf(memory, sizeof memory, form, memory_mb);
    char **whole = calloc((size_t)count + 5, sizeof *whole);
    if (!whole || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, agent) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp) < 0)
        die("preparing QEMU");
    memcpy(whole, arguments, (size_t)count * sizeof *whole);
    char **end = whole + count;
    *end++ = "-object";
    *end++ = memory;
    if (mode == RESTORE) {
        *end++ = "-incoming";
        *end++ = "defer";
    }
    qemu.pid = fork();
    if (qemu.pid < 0)
        die("fork");
    if (qemu.pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        give(agent[1], AGENT_FD);
        give(qmp[1], QMP_FD);
        for (int i = 0; i < networks; i++)
            give(taps[i], TAPS_FD + i);
        int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
        give(nothing, STDIN_FILENO);
        execv(whole[0], whole);
        die(whole[0]);
    }
    free(whole);
    close(agent[1]);
    close(qmp[1]);
    qemu.agent = agent[0];
    qemu.qmp = qmp[0];
}

/* How QEMU ended, in words. Waits for it. */
static const char *end_of_qemu(void)
{
    static char words[64];
    int status;
    while (waitpid(qemu.pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        snprintf(words, sizeof words, "signal %d ended QEMU", WTERMSIG(status));
    else
        snprintf(words, sizeof words, "QEMU ended with exit code %d", WEXITSTATUS(status));
    return words;
}

static void stop_qemu(void)
{
    kill(qemu.pid, SIGKILL);
    end_of_qemu();
    close(qemu.agent);
    close(qemu.qmp);
}

static bool qemu_has_ended(void)
{
    siginfo_t end = {0};
    return waitid(P_PID, (id_t)qemu.pid, &end, WEXITED | WNOHANG | WNOWAIT) < 0 || end.si_pid == qemu.pid;
}

/* The guest does not answer: because QEMU has ended, or for no reason that we know. */
static int say_not_up(void)
{
    const long patience = now_ms() + ENDED_MS;
    while (now_ms() < patience) {
        if (qemu_has_ended()) {
            say("vm: the guest did not come up: %s", end_of_qemu());
            return GUEST_ENDED;
        }
        poll(NULL, 0, 5);
    }
    say("vm: the guest did not come up in %d s", BOOTED_MS / 1000);
    stop_qemu();
    return GUEST_ENDED;
}

/* One line of the monitor (QMP: JSON objects, a line each) that is no event: false when there is none in time. */
static bool answer_of_monitor(char *line, size_t size, long deadline)
{
    size_t length = 0;
    while (length + 1 < size) {
        struct pollfd readable = {.fd = qemu.qmp, .events = POLLIN};
        long left = deadline - now_ms();
        if (left <= 0)
            return false;
        if (poll(&readable, 1, (int)left) <= 0)
            continue;
        if (recv(qemu.qmp, line + length, 1, 0) != 1)
            return false;
        if (line[length] != '\n') {
            length++;
            continue;
        }
        line[length] = '\0';
        if (!strstr(line, "\"event\":"))
            return true;
        length = 0;
    }
    return false;
}

static bool tell_monitor(const char *command, char *answer, size_t size, long deadline)
{
    return send(qemu.qmp, command, strlen(command), MSG_NOSIGNAL) == (ssize_t)strlen(command) &&
           answer_of_monitor(answer, size, deadline) && strncmp(answer, "{\"return\"", 9) == 0;
}

/* Its greeting, and the capability without which memory would be copied. */
static bool open_monitor(long deadline)
{
    char answer[4096];
    return answer_of_monitor(answer, sizeof answer, deadline) &&
           tell_monitor("{\"execute\": \"qmp_capabilities\"}\n", answer, sizeof answer, deadline) &&
           tell_monitor("{\"execute\": \"migrate-set-capabilities\", \"arguments\": {\"capabilities\": "
                        "[{\"capability\": \"x-ignore-shared\", \"state\": true}]}}\n",
                        answer, sizeof answer, deadline);
}

static bool load_snapshot(void)
{
    char answer[4096];
    const long deadline = now_ms() + RESTORED_MS;
    return open_monitor(deadline) &&
           tell_monitor("{\"execute\": \"migrate-incoming\", \"arguments\": {\"uri\": \"file:" STATE "\"}}\n", answer, sizeof answer, deadline);
}

static void save_snapshot(void)
{
    char answer[4096] = "";
    const long deadline = now_ms() + SAVED_MS;
    if (!open_monitor(deadline) || !tell_monitor("{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"file:" STATE "\"}}\n", answer,
                                                 sizeof answer, deadline)) {
        say("vm: QEMU did not save the guest: %s", answer);
        exit(GUEST_ENDED);
    }
    do {
        poll(NULL, 0, 5);
        if (!tell_monitor("{\"execute\": \"query-migrate\"}\n", answer, sizeof answer, deadline) || strstr(answer, "\"failed\"")) {
            say("vm: QEMU did not save the guest: %s", answer);
            exit(GUEST_ENDED);
        }
    } while (!strstr(answer, "\"completed\""));
}

/* --- the guest ------------------------------------------------------------------------------------------------ */

static void read_release(char *release, size_t size)
{
    FILE *file = fopen(RELEASE, "re");
    if (!file || !fgets(release, (int)size, file))
        die(RELEASE);
    release[strcspn(release, "\n")] = '\0';
    fclose(file);
}

/* Arguments of init, each with the NUL that ends it. */
static struct { char bytes[INPUT_MOST]; size_t size; } told;

static void tell(const char *argument)
{
    size_t size = strlen(argument) + 1;
    if (size > sizeof told.bytes - told.size) {
        say("vm: what init is to be told has more than %zu bytes", sizeof told.bytes);
        exit(GUEST_ENDED);
    }
    memcpy(told.bytes + told.size, argument, size);
    told.size += size;
}

/* What every clone of a snapshot must have of its own, and what it has slept through. */
static void tell_individuality(void)
{
    char hostname[65] = "", clock[64], seed[2 * SEED_SIZE + 1];
    unsigned char random[SEED_SIZE];
    struct timespec now;
    gethostname(hostname, sizeof hostname - 1);
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(clock, sizeof clock, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
    if (getrandom(random, sizeof random, 0) != sizeof random)
        die("getrandom");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(seed + 2 * i, 3, "%02x", random[i]);
    const char *const arguments[] = {"--hostname", hostname, "--clock", clock, "--seed", seed};
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
        tell(arguments[i]);
}

/* Start init on the guest, where it waits to be told what host it is to make of it. That is before a snapshot: the guest of a
 * clone, which has none of its code translated, need not start a program then. */
static void start_init(void)
{
    char *init[] = {"/usr/lib/testbed/init", "--from-input", NULL};
    if (start_on_guest(qemu.agent, init, "/dev/virtio-ports/stdout", "/dev/virtio-ports/stderr") < 0) {
        say("vm: init cannot be run on the guest");
        exit(GUEST_ENDED);
    }
}

/* Let init make the guest this host. */
static void make_host(char **arguments, int count)
{
    set_environment(qemu.agent, environ);
    int files = open(FILES, O_RDONLY | O_CLOEXEC);
    if (files >= 0) {
        char *unpack[] = {"tar", "-x", "-p", "--no-same-owner", "-C", "/", "-f", "-", NULL};
        int code = run_on_guest(qemu.agent, unpack, files);
        if (code != 0) {
            say("vm: the host's files could not be unpacked on it (exit code %d)", code);
            exit(GUEST_ENDED);
        }
        close(files);
    }
    told.size = 0;
    tell_individuality(); /* after the files, whose unpacking may take a while: the clock goes on */
    for (char **variable = environ; *variable; variable++) {
        tell("--environment");
        tell(*variable);
    }
    for (int i = 0; i < count; i++)
        tell(arguments[i]);
    if (tell_started(qemu.agent, told.bytes, told.size) < 0) {
        say("vm: init on the guest takes no arguments");
        exit(GUEST_ENDED);
    }
}

/* What most commands need is in the guest's memory then, and not read from its disk again by each clone. */
static void warm_up(void)
{
    static char *const commands[][8] = {
        {"true", NULL},
        {"sh", "-c", "{ ip link; ss -tln; cat /proc/net/tcp; ps; sysctl net.core.somaxconn; } > /dev/null", NULL},
        {"python3", "-c", "import socket, struct, sys, os, select, threading", NULL},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        run_on_guest(qemu.agent, commands[i], -1);
}

/* What came for the guest before this one. */
static void drain(int tap)
{
    static char frame[128 * 1024];
    struct pollfd readable = {.fd = tap, .events = POLLIN};
    while (poll(&readable, 1, 0) > 0 && read(tap, frame, sizeof frame) > 0)
        ;
}

struct guest { int memory_mb, networks, taps[NETWORKS_MOST], qemu_count, init_count; char **qemu_arguments, **init_arguments; };

static void start_guest(const struct guest *guest, enum mode mode)
{
    start_qemu(mode, guest->memory_mb, guest->networks, guest->taps, guest->qemu_arguments, guest->qemu_count);
}

static int save(const struct guest *guest)
{
    int memory = open(MEMORY, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (memory < 0 || ftruncate(memory, (off_t)guest->memory_mb << 20) < 0)
        die(MEMORY);
    start_guest(guest, SAVE);
    if (!greet_agent(qemu.agent, BOOTED_MS))
        return say_not_up();
    warm_up();
    start_init();
    save_snapshot();
    stop_qemu();
    if (fsync(memory) < 0)
        die(MEMORY);
    return 0;
}

static int bring_up(const struct guest *guest)
{
    static bool linked;
    char release[128];
    bool restored = access(STATE, R_OK) == 0;
    read_release(release, sizeof release);
    start_guest(guest, restored ? RESTORE : BOOT);
    bool loading = restored && load_snapshot();
    if (!linked && guest->networks > 0)
        say("init: waiting");
    for (int i = 0; !linked && i < guest->networks; i++)
        if ((errno = join_tap(i)) != 0)
            die("joining the guest's network");
    linked = true;
    if (restored && !(loading && agent_answers(qemu.agent, RESTORED_MS))) {
        say("vm: the snapshot could not be restored, so the guest is booted");
        stop_qemu();
        start_guest(guest, BOOT);
        restored = false;
    }
    if (!restored && !greet_agent(qemu.agent, BOOTED_MS))
        return say_not_up();
    if (!restored)
        start_init();
    say("vm: %s %s", restored ? "restored" : "booted", release);
    return 0;
}

static int make_anew(const struct guest *guest)
{
    stop_qemu();
    begin_sessions_anew();
    for (int i = 0; i < guest->networks; i++)
        drain(guest->taps[i]);
    int code = bring_up(guest);
    if (code == 0) {
        make_host(guest->init_arguments, guest->init_count);
        tell_reset_done();
    }
    return code;
}

static int serve(const struct guest *guest, int listener, int signals)
{
    for (;;) {
        int code = serve_clients(listener, qemu.agent, signals);
        if (code == RESET_ASKED) {
            if ((code = make_anew(guest)) != 0)
                return code;
            continue;
        }
        if (code >= 0) {
            say("vm: init ended on the guest");
            stop_qemu();
            return code > 0 ? code : GUEST_ENDED;
        }
        struct signalfd_siginfo arrived = {0};
        if (code == SIGNALLED && read(signals, &arrived, sizeof arrived) > 0 && arrived.ssi_signo != SIGCHLD) {
            stop_qemu();
            return 0;
        }
        if (code == SIGNALLED && !qemu_has_ended())
            continue; /* it was stopped, or it is the end of one before, that did not restore the snapshot */
        if (code == GUEST_GONE)
            kill(qemu.pid, SIGKILL); /* the agent's end is the host's end, QEMU may go on without */
        say("vm: the guest is gone: %s", end_of_qemu());
        return GUEST_ENDED;
    }
}

int main(int argc, char *argv[])
{
    enum { MODE = 1, MEMORY_MB, NETWORKS, COUNT, QEMU };
    if (argc < QEMU + 1 || atoi(argv[NETWORKS]) > NETWORKS_MOST || QEMU + atoi(argv[COUNT]) > argc) {
        say("usage: runner save|run MEMORY_MB NETWORKS QEMU_ARGUMENTS ARGUMENT... [INIT_ARGUMENT...]");
        return BAD_ARGUMENTS;
    }
    struct guest guest = {
        .memory_mb = atoi(argv[MEMORY_MB]),
        .networks = atoi(argv[NETWORKS]),
        .qemu_count = atoi(argv[COUNT]),
        .qemu_arguments = argv + QEMU,
    };
    guest.init_arguments = guest.qemu_arguments + guest.qemu_count;
    guest.init_count = argc - QEMU - guest.qemu_count;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    /* Of QEMU's end we want to hear, not of its being stopped, after which nothing has ended that could be waited for. */
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP}, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), listener = listen_for_clients();
    if (signals < 0 || listener < 0)
        die("preparing");
    for (int i = 0; i < guest.networks; i++)
        if ((guest.taps[i] = open_tap(i)) < 0)
            die("/dev/net/tun");
    if (strcmp(argv[MODE], "save") == 0)
        return save(&guest);
    int code = bring_up(&guest);
    if (code != 0)
        return code;
    make_host(guest.init_arguments, guest.init_count);
    return serve(&guest, listener, signals);
}
