/* Starting one command: its user, environment, streams and process group. */

#ifndef TESTBED_AGENT_SPAWN_H
#define TESTBED_AGENT_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

struct order {
    bool detached;
    mode_t mode;             /* of a file that is written */
    const char *directory;   /* "" for / */
    const char *user;        /* name, UID or UID:GID; "" for the agent's own */
    const char *files[3];    /* to be standard input, output and error; "" for a pipe */
    char **arguments;        /* ends in NULL */
    char **environment;      /* what is added to the agent's own; ends in NULL */
};

struct spawned {
    pid_t pid;  /* also the number of its process group and session */
    int ends[3]; /* the agent's ends of its pipes, not blocking; -1 where it has a file */
};

/* 0; or an errno, with WHAT (enum what) telling what could not be had. */
int spawn(const struct order *order, struct spawned *spawned, int *what);

#endif
