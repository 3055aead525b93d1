#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

int open_terminal(struct size size, uid_t owner, int *output, int *input, int *slave)
{
    setfsuid(owner); /* whoever opens the master owns the slave */
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    int error = errno;
    setfsuid(geteuid());
    if (master < 0)
        return error;
    resize_terminal(master, size);
    int copy = fcntl(master, F_DUPFD_CLOEXEC, 0), peer = -1;
    /* Not by its name, which another devpts may be mounted over. */
    if (copy < 0 || ioctl(master, TIOCSPTLCK, &(int){0}) < 0 ||
        (peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
        error = errno;
        if (copy >= 0)
            close(copy);
        close(master);
        return error;
    }
    *output = master;
    *input = copy;
    *slave = peer;
    return 0;
}

void resize_terminal(int master, struct size size)
{
    ioctl(master, TIOCSWINSZ, &(struct winsize){.ws_row = size.rows, .ws_col = size.columns});
}

unsigned char end_of_file(int master)
{
    struct termios settings; /* the slave's: a master has none of its own */
    return tcgetattr(master, &settings) == 0 ? settings.c_cc[VEOF] : CEOF;
}
