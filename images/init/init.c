/* PID 1 of every container host: configures the host's network stack, starts its command, reaps what dies.
 * On a guest, whose PID 1 is another (guest/guest.c), it does the same as a process like others.
 *
 *     init --from-input
 *     init --wait
 *     init [--own CAPABILITIES] [--environment NAME=VALUE]... [--hostname NAME] [--clock SECONDS] [--seed HEX] [--link DEVICE MAC MTU]...
 *          [--hosts TEXT] [--sysctl NAME=VALUE]... [--address DEVICE CIDR]... [--route DESTINATION VIA]...
 *          [-- COMMAND ARGUMENT...]
 *
 * In this order: TEXT becomes /etc/hosts; devices get no IPv6, unless they get an address of it; each sysctl is
 * written, read back and compared; "init: waiting" goes to standard error, and the devices are put into the namespace
 * from outside; each gets its addresses; sysctls that name one of the devices are set; each route is added, or replaces
 * the one there is; "init: ready" goes to standard error; the command, if any, starts in a session of its own. When it
 * ends, its exit code (128 + N for signal N) goes to /run/testbed/command.exit and the host stays up. SIGTERM and
 * SIGINT end the host. Without addresses there is nothing to wait for.
 *
 * With --from-input the arguments are read from standard input, each ends in NUL.
 *
 * With --own (which capabilities: agent/own.h) the host can be made new. Then it has from the start a network namespace and a root
 * file system of init's making (fresh.h), and SIGUSR1 makes them again: whatever runs ends, but the process that sent the
 * signal, and all of the above happens again, with SIGUSR1 to that process, its value a step of agent/protocol.h's RESET, in
 * the place of words on standard error. Commands do not get those capabilities.
 *
 * --wait returns when the guest on which it runs is ready.
 *
 * For a guest, before all of this: more of the command's environment, its name, its wall clock (seconds since 1970 with nine decimals), bytes for the kernel's
 * random number generator, which starts anew with them, and the MAC and MTU of each device, which is not put in.
 *
 * What cannot be set ends init with exit code 1 and one line that says which, and the errno's name: a host that is not
 * what its file says must not come up.
 *
 * It is linked statically for the machine's own architecture and is PID 1 of emulated hosts too, so what it asks of the
 * kernel (netlink!) is not translated by the emulator. */

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../agent/own.h"
#include "../agent/protocol.h"
#include "fresh.h"
#include "netlink.h"

#define RUN_DIRECTORY "/run/testbed"
#define EXIT_FILE RUN_DIRECTORY "/command.exit"

#define READY_DIRECTORY "/run"
#define READY_FILE READY_DIRECTORY "/testbed.ready" /* of a guest */

enum { RESET_S = 20 };
enum { NOT_CONFIGURED = 1, BAD_ARGUMENTS = 2, CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

static uint64_t own; /* capabilities that commands do not get */

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "init: %s\n", line); /* one write, so that lines of others do not mix in */
}

static const char *error_name(int error)
{
    const char *name = strerrorname_np(error);
    return name ? name : "an unknown error";
}

/* --- sysctls -------------------------------------------------------------------------------------------------- */

/* NAME's path below /proc/sys, by the rule of sysctl(8): the first separator decides. After a dot, dots separate and a
 * slash stands for a dot; after a slash it is a path as it is, so that an interface's name may hold dots. */
static int sysctl_path(const char *name, size_t length, char *path, size_t size)
{
    static const char root[] = "/proc/sys/";
    if (length == 0 || sizeof root + length > size || name[0] == '/' || memmem(name, length, "..", 2))
        return -1;
    memcpy(path, root, sizeof root);
    char *next = path + sizeof root - 1;
    const char *separator = strpbrk(name, "./=");
    int dotted = separator && *separator == '.';
    for (size_t i = 0; i < length; i++) {
        char one = name[i];
        if (dotted && (one == '.' || one == '/'))
            one = one == '.' ? '/' : '.';
        *next++ = one;
    }
    *next = '\0';
    return 0;
}

/* TEXT in place with each run of white space made one blank, none at the ends: 4096<TAB>87380 is 4096 87380. */
static void normalise(char *text)
{
    char *out = text;
    for (const char *in = text; *in; in++) {
        if (!isspace((unsigned char)*in))
            *out++ = *in;
        else if (out > text && out[-1] != ' ')
            *out++ = ' ';
    }
    if (out > text && out[-1] == ' ')
        out--;
    *out = '\0';
}

static ssize_t whole_file(const char *path, int flags, char *buffer, size_t size)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t count = flags == O_WRONLY ? write(fd, buffer, size) : read(fd, buffer, size);
    int error = errno;
    close(fd);
    errno = error;
    return count;
}

/* ASSIGNMENT is NAME=VALUE: written, read back, the same. */
static int set_sysctl(const char *assignment)
{
    const int name_length = (int)strcspn(assignment, "=");
    char path[512], wanted[1024], found[1024];
    if (sysctl_path(assignment, (size_t)name_length, path, sizeof path) < 0) {
        say("sysctl %.*s: %s", name_length, assignment, error_name(EINVAL));
        return -1;
    }
    snprintf(wanted, sizeof wanted, "%s", assignment + name_length + 1);
    ssize_t count = -1;
    if (whole_file(path, O_WRONLY, wanted, strlen(wanted)) >= 0)
        count = whole_file(path, O_RDONLY, found, sizeof found - 1);
    if (count < 0) {
        say("sysctl %.*s: %s", name_length, assignment, error_name(errno));
        return -1;
    }
    found[count] = '\0';
    normalise(wanted);
    normalise(found);
    if (strcmp(wanted, found) != 0) {
        say("sysctl %.*s: wrote '%s', reads '%s'", name_length, assignment, wanted, found);
        return -1;
    }
    return 0;
}

/* --- who it is ---------------------------------------------------------------------------------------------------- */

static int add_variable(const char *assignment)
{
    char *kept = strdup(assignment);
    return kept && strchr(kept, '=') ? putenv(kept) : -1;
}

static int set_hostname(const char *name)
{
    FILE *file = fopen("/etc/hostname", "w");
    return sethostname(name, strlen(name)) < 0 || !file || fprintf(file, "%s\n", name) < 0 || fclose(file) != 0 ? -1 : 0;
}

static int set_clock(const char *seconds)
{
    struct timespec now = {0};
    long long whole = 0;
    int point = 0, end = 0;
    if (sscanf(seconds, "%lld.%n%9ld%n", &whole, &point, &now.tv_nsec, &end) != 2 || end - point != 9 || seconds[end]) {
        errno = EINVAL;
        return -1;
    }
    now.tv_sec = (time_t)whole;
    return clock_settime(CLOCK_REALTIME, &now);
}

/* Believed in full, and used at once: all clones of a snapshot have the same generator until here. */
static int seed_random(const char *hex)
{
    size_t size = strlen(hex) / 2;
    if (strspn(hex, "0123456789abcdef") != 2 * size || hex[2 * size]) {
        errno = EINVAL;
        return -1;
    }
    struct rand_pool_info *seed = calloc(1, sizeof *seed + size);
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC), failed = !seed || fd < 0;
    if (!failed) {
        unsigned char *bytes = (unsigned char *)seed->buf;
        for (size_t i = 0; i < size; i++)
            failed |= sscanf(hex + 2 * i, "%2hhx", bytes + i) != 1;
        seed->entropy_count = (int)(8 * size);
        seed->buf_size = (int)size;
        failed = failed || ioctl(fd, RNDADDENTROPY, seed) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0;
    }
    int error = errno;
    if (fd >= 0)
        close(fd);
    free(seed);
    errno = error;
    return failed ? -1 : 0;
}

static int write_hosts(const char *text)
{
    FILE *file = fopen("/etc/hosts", "w");
    return !file || fputs(text, file) < 0 || fclose(file) != 0 ? -1 : 0;
}

static const struct { const char *option; int (*set)(const char *value); } identity[] = {
    {"--environment", add_variable},
    {"--hostname", set_hostname},
    {"--clock", set_clock},
    {"--seed", seed_random},
    {"--hosts", write_hosts},
};

static int identify(const char *option, const char *value)
{
    for (size_t i = 0; i < sizeof identity / sizeof *identity; i++)
        if (strcmp(option, identity[i].option) == 0 && identity[i].set(value) < 0) {
            say("%s: %s", option + 2, error_name(errno));
            return -1;
        }
    return 0;
}

static int has_one_value(const char *option)
{
    for (size_t i = 0; i < sizeof identity / sizeof *identity; i++)
        if (strcmp(option, identity[i].option) == 0)
            return 1;
    return 0;
}

/* --- links ---------------------------------------------------------------------------------------------------- */

/* Whether the sysctl ASSIGNMENT is about one device of --address: net.ipv4.conf.DEVICE.rp_filter=0. */
static int names_device(const char *assignment, int argc, char *argv[])
{
    for (int i = 1; i + 2 < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--address") != 0)
            continue;
        char dotted[64];
        for (const char *form = "./"; *form; form++) {
            snprintf(dotted, sizeof dotted, "%c%s%c", *form, argv[i + 1], *form);
            const char *found = strstr(assignment, dotted);
            if (found && found < assignment + strcspn(assignment, "="))
                return 1;
        }
    }
    return 0;
}

static int set_ipv6(const char *device, int allowed)
{
    char assignment[128];
    snprintf(assignment, sizeof assignment, "net/ipv6/conf/%s/disable_ipv6=%d", device, !allowed);
    return set_sysctl(assignment);
}

/* A network without IPv6 shall see none: no link-local addresses, and none of what the kernel sends to look for routers
 * and neighbours. The loopback device has it. A kernel without IPv6 is fine. */
static int only_ipv4_by_default(void)
{
    if (access("/proc/sys/net/ipv6", F_OK) < 0)
        return 0;
    return set_ipv6("default", 0) < 0 || set_ipv6("lo", 1) < 0 ? -1 : 0;
}

static int configure_link(const char *device, const char *mac, const char *mtu)
{
    if (set_ipv6(device, 0) < 0) /* it was there before there was a default */
        return -1;
    int error = set_link(device, mac, atoi(mtu));
    if (error)
        say("link %s %s %s: %s", device, mac, mtu, error_name(error));
    return error ? -1 : 0;
}

static int configure_address(const char *device, const char *cidr)
{
    int error = wait_for_device(device);
    if (!error && strchr(cidr, ':') && set_ipv6(device, 1) < 0)
        return -1;
    if (!error)
        error = set_address(device, cidr);
    if (error)
        say("address %s on %s: %s", cidr, device, error_name(error));
    return error ? -1 : 0;
}

static int configure_route(const char *destination, const char *via)
{
    int error = set_route(destination, via);
    if (error)
        say("route %s via %s: %s", destination, via, error_name(error));
    return error ? -1 : 0;
}

/* --- the command ---------------------------------------------------------------------------------------------- */

/* glibc keeps signals 32 and 33 to itself and signal() refuses them; whoever started us may have left one ignored. */
static void by_default(int signal_number)
{
    static const unsigned long nothing[8]; /* the kernel's struct sigaction, SIG_DFL, of any architecture */
    syscall(SYS_rt_sigaction, signal_number, nothing, NULL, 8UL);
}

/* In the child: a session of its own, nothing on standard input, signals as a program expects to find them. */
static _Noreturn void become(char *const command[])
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    if (nothing > STDERR_FILENO)
        close(nothing);
    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        by_default(signal_number);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (give_up(own) == 0)
        execvp(command[0], command);
    int error = errno;
    say("command %s: %s", command[0], error_name(error));
    _exit(error == ENOENT ? NOT_FOUND : CANNOT_EXECUTE);
}

static pid_t start(char *const command[])
{
    pid_t pid = fork();
    if (pid == 0)
        become(command);
    if (pid < 0)
        say("command %s: %s", command[0], error_name(errno));
    return pid;
}

/* Leave the exit code where others look for it; the rename makes it appear whole. */
static void note_end(int status)
{
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    FILE *file = fopen(EXIT_FILE ".new", "w");
    if (!file || fprintf(file, "%d\n", code) < 0 || fclose(file) != 0 || rename(EXIT_FILE ".new", EXIT_FILE) != 0)
        say("%s: %s", EXIT_FILE, error_name(errno));
    say("command ended with exit code %d", code);
}

static _Noreturn void wrong(const char *what)
{
    say("%s: unknown, or its value is missing or malformed", what);
    say("usage: init --from-input | --wait | [--own CAPABILITIES] [--environment NAME=VALUE]... [--hostname NAME] [--clock SECONDS] [--seed HEX] [--link DEVICE MAC MTU]... [--hosts TEXT] "
        "[--sysctl NAME=VALUE]... [--address DEVICE CIDR]... [--route DESTINATION VIA]... [-- COMMAND ARGUMENT...]");
    exit(BAD_ARGUMENTS);
}

/* Where the command begins in ARGV, or NULL; checks the form of everything before it. */
static char **parse(int argc, char *argv[], int *has_addresses, int *links)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--sysctl") == 0 && i + 1 < argc && strchr(argv[i + 1], '=')) {
            i += 1;
        } else if (has_one_value(argv[i]) && i + 1 < argc) {
            i += 1;
        } else if (strcmp(argv[i], "--own") == 0 && i + 1 < argc) {
            own = capability_set(argv[++i]);
        } else if (strcmp(argv[i], "--link") == 0 && i + 3 < argc) {
            *links += 1;
            i += 3;
        } else if (strcmp(argv[i], "--route") == 0 && i + 2 < argc) {
            i += 2;
        } else if (strcmp(argv[i], "--address") == 0 && i + 2 < argc) {
            *has_addresses = 1;
            i += 2;
        } else if (strcmp(argv[i], "--") == 0 && i + 1 < argc) {
            return argv + i + 1;
        } else {
            wrong(argv[i]);
        }
    }
    return NULL;
}

enum phase { IDENTITY, BEFORE_LINKS, ADDRESSES, DEVICE_SYSCTLS, ROUTES, PHASES };

/* Everything that the arguments (as parse() found them right) ask for in one phase: 0 or -1. */
static int configure(enum phase phase, int argc, char *argv[])
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        int failed = 0;
        if (strcmp(argv[i], "--sysctl") == 0) {
            char *assignment = argv[++i];
            if (phase == (names_device(assignment, argc, argv) ? DEVICE_SYSCTLS : BEFORE_LINKS))
                failed = set_sysctl(assignment);
        } else if (strcmp(argv[i], "--own") == 0) {
            i++;
        } else if (has_one_value(argv[i])) {
            if (phase == IDENTITY)
                failed = identify(argv[i], argv[i + 1]);
            i++;
        } else if (strcmp(argv[i], "--link") == 0) {
            if (phase == IDENTITY)
                failed = configure_link(argv[i + 1], argv[i + 2], argv[i + 3]);
            i += 3;
        } else {
            int is_route = strcmp(argv[i], "--route") == 0;
            char *first = argv[++i], *second = argv[++i];
            if (is_route && phase == ROUTES)
                failed = configure_route(first, second);
            else if (!is_route && phase == ADDRESSES)
                failed = configure_address(first, second);
        }
        if (failed)
            return -1;
    }
    return 0;
}

/* The arguments that are on standard input, after PROGRAM. */
static char **read_arguments(char *program, int *count)
{
    enum { MOST = 256 * 1024 };
    char *text = calloc(1, MOST + 1);
    size_t size = 0;
    for (ssize_t got = 1; text && got > 0 && size < MOST; size += got > 0 ? (size_t)got : 0)
        got = read(STDIN_FILENO, text + size, MOST - size);
    *count = 1;
    for (size_t i = 0; i < size; i++)
        *count += text[i] == '\0';
    char **arguments = calloc((size_t)*count + 1, sizeof *arguments);
    if (!text || !arguments || size == 0)
        wrong("--from-input");
    arguments[0] = program;
    for (int i = 1; i < *count; i++, text += strlen(text) + 1)
        arguments[i] = text;
    return arguments;
}

static _Noreturn void end(int signal_number)
{
    (void)signal_number;
    _exit(0); /* the kernel ends everything else in this PID namespace */
}

static int note_ready(void)
{
    int file = open(READY_FILE, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    return file < 0 ? -1 : close(file);
}

static int wait_until_ready(void)
{
    char event[4096];
    int changes = inotify_init1(IN_CLOEXEC); /* first, and then a look: it is seen by one or the other */
    if (changes < 0 || inotify_add_watch(changes, READY_DIRECTORY, IN_CREATE) < 0) {
        say("%s: %s", READY_DIRECTORY, error_name(errno));
        return NOT_CONFIGURED;
    }
    while (access(READY_FILE, F_OK) < 0)
        if (read(changes, event, sizeof event) < 0 && errno != EINTR)
            return NOT_CONFIGURED;
    return 0;
}

struct host { int argc; char **argv, **command; int has_addresses, links; };

/* WAITING says that the links are to be put in now. */
static int make_host(const struct host *host, void (*waiting)(void))
{
    if (host->has_addresses && only_ipv4_by_default() < 0)
        return -1;
    errno = name_devices(host->links);
    if (errno) {
        say("the devices of the links: %s", error_name(errno));
        return -1;
    }
    for (enum phase phase = IDENTITY; phase < PHASES; phase++) {
        if (phase == ADDRESSES && host->has_addresses && host->links == 0)
            waiting();
        if (configure(phase, host->argc, host->argv) < 0)
            return -1;
    }
    mkdir(RUN_DIRECTORY, 0755);
    unlink(EXIT_FILE); /* of an earlier life of this container */
    return 0;
}

static void say_waiting(void)
{
    say("waiting");
}

/* Ends the host when it cannot be done. */
static void freshen(void)
{
    const char *failed = fresh_network();
    if (!failed)
        failed = fresh_root();
    if (!failed)
        return;
    say("the host cannot have %s of its own: %s", failed, error_name(errno));
    exit(NOT_CONFIGURED);
}

static pid_t asker; /* of a reset */

static void tell_asker(int step)
{
    sigqueue(asker, SIGUSR1, (union sigval){.sival_int = step});
}

static void tell_waiting(void)
{
    tell_asker(RESET_WAITING);
}

static void too_late(int signal_number)
{
    (void)signal_number;
    static const char words[] = "init: the reset took too long: its links were not put in\n";
    (void)!write(STDERR_FILENO, words, sizeof words - 1);
    _exit(NOT_CONFIGURED);
}

/* Whoever asked is the only process that goes on. What cannot be made new ends the host, as what could not be made at first. */
static void reset(const struct host *host, pid_t by)
{
    asker = by;
    alarm(RESET_S);
    const char *failed = end_others(by);
    if (!failed)
        failed = fresh_ipc();
    if (failed) {
        say("the host cannot be reset: %s: %s", failed, error_name(errno));
        exit(NOT_CONFIGURED);
    }
    freshen();
    if (make_host(host, tell_waiting) < 0)
        exit(NOT_CONFIGURED);
    alarm(0);
    tell_asker(RESET_DONE);
}

int main(int argc, char *argv[])
{
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGUSR1);
    sigprocmask(SIG_BLOCK, &awaited, NULL); /* from here none is lost: they wait for sigwaitinfo */
    signal(SIGTERM, end);                   /* PID 1 is sent only those signals that it handles */
    signal(SIGINT, end);
    signal(SIGALRM, too_late);

    bool on_guest = false;
    if (argc == 2 && strcmp(argv[1], "--wait") == 0)
        return wait_until_ready();
    if (argc == 2 && strcmp(argv[1], "--from-input") == 0) {
        on_guest = true;
        argv = read_arguments(argv[0], &argc);
    }
    struct host host = {.argc = argc, .argv = argv};
    host.command = parse(argc, argv, &host.has_addresses, &host.links);
    if (own)
        freshen();
    if (make_host(&host, say_waiting) < 0)
        return NOT_CONFIGURED;
    say("ready");
    if (on_guest && note_ready() < 0)
        return NOT_CONFIGURED;
    pid_t main_pid = host.command ? start(host.command) : -1;

    for (;;) {
        siginfo_t arrived;
        if (sigwaitinfo(&awaited, &arrived) == SIGUSR1) {
            if (!own)
                continue;
            reset(&host, arrived.si_pid);
            main_pid = host.command ? start(host.command) : -1;
            continue;
        }
        int status;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) /* several deaths may be one SIGCHLD */
            if (pid == main_pid) {
                note_end(status);
                main_pid = -1; /* its number is free for others now */
            }
    }
}
