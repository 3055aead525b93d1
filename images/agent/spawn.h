/* Starting one command: its user, environment, streams and process group. */

#ifndef TESTBED_AGENT_SPAWN_H
#define TESTBED_AGENT_SPAWN_H

#include "terminal.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NOTHING "/dev/null"

struct order {
    bool detached, terminal;
    bool brief;              /* nobody hears of it before its end */
    struct size size;        /* of the terminal */
    mode_t mode;             /* of a file that is written */
    const char *directory;   /* "" for / */
    const char *user;        /* name, UID or UID:GID; "" for the agent's own */
    const char *files[3];    /* to be standard input, output and error; "" for a pipe, or the terminal */
    uint64_t own;            /* capabilities that are the agent's own, see own.h */
    int nothing;             /* NOTHING, open already: most commands have it as input, and in a guest a system call takes 0.1 ms */
    char **arguments;        /* ends in NULL */
    char **environment;      /* what is added to the agent's own; ends in NULL */
};

struct spawned {
    pid_t pid;  /* also the number of its process group and session */
    int ends[3]; /* the agent's ends of its pipes, or of its terminal to write and to read, not blocking; -1 where there is none */
    int slave;   /* the command's end of its terminal, for as long as its output is not to end; -1 without one */
};

/* 0; or an errno, with WHAT (enum what) telling what could not be had. */
int spawn(const struct order *order, struct spawned *spawned, int *what);

#endif
