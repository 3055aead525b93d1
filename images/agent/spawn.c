#include "spawn.h"
#include "own.h"
#include "protocol.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { GROUPS_MOST = 64, NAME_MOST = 256 };

struct identity {
    bool change;
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MOST];
    int group_count;
    char name[NAME_MOST], home[PATH_MAX];
};

/* --- users ---------------------------------------------------------------------------------------------------- */

/* /etc/passwd and /etc/group are read by hand: in a static program getpwnam would load libraries of the image, which
 * may be of another architecture. */

/* TEXT cut at its colons into FIELDS, as many as there are; how many there were. */
static int cut(char *text, char *fields[], int most)
{
    int count = 0;
    text[strcspn(text, "\n")] = '\0';
    while (text && count < most)
        fields[count++] = strsep(&text, ":");
    return count;
}

static bool number(const char *text, unsigned *value)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long found = strtoul(text, &end, 10);
    *value = (unsigned)found;
    return *end == '\0' && errno == 0 && found < UINT_MAX; /* -1 means "leave it" to the kernel */
}

/* The line of /etc/passwd with this name, or (name NULL) this uid, into WHO. */
static bool find_user(const char *name, struct identity *who)
{
    FILE *file = fopen("/etc/passwd", "re");
    char *line = NULL, *field[7];
    size_t size = 0;
    bool found = false;
    while (file && !found && getline(&line, &size, file) > 0) {
        unsigned uid, gid;
        if (cut(line, field, 7) < 6 || !number(field[2], &uid) || !number(field[3], &gid))
            continue;
        found = name ? strcmp(name, field[0]) == 0 : uid == who->uid;
        if (found) {
            who->uid = uid;
            who->gid = gid;
            snprintf(who->name, sizeof who->name, "%s", field[0]);
            snprintf(who->home, sizeof who->home, "%s", field[5]);
        }
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* The groups that name WHO as a member, after its own. */
static void find_groups(struct identity *who)
{
    who->groups[0] = who->gid;
    who->group_count = 1;
    FILE *file = fopen("/etc/group", "re");
    char *line = NULL, *field[4];
    size_t size = 0;
    while (file && *who->name && who->group_count < GROUPS_MOST && getline(&line, &size, file) > 0) {
        unsigned gid;
        if (cut(line, field, 4) < 4 || !number(field[2], &gid))
            continue;
        for (char *member; (member = strsep(&field[3], ","));)
            if (strcmp(member, who->name) == 0 && gid != who->gid && who->group_count < GROUPS_MOST)
                who->groups[who->group_count++] = gid;
    }
    free(line);
    if (file)
        fclose(file);
}

/* TEXT is a name, UID or UID:GID. 0, or EINVAL when there is no such user. */
static int identify(const char *text, struct identity *who)
{
    *who = (struct identity){.change = *text != '\0'};
    if (!who->change)
        return 0;
    char copy[NAME_MOST], *group = copy;
    snprintf(copy, sizeof copy, "%s", text);
    const char *user = strsep(&group, ":");
    unsigned uid, gid;
    if (number(user, &uid)) {
        who->uid = who->gid = uid; /* when /etc/passwd does not know better */
        strcpy(who->home, "/");
        find_user(NULL, who);
    } else if (group || !find_user(user, who)) {
        return EINVAL;
    }
    if (group) {
        if (!number(group, &gid))
            return EINVAL;
        who->gid = gid;
    }
    find_groups(who);
    return 0;
}

/* --- environment ---------------------------------------------------------------------------------------------- */

static size_t length(char *const *list)
{
    size_t count = 0;
    while (list && list[count])
        count++;
    return count;
}

static bool same_name(const char *one, const char *other)
{
    size_t size = strcspn(one, "=");
    return size == strcspn(other, "=") && memcmp(one, other, size) == 0;
}

static void assign(char **environment, char *entry)
{
    while (*environment && !same_name(*environment, entry))
        environment++;
    *environment = entry;
}

/* Defaults, then what the agent was given, then who the user is, then what the order adds. For free(). */
static char **environment_of(char *const *added, char *const user[3])
{
    static char path[] = "PATH=" DEFAULT_PATH, home[] = "HOME=/root", language[] = "LANG=C.UTF-8";
    char **all = calloc(length(environ) + length(added) + 7, sizeof *all);
    if (!all)
        return NULL;
    assign(all, path);
    assign(all, home);
    assign(all, language);
    for (char *const *entry = environ; entry && *entry; entry++)
        assign(all, *entry);
    for (char *const *entry = user; *entry; entry++)
        assign(all, *entry);
    for (char *const *entry = added; *entry; entry++)
        assign(all, *entry);
    return all;
}

static const char *value_of(char *const *environment, const char *name)
{
    for (; *environment; environment++)
        if (same_name(*environment, name))
            return strchr(*environment, '=') + 1;
    return NULL;
}

/* --- the child ------------------------------------------------------------------------------------------------ */

/* All that the child needs, made ready before it exists: between vfork and execve it shares our memory, so it only
 * makes system calls, and what it stores here the parent sees. */
struct plan {
    const struct order *order;
    const struct identity *who;
    char *const *environment;
    const char *path;
    int streams[3];
    int slave; /* -1 without a terminal */
    volatile int failed_what, failed_errno; /* volatile: the compiler sees that who writes them never returns */
};

static _Noreturn void fail(struct plan *plan, int what)
{
    plan->failed_errno = errno;
    plan->failed_what = what;
    _exit(127);
}

/* A file as stream NUMBER. Not blocking while it is opened: our parent waits for us, and a FIFO may have nobody at
 * its other end. */
static void use_file(struct plan *plan, int number)
{
    const char *path = plan->order->files[number];
    const int what = NO_STDIN + number;
    if (strcmp(path, NOTHING) == 0) {
        if (dup2(plan->order->nothing, number) < 0)
            fail(plan, what);
        return;
    }
    int flags = number == STDIN_FILENO ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC;
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY, 0600);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        fail(plan, what);
    if (S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        fail(plan, what);
    }
    if (number != STDIN_FILENO && S_ISREG(status.st_mode) && (status.st_mode & 07777) != plan->order->mode &&
        fchmod(fd, plan->order->mode) < 0)
        fail(plan, what);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0 || dup2(fd, number) < 0)
        fail(plan, what);
    if (fd != number)
        close(fd);
}

/* As execvpe, but by the PATH that the command gets, and a file that is no program is an error, not a shell script. */
static void execute(struct plan *plan)
{
    char *const *arguments = plan->order->arguments;
    const char *name = arguments[0];
    if (strchr(name, '/') || !*name) {
        execve(name, arguments, plan->environment);
        return;
    }
    int error = ENOENT;
    for (const char *path = plan->path, *next; path; path = next) {
        char file[PATH_MAX];
        size_t size = strcspn(path, ":");
        next = path[size] ? path + size + 1 : NULL;
        if (size + strlen(name) + 2 > sizeof file)
            continue;
        memcpy(file, path, size);
        file[size] = '/';
        strcpy(file + size + (size > 0), name); /* an empty part of PATH is the working directory */
        execve(file, arguments, plan->environment);
        if (errno == EACCES)
            error = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return;
    }
    errno = error;
}

static _Noreturn void become(struct plan *plan)
{
    const struct order *order = plan->order;
    const struct identity *who = plan->who;
    sigset_t none;

    setsid();
    if (give_up(order->own) < 0)
        fail(plan, NO_PROCESS);
    if (plan->slave >= 0 && ioctl(plan->slave, TIOCSCTTY, 0) < 0)
        fail(plan, NO_TERMINAL);
    for (int number = 0; number < 3; number++) {
        if (*order->files[number])
            use_file(plan, number); /* as the agent's user: whoever orders a command may name files for it */
        else if (dup2(plan->slave >= 0 ? plan->slave : plan->streams[number], number) < 0)
            fail(plan, NO_STDIN + number);
    }
    if (who->change &&
        (syscall(SYS_setgroups, who->group_count, who->groups) < 0 || syscall(SYS_setresgid, who->gid, who->gid, who->gid) < 0 ||
         syscall(SYS_setresuid, who->uid, who->uid, who->uid) < 0))
        fail(plan, NO_USER);
    if (*order->directory && chdir(order->directory) < 0) /* the agent's own is / */
        fail(plan, NO_DIRECTORY);
    if (!order->detached)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the agent itself be killed */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* all dispositions are the default: the agent has no handler */
    execute(plan);
    fail(plan, NO_COMMAND);
}

/* A function of its own, so that no local variable of the caller is one that vfork may spoil. */
static pid_t __attribute__((noinline)) launch(struct plan *plan)
{
    pid_t pid = vfork();
    if (pid == 0)
        become(plan);
    return pid;
}

/* --- the parent ----------------------------------------------------------------------------------------------- */

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

static int pipes(const struct order *order, int ours[3], int theirs[3])
{
    for (int number = 0; number < 3; number++) {
        int ends[2];
        if (*order->files[number])
            continue;
        if (pipe2(ends, O_CLOEXEC) < 0)
            return errno;
        int mine = number == STDIN_FILENO; /* it reads from 0 and we write to it */
        ours[number] = ends[mine];
        theirs[number] = ends[!mine];
        if (fcntl(ours[number], F_SETFL, O_NONBLOCK) < 0)
            return errno;
    }
    return 0;
}

int spawn(const struct order *order, struct spawned *spawned, int *what)
{
    int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1}, slave = -1;
    static struct identity who; /* large, and never two at once */
    char home[PATH_MAX + 8], user[NAME_MOST + 8], login[NAME_MOST + 8];

    *what = NO_USER;
    int error = identify(order->user, &who);
    if (error)
        return error;
    snprintf(home, sizeof home, "HOME=%s", who.home);
    snprintf(user, sizeof user, "USER=%s", who.name);
    snprintf(login, sizeof login, "LOGNAME=%s", who.name);
    char *const of_user[4] = {who.change ? home : NULL, *who.name ? user : NULL, login, NULL};

    char **environment = environment_of(order->environment, of_user);
    *what = order->terminal ? NO_TERMINAL : NO_PROCESS;
    if (!environment)
        error = ENOMEM;
    else if (order->terminal)
        error = open_terminal(order->size, who.change ? who.uid : geteuid(), &ours[1], &ours[0], &slave);
    else
        error = pipes(order, ours, theirs);
    if (!error) {
        *what = NO_PROCESS;
        const char *path = value_of(environment, "PATH");
        struct plan plan = {
            .order = order,
            .who = &who,
            .environment = environment,
            .path = path ? path : DEFAULT_PATH,
            .streams = {theirs[0], theirs[1], theirs[2]},
            .slave = slave,
        };
        spawned->pid = launch(&plan);
        if (spawned->pid < 0) {
            error = errno;
        } else if (plan.failed_errno) {
            error = plan.failed_errno;
            *what = plan.failed_what;
            waitpid(spawned->pid, NULL, 0); /* it has left already */
        }
    }
    for (int number = 0; number < 3; number++) {
        close_if_open(theirs[number]);
        if (error)
            close_if_open(ours[number]);
        spawned->ends[number] = error ? -1 : ours[number];
    }
    if (error)
        close_if_open(slave);
    spawned->slave = error ? -1 : slave;
    free(environment);
    return error;
}
