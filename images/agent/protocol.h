/* What the agent and its client say to each other, over any two byte streams; testbed/agent.py is the other side.
 *
 * A frame is SIZE (4 bytes: how many follow), KIND (1 byte), ID (4 bytes: of the command that it is about), BODY.
 * Numbers are in network byte order. The client chooses ids and does not use one twice.
 *
 *     client to agent                                  agent to client
 *     HELLO      MAGIC                                 HELLO    MAGIC VERSION(1), with the same id
 *     START      see below                             STARTED  PID(4)
 *                                                      FAILED   WHAT(1) ERRNO(4): no such command was started
 *     STDIN      bytes                                 STDOUT   bytes
 *     STDIN_END                                        STDERR   bytes
 *     CREDIT     STREAM(1) N(4)                        CREDIT   STREAM(1) N(4)
 *     SIGNAL     NUMBER(1), to the process group       END      STREAM(1): no more of it
 *     RESIZE     ROWS(2) COLUMNS(2), of its terminal   EXITED   BY_SIGNAL(1) VALUE(1)
 *     GOODBYE                                          GOODBYE, from an agent that stays
 *     ENVIRONMENT NAME=VALUE, each ends in NUL
 *     RESET      text                                  RESET    STEP(1), each with the id of the request
 *
 * START's body: FLAGS(4) MODE(4) ROWS(2) COLUMNS(2) ARGC(4) ENVC(4), then strings that each end in NUL: the working
 * directory, the user, the files to use as standard input, output and error ("" for a stream of the protocol; opened as
 * the agent's user), ARGC arguments, ENVC NAME=VALUE. A file written has MODE afterwards.
 *
 * A command with a TERMINAL of its own has it for every stream that is no file, and it controls the command's session.
 * STDIN is typed on it, STDIN_END types its end-of-file character, all that it shows is STDOUT, and STDERR ends at once.
 * ROWS and COLUMNS are its size, 0 where it is not known. It is hung up when the command is over.
 *
 * Credit: of each stream at most its window's bytes may be on their way; CREDIT allows N more, when N have been used.
 * So one command that writes or reads without end costs its window and stops nobody else.
 *
 * Several clients may share one way to an agent: a guest has only one. The bits of an id from SESSION_SHIFT on say
 * whose command it is; a client with a way of its own has 0 there. GOODBYE ends what the session in its id has, and an
 * agent that stays then says the same: until then the session's commands may still be heard of. GOODBYE with a reason
 * (text) comes unasked, when the session has said what none may, and wants GOODBYE. Any other agent leaves then.
 *
 * ENVIRONMENT is what all commands get from then on, beside the agent's own.
 *
 * RESET makes the host what it was when it came up: nothing runs on it but this agent, and its network namespace, file system
 * and sysctls are new. The text, if there is any, is its /etc/hosts then: other hosts may have come since. The end of its commands is not told. RESET_WAITING comes when the links are to be put in (a guest keeps
 * its own), RESET_DONE when it is done; where it cannot be done the host ends.
 *
 * HELLO ends whatever an earlier client had running, GOODBYE and the end of the input what this one has, except
 * commands that are detached. EXITED comes when the command is reaped and its process group killed; output that was
 * written before may still follow. A command is over for the client with EXITED and both ENDs. Frames about a command
 * that is over, or that nobody knows, are ignored: they crossed its end. */

#ifndef TESTBED_AGENT_PROTOCOL_H
#define TESTBED_AGENT_PROTOCOL_H

enum kind {
    HELLO = 1, START, STDIN, STDIN_END, SIGNAL, RESIZE, CREDIT, GOODBYE,
    STARTED, FAILED, STDOUT, STDERR, END, EXITED, ENVIRONMENT, RESET
};

/* What could not be had, in FAILED. */
enum what { NO_COMMAND = 1, NO_DIRECTORY, NO_USER, NO_STDIN, NO_STDOUT, NO_STDERR, NO_PROCESS, NO_TERMINAL };

enum reset_step { RESET_WAITING = 1, RESET_DONE };

enum {              /* START's flags; the first two exclude each other */
    DETACHED = 1,   /* outlives the client, has files or /dev/null for streams */
    TERMINAL = 2,   /* has a pseudo terminal */
    BRIEF = 4,      /* the client waits for its end alone: what there is to say of it before may come a little later */
};

#define MAGIC "TESTBED\n"

enum {
    VERSION = 2,
    SESSION_SHIFT = 20,
    START_NUMBERS = 20, /* bytes of START's body before its strings */
    MAGIC_SIZE = sizeof MAGIC - 1,
    HEADER_SIZE = 9,
    DATA_MOST = 64 * 1024,   /* bytes in a STDIN, STDOUT or STDERR frame */
    FRAME_MOST = 256 * 1024, /* bytes in any frame, without SIZE */
    INPUT_WINDOW = 256 * 1024, /* kept in the agent's memory */
    OUTPUT_WINDOW = 1024 * 1024, /* kept in the client's */
};

#endif
