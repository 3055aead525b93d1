/* What ps and its kin see of an emulated process: the words of its program, without those of the emulator.
 *
 * The kernel starts a program of another architecture as an argument of the emulator (binfmt_misc), so /proc/PID/cmdline
 * begins with the emulator's path and the program's; only then come the words that the program itself has. This
 * library is loaded into those of the machine's own tools that show such words (launch.c). When one of them opens a cmdline, it
 * reads from the program's first word on. Everything else it reads is the kernel's.
 */
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST "cmdline"
#define KEEPS_ARGV0 1 /* AT_FLAGS_PRESERVE_ARGV0 of include/uapi/linux/binfmts.h, since Linux 5.12 */

/* Loaded for this program alone, not for what it starts. */
__attribute__((constructor)) static void only_here(void)
{
    unsetenv("LD_PRELOAD");
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* Under which name binfmt_misc calls QEMU: Debian's is /usr/libexec/qemu-binfmt/s390x-binfmt-P, others use its own. */
static bool is_emulator(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return strncmp(name, "qemu-s390x", strlen("qemu-s390x")) == 0 || strcmp(name, "s390x-binfmt-P") == 0;
}

/* Whether the emulator was given the program's first word besides its path (flag P of binfmt_misc). The kernel tells it in
 * the auxiliary vector; who may not read that has to go by Debian's name. */
static bool keeps_argv0(const char *list, const char *emulator)
{
    char path[PATH_MAX];
    size_t folder = strlen(list) - strlen(LIST);
    if (folder + sizeof "auxv" > sizeof path)
        return false;
    memcpy(path, list, folder);
    memcpy(path + folder, "auxv", sizeof "auxv");
    int file = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    ElfW(auxv_t) entry;
    while (file >= 0 && read(file, &entry, sizeof entry) == (ssize_t)sizeof entry) {
        if (entry.a_type == AT_FLAGS) {
            close(file);
            return entry.a_un.a_val & KEEPS_ARGV0;
        }
    }
    if (file >= 0)
        close(file);
    return ends_with(emulator, "-binfmt-P");
}

/* How many bytes of a cmdline come before the program's own words. */
static off_t foreign_words(int file, const char *list)
{
    char words[2 * PATH_MAX + 2];
    ssize_t got = pread(file, words, sizeof words - 1, 0);
    if (got <= 0)
        return 0;
    words[got] = '\0';
    if (!is_emulator(words))
        return 0;
    size_t own = strlen(words) + 1;
    if (keeps_argv0(list, words) && own < (size_t)got)
        own += strlen(words + own) + 1;
    return own < (size_t)got ? (off_t)own : 0;
}

/* open(2) as these programs call it, for every file that they read. */
int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int file = openat(AT_FDCWD, path, flags, mode);
    if (file >= 0 && strncmp(path, "/proc/", strlen("/proc/")) == 0 && ends_with(path, "/" LIST))
        lseek(file, foreign_words(file, path), SEEK_SET);
    return file;
}

/* The same, as netstat calls it: where a long has 64 bits, files of any size are open's too. */
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
