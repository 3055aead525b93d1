/* PID 1 of a QEMU guest: puts its file system together, starts the agent, reaps what dies.
 *
 * It is /init of the initramfs. It loads the modules in /modules in the order of their names, mounts the read-only disk
 * "root" (the host image's file system) below an overlay in memory and the disk "modules" (the kernel's), makes that the
 * root, and runs the agent on the virtio-serial port called "agent". What the host is to be is told later, by a
 * command of the agent: up to here a guest knows nothing of itself, so that a snapshot of it serves every host.
 *
 * Nothing here draws a random number or sends a packet: what is drawn before a snapshot is the same in all its clones. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGENT "/usr/lib/testbed/agent"
#define MODULES "/modules"
#define PORTS "/sys/class/virtio-ports"

enum { DEVICE_MS = 10000, STEP_MS = 5 };

/* The kernel panics when PID 1 ends, and the guest is gone: a guest that is not whole must not answer. */
static _Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void die(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "guest: %s\n", line);
    exit(1);
}

static void mount_on(const char *source, const char *directory, const char *type, unsigned long flags, const char *options)
{
    mkdir(directory, 0755);
    if (mount(source, directory, type, flags, options) < 0)
        die("mount %s on %s: %s", source, directory, strerror(errno));
}

/* Everything in MODULES, by name. What the kernel has built in is not among it. */
static void load_modules(void)
{
    struct dirent **found;
    int count = scandir(MODULES, &found, NULL, alphasort);
    if (count < 0)
        die("%s: %s", MODULES, strerror(errno));
    for (int i = 0; i < count; i++) {
        char path[512];
        if (found[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, MODULES "/%s", found[i]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
            die("module %s: %s", found[i]->d_name, strerror(errno));
        close(fd);
        unlink(path); /* the initramfs is memory */
    }
}

/* Devices appear a little after their driver. */
static void wait_a_step(int *waited, const char *what)
{
    if (*waited >= DEVICE_MS)
        die("there is no %s", what);
    *waited += STEP_MS;
    poll(NULL, 0, STEP_MS);
}

/* One line of a small file, without its end. */
static bool read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");
    bool got = file && fgets(line, (int)size, file);
    if (file)
        fclose(file);
    line[got ? strcspn(line, "\n") : 0] = '\0';
    return got;
}

/* The entry of DIRECTORY whose file ATTRIBUTE says VALUE, once there is one. The kernel's own names (vda, vport1p1) follow the
 * order in which devices were found, which is not always the same. */
static void find(const char *directory, const char *attribute, const char *value, char *name, size_t size)
{
    for (int waited = 0;; wait_a_step(&waited, value)) {
        DIR *entries = opendir(directory);
        for (struct dirent *one; entries && (one = readdir(entries));) {
            char path[600], line[64];
            snprintf(path, sizeof path, "%s/%s/%s", directory, one->d_name, attribute);
            if (one->d_name[0] != '.' && read_line(path, line, sizeof line) && strcmp(line, value) == 0) {
                snprintf(name, size, "%s", one->d_name);
                closedir(entries);
                return;
            }
        }
        if (entries)
            closedir(entries);
    }
}

static void mount_disk(const char *serial, const char *directory)
{
    char name[256], device[300];
    find("/sys/block", "serial", serial, name, sizeof name);
    snprintf(device, sizeof device, "/dev/%s", name);
    mount_on(device, directory, "squashfs", MS_RDONLY, NULL);
}

static void move_to(const char *directory, const char *root)
{
    char target[64];
    snprintf(target, sizeof target, "%s%s", root, directory);
    mkdir(target, 0755);
    if (mount(directory, target, NULL, MS_MOVE, NULL) < 0)
        die("moving %s: %s", directory, strerror(errno));
}

/* The file systems in memory are full before memory is: their pages belong to no process, so the kernel would kill them all for them. */
static void put_root_together(void)
{
    mount_on("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_on("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    load_modules();
    mount_disk("root", "/disk");
    mount_on("overlay", "/memory", "tmpfs", 0, "mode=0755,size=30%");
    mkdir("/memory/upper", 0755);
    mkdir("/memory/work", 0755);
    mount_on("overlay", "/root", "overlay", 0, "lowerdir=/disk,upperdir=/memory/upper,workdir=/memory/work");
    mount_disk("modules", "/root/usr/lib/modules");
    move_to("/dev", "/root");
    move_to("/proc", "/root");
    move_to("/sys", "/root");
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        die("changing the root: %s", strerror(errno));
    mount_on("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5");
    mount_on("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=20%");
    mount_on("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=10%");
    mkdir("/run/testbed", 0755);
    /* In the overlay's upper layer already when a host is made of this guest, which then need not copy them up. */
    static const char *const written[] = {"/etc/hosts", "/etc/hostname"};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        close(open(written[i], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    symlink("/proc/self/fd", "/dev/fd");
    symlink("/proc/self/fd/0", "/dev/stdin");
    symlink("/proc/self/fd/1", "/dev/stdout");
    symlink("/proc/self/fd/2", "/dev/stderr");
}

static void write_if_there(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, value, strlen(value)) < 0)
        die("%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Without memory the kernel drops the pages of the programs that run and reads them again, for minutes, before it kills
 * anything. So: what was used in the last second is not dropped (the kernel's Documentation/admin-guide/mm/multigen_lru.rst). */
static void kill_rather_than_thrash(void)
{
    write_if_there("/sys/kernel/mm/lru_gen/enabled", "y");
    write_if_there("/sys/kernel/mm/lru_gen/min_ttl_ms", "1000");
}

static void bring_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        die("lo: %s", strerror(errno));
    close(fd);
}

/* The virtio-serial ports get links by their names, as udev would make them. */
static void name_ports(void)
{
    static const char *const ports[] = {"agent", "stdout", "stderr"};
    mkdir("/dev/virtio-ports", 0755);
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        char name[256], link[64], target[300];
        find("/sys/class/virtio-ports", "name", ports[i], name, sizeof name);
        snprintf(link, sizeof link, "/dev/virtio-ports/%s", ports[i]);
        snprintf(target, sizeof target, "../%s", name);
        symlink(target, link);
    }
}

static pid_t start_agent(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", 1);
        setenv("HOME", "/root", 1);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid();
        execl(AGENT, AGENT, "--device", "/dev/virtio-ports/agent", NULL);
        die("%s: %s", AGENT, strerror(errno));
    }
    if (pid < 0)
        die("fork: %s", strerror(errno));
    return pid;
}

int main(void)
{
    mount_on("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; console >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(console, fd);
    put_root_together();
    kill_rather_than_thrash();
    bring_loopback_up();
    name_ports();
    sigset_t deaths;
    sigemptyset(&deaths);
    sigaddset(&deaths, SIGCHLD);
    sigprocmask(SIG_BLOCK, &deaths, NULL);
    const pid_t agent = start_agent();
    for (;;) {
        sigwaitinfo(&deaths, NULL);
        for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;)
            if (pid == agent)
                die("the agent has ended"); /* QEMU does not tell: whoever talks to it would wait for ever */
    }
}
