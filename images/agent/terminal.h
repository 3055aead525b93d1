/* A pseudo terminal: the agent has its master, the command its slave. */

#ifndef TESTBED_AGENT_TERMINAL_H
#define TESTBED_AGENT_TERMINAL_H

#include <stdint.h>
#include <sys/types.h>

struct size { /* in characters; 0 where it is not known */
    uint16_t rows, columns;
};

/* Both ends of a new one whose slave belongs to OWNER: the master for us to read, not blocking, and a copy of it to
 * write. 0; or an errno, and nothing is open. */
int open_terminal(struct size size, uid_t owner, int *output, int *input, int *slave);

void resize_terminal(int master, struct size size);

/* What is typed on it to say that nothing more comes: Ctrl-D, unless the command chose another; 0 for nothing at all. */
unsigned char end_of_file(int master);

#endif
