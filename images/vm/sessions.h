/* Many clients on the one way to a guest's agent. */

#ifndef TESTBED_VM_SESSIONS_H
#define TESTBED_VM_SESSIONS_H

#ifndef AGENT_DIRECTORY
#define AGENT_DIRECTORY "/run/testbed"
#endif
#define AGENT_SOCKET AGENT_DIRECTORY "/agent"

/* A socket where clients connect, at AGENT_SOCKET: its descriptor, or -1 with errno. */
int listen_for_clients(void);

/* A client that has asked for a guest made new hears of it; the others are dropped, with all that was on its way. */
void begin_sessions_anew(void);
void tell_reset_done(void);

enum { GUEST_GONE = -1, SIGNALLED = -2, RESET_ASKED = -3 };

/* Serve clients of LISTENER, which each talk as if they had the agent at the other end of GUEST for themselves, until the
 * command STARTED_ID of our own ends: its exit code; or GUEST_GONE, or SIGNALLED when SIGNALS is readable, or RESET_ASKED. */
int serve_clients(int listener, int guest, int signals);

#endif
