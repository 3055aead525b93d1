/* The runner's own conversation with the agent in the guest, before anybody else's: see agent/protocol.h. */

#ifndef TESTBED_VM_GUEST_AGENT_H
#define TESTBED_VM_GUEST_AGENT_H

#include <stdbool.h>
#include <stddef.h>

enum { OWN_SLOT = 0 }; /* of ids; those of clients are above, see sessions.h */

/* Greet the agent at the other end of STREAM: true when it answers within TIMEOUT_MS. Ends what it runs. */
bool greet_agent(int stream, int timeout_ms);

/* Whether an agent that was greeted before answers within TIMEOUT_MS. Harms nothing that it runs. */
bool agent_answers(int stream, int timeout_ms);

/* Make the strings of ENVIRONMENT (NAME=VALUE, ends with NULL) part of what commands on the guest get. */
void set_environment(int stream, char *const *environment);

/* Run a command to its end with the content of INPUT, a descriptor or -1, as its standard input: its exit code (128 + N
 * for signal N), or -1 when the guest is gone or cannot run it. */
int run_on_guest(int stream, char *const *argv, int input);

/* Start a command that goes on, its outputs written to the two files: 0 or -1. Its EXITED comes later, with the id STARTED_ID. */
enum { STARTED_ID = 1 };
int start_on_guest(int stream, char *const *argv, const char *output, const char *errors);

/* Give that command all of its input: 0 or -1. */
int tell_started(int stream, const char *bytes, size_t size);

#endif
