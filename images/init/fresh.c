/* See fresh.h. */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fresh.h"
#include "netlink.h"

#define NEXT_DIRECTORY "/usr/lib/testbed/next"

/* --- processes ------------------------------------------------------------------------------------------------ */

/* Whether a process is more than a zombie, which waits for nothing but its parent. */
static bool lives(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    const char *name_end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return name_end && name_end[1] && name_end[2] != 'Z' && name_end[2] != 'X';
}

/* Kill one, if it lives, and wait until it has ended. Whether it lived. */
static bool end_process(pid_t pid)
{
    int process = lives(pid) ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (process < 0)
        return false;
    syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
    struct pollfd end = {.fd = process, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR)
        ;
    close(process);
    return true;
}

const char *end_others(pid_t spared)
{
    kill(-1, SIGSTOP); /* all at once: none can make another any more */
    /* But a fork(2) that had begun goes on, and its child, stopped as well, comes later than its place in the list. */
    for (bool found = true; found;) {
        DIR *processes = opendir("/proc");
        if (!processes)
            return "/proc";
        found = false;
        for (struct dirent *entry; (entry = readdir(processes));) {
            pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? (pid_t)atoi(entry->d_name) : 0;
            if (pid > 1 && pid != spared && end_process(pid))
                found = true;
        }
        closedir(processes);
    }
    if (spared)
        kill(spared, SIGCONT);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return NULL;
}

/* --- network -------------------------------------------------------------------------------------------------- */

const char *fresh_network(void)
{
    /* The engine lets everybody open low ports and send echo requests. */
    static const char *const kept[] = {"/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range"};
    enum { KEPT = sizeof kept / sizeof *kept };
    char values[KEPT][64];
    ssize_t sizes[KEPT];
    for (int i = 0; i < KEPT; i++) {
        int fd = open(kept[i], O_RDONLY | O_CLOEXEC);
        sizes[i] = fd < 0 ? -1 : read(fd, values[i], sizeof values[i]);
        if (fd >= 0)
            close(fd);
    }
    if (unshare(CLONE_NEWNET) < 0)
        return "a new network namespace";
    for (int i = 0; i < KEPT; i++) {
        int fd = sizes[i] > 0 ? open(kept[i], O_WRONLY | O_CLOEXEC) : -1;
        bool failed = sizes[i] > 0 && (fd < 0 || write(fd, values[i], (size_t)sizes[i]) < 0);
        if (fd >= 0)
            close(fd);
        if (failed)
            return kept[i];
    }
    errno = set_up("lo");
    return errno ? "the loopback device" : NULL;
}

/* --- file system ---------------------------------------------------------------------------------------------- */

struct mounted { int id, parent; char path[PATH_MAX]; };

/* What is mounted, parents before children: how many, or -1. LIST is for free(). */
static int read_mounts(struct mounted **list)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;
    int count = 0;
    *list = NULL;
    while (file && getline(&line, &size, file) > 0) {
        struct mounted one, *longer = realloc(*list, (size_t)(count + 1) * sizeof **list);
        if (!longer)
            break;
        *list = longer;
        if (sscanf(line, "%d %d %*s %*s %4095s", &one.id, &one.parent, one.path) == 3)
            (*list)[count++] = one;
    }
    free(line);
    if (file)
        fclose(file);
    return file ? count : -1;
}

static int id_of(const struct mounted *list, int count, const char *path)
{
    int id = -1;
    for (int i = 0; i < count; i++)
        if (strcmp(list[i].path, path) == 0)
            id = list[i].id; /* the last one is on top */
    return id;
}

/* What the engine mounted, below NEXT_DIRECTORY/root too: NULL, or what failed. */
static const char *bind_mounts(void)
{
    static char failed[PATH_MAX];
    struct mounted *list;
    const int count = read_mounts(&list), root = id_of(list, count, "/"), sys = id_of(list, count, "/sys");
    for (int i = 0; i < count && !*failed; i++) {
        const struct mounted *one = &list[i];
        char there[sizeof NEXT_DIRECTORY "/root" + PATH_MAX];
        if ((one->parent != root && one->parent != sys) || one->id == root || strcmp(one->path, NEXT_DIRECTORY) == 0)
            continue;
        snprintf(there, sizeof there, NEXT_DIRECTORY "/root%s", one->path);
        /* /sys shows the devices of the network namespace in which it was mounted. */
        if (one->id == sys ? mount("sysfs", there, "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0
                           : mount(one->path, there, NULL, MS_BIND | MS_REC, NULL) < 0)
            strcpy(failed, one->path);
    }
    int error = errno;
    free(list);
    errno = error;
    return count < 0 ? "/proc/self/mountinfo" : *failed ? failed : NULL;
}

static int make_directory(const char *path)
{
    return mkdir(path, 0755) < 0 && errno != EEXIST ? -1 : 0;
}

static int enter(int directory)
{
    return fchdir(directory) < 0 || chroot(".") < 0 ? -1 : 0;
}

const char *fresh_root(void)
{
    static int container = -1, current = -1; /* roots */
    const char *failed;
    char path[64];
    if (container < 0)
        container = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (enter(container) < 0)
        return "the container's root";
    if (current >= 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", current);
        if (umount2(path, MNT_DETACH) < 0 || close(current) < 0)
            return "the end of its root";
    }
    if (make_directory(NEXT_DIRECTORY) < 0 || mount("tmpfs", NEXT_DIRECTORY, "tmpfs", 0, "mode=0755") < 0 ||
        mkdir(NEXT_DIRECTORY "/upper", 0755) < 0 || mkdir(NEXT_DIRECTORY "/work", 0755) < 0 || mkdir(NEXT_DIRECTORY "/root", 0755) < 0)
        return "a file system in memory";
    if (mount("overlay", NEXT_DIRECTORY "/root", "overlay", 0,
              "lowerdir=/,upperdir=" NEXT_DIRECTORY "/upper,workdir=" NEXT_DIRECTORY "/work") < 0)
        return "an overlay file system";
    if ((failed = bind_mounts()))
        return failed;
    current = open(NEXT_DIRECTORY "/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (current < 0 || mount(NEXT_DIRECTORY "/root", "/", NULL, MS_MOVE, NULL) < 0 || umount2(NEXT_DIRECTORY, MNT_DETACH) < 0 ||
        enter(current) < 0)
        return "a root";
    return NULL;
}

/* --- IPC ------------------------------------------------------------------------------------------------------ */

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    if (where->level > 0)
        (kind == FTW_DP ? rmdir : unlink)(path);
    return 0;
}

const char *fresh_ipc(void)
{
    enum { FILES_OPEN = 8 };
    struct shm_info segments;
    struct msginfo queues;
    struct seminfo arrays;
    struct shmid_ds segment;
    struct msqid_ds queue;
    struct semid_ds array;
    for (int last = shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&segments), id, i = 0; i <= last; i++)
        if ((id = shmctl(i, SHM_STAT, &segment)) >= 0)
            shmctl(id, IPC_RMID, NULL);
    for (int last = msgctl(0, MSG_INFO, (struct msqid_ds *)(void *)&queues), id, i = 0; i <= last; i++)
        if ((id = msgctl(i, MSG_STAT, &queue)) >= 0)
            msgctl(id, IPC_RMID, NULL);
    for (int last = semctl(0, 0, SEM_INFO, &arrays), id, i = 0; i <= last; i++)
        if ((id = semctl(i, 0, SEM_STAT, &array)) >= 0)
            semctl(id, 0, IPC_RMID);
    static const char *const directories[] = {"/dev/shm", "/dev/mqueue"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if (nftw(directories[i], remove_one, FILES_OPEN, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
            return directories[i];
    return NULL;
}
