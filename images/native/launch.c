/* Starts the machine's own program of the name that this one is called by, with own-argv.so loaded into it.
 *
 * usage: ps ..., through a link of that name. Exit code 127 when the program cannot be started, else the program's.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define HERE "/usr/lib/testbed/native"

int main(int argc, char **argv)
{
    (void)argc;
    /* The path that was executed; argv[0] is whatever the caller likes. */
    const char *called = (const char *)getauxval(AT_EXECFN);
    const char *slash = strrchr(called, '/');
    char program[PATH_MAX];
    snprintf(program, sizeof program, HERE "/bin/%s", slash ? slash + 1 : called);
    if (setenv("LD_PRELOAD", HERE "/own-argv.so", 1) == 0)
        execv(program, argv);
    fprintf(stderr, "%s: ", program);
    perror("cannot be started");
    return 127;
}
