/* PID 1 of every container host: configures the host's network stack, starts its command, reaps what dies.
 *
 *     init [--sysctl NAME=VALUE]... [--route DESTINATION VIA]... [-- COMMAND ARGUMENT...]
 *
 * In this order: each sysctl is written, read back and compared; each route is added, or replaces the one there is;
 * "init: ready" goes to standard error; the command, if any, starts in a session of its own. When it ends, its exit code
 * (128 + N for signal N) goes to /run/testbed/command.exit and the host stays up. SIGTERM and SIGINT end the host.
 *
 * A sysctl or route that cannot be set ends init with exit code 1 and one line that says which, and the errno's name:
 * a host that is not what its file says must not come up.
 *
 * It is linked statically for the machine's own architecture and is PID 1 of emulated hosts too, so what it asks of the
 * kernel (netlink!) is not translated by the emulator. */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUN_DIRECTORY "/run/testbed"
#define EXIT_FILE RUN_DIRECTORY "/command.exit"

enum { NOT_CONFIGURED = 1, BAD_ARGUMENTS = 2, CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

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

/* --- routes --------------------------------------------------------------------------------------------------- */

struct route {
    int family;
    unsigned char prefix_length;
    unsigned char destination[16], via[16];
};

static size_t address_size(int family)
{
    return family == AF_INET ? 4 : 16;
}

/* The texts DESTINATION (ADDRESS/LENGTH or "default") and VIA (an address) as a route: 0, or -1 when they are none. */
static int parse_route(const char *destination, const char *via, struct route *route)
{
    *route = (struct route){.family = strchr(via, ':') ? AF_INET6 : AF_INET};
    if (inet_pton(route->family, via, route->via) != 1)
        return -1;
    if (strcmp(destination, "default") == 0)
        return 0;

    char address[INET6_ADDRSTRLEN], *end;
    const char *slash = strchr(destination, '/');
    if (!slash || !isdigit((unsigned char)slash[1]) || (size_t)(slash - destination) >= sizeof address)
        return -1;
    memcpy(address, destination, (size_t)(slash - destination));
    address[slash - destination] = '\0';
    unsigned long length = strtoul(slash + 1, &end, 10);
    if (*end || length > 8 * address_size(route->family))
        return -1;
    route->prefix_length = (unsigned char)length;
    return inet_pton(route->family, address, route->destination) == 1 ? 0 : -1;
}

struct request {
    struct nlmsghdr header;
    struct rtmsg route;
    char attributes[2 * RTA_SPACE(16)];
};

static void add_attribute(struct request *request, unsigned short type, const void *value, size_t size)
{
    struct rtattr *attribute = (struct rtattr *)(void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (unsigned)RTA_SPACE(size);
}

/* rtnetlink(7): create the route, or put it in the place of the one to the same destination. 0, or an errno. */
static int ask_for(const struct route *route)
{
    const size_t size = address_size(route->family);
    struct request request = {
        .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
                   .nlmsg_type = RTM_NEWROUTE,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE},
        .route = {.rtm_family = (unsigned char)route->family,
                  .rtm_dst_len = route->prefix_length,
                  .rtm_table = RT_TABLE_MAIN,
                  .rtm_protocol = RTPROT_BOOT,
                  .rtm_scope = RT_SCOPE_UNIVERSE,
                  .rtm_type = RTN_UNICAST},
    };
    if (route->prefix_length > 0)
        add_attribute(&request, RTA_DST, route->destination, size);
    add_attribute(&request, RTA_GATEWAY, route->via, size);

    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char request_again[sizeof request + 256];
    } answer = {0};
    int error = 0;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return errno;
    if (send(fd, &request, request.header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0)
        error = errno;
    else if (answer.header.nlmsg_type == NLMSG_ERROR)
        error = -answer.error.error;
    close(fd);
    return error;
}

static int set_route(const char *destination, const char *via)
{
    struct route route;
    int error = parse_route(destination, via, &route) < 0 ? EINVAL : ask_for(&route);
    if (error)
        say("route %s via %s: %s", destination, via, error_name(error));
    return error ? -1 : 0;
}

/* --- the command ---------------------------------------------------------------------------------------------- */

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
    for (int signal_number = 1; signal_number < SIGRTMAX; signal_number++)
        signal(signal_number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
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
    say("%s", what);
    say("usage: init [--sysctl NAME=VALUE]... [--route DESTINATION VIA]... [-- COMMAND ARGUMENT...]");
    exit(BAD_ARGUMENTS);
}

int main(int argc, char *argv[])
{
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGINT);
    sigprocmask(SIG_BLOCK, &awaited, NULL); /* from here none is lost: they wait for sigwaitinfo */

    char **command = NULL;
    for (int i = 1; i < argc && !command; i++) {
        if (strcmp(argv[i], "--sysctl") == 0 && i + 1 < argc && strchr(argv[i + 1], '=')) {
            if (set_sysctl(argv[++i]) < 0)
                return NOT_CONFIGURED;
        } else if (strcmp(argv[i], "--route") == 0 && i + 2 < argc) {
            if (set_route(argv[i + 1], argv[i + 2]) < 0)
                return NOT_CONFIGURED;
            i += 2;
        } else if (strcmp(argv[i], "--") == 0 && i + 1 < argc) {
            command = argv + i + 1;
        } else {
            wrong(argv[i]);
        }
    }

    mkdir(RUN_DIRECTORY, 0755);
    unlink(EXIT_FILE); /* of an earlier life of this container */
    say("ready");
    pid_t main_pid = command ? start(command) : -1;

    for (;;) {
        int arrived = sigwaitinfo(&awaited, NULL);
        if (arrived == SIGTERM || arrived == SIGINT)
            return 0; /* the kernel ends everything else in this PID namespace */
        int status;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) /* several deaths may be one SIGCHLD */
            if (pid == main_pid)
                note_end(status);
    }
}
