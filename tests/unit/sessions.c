/* What the runner of a guest does once the guest answers, without QEMU: serves clients below the working directory.
 *
 *     sessions GUEST_FD [COMMAND ARGUMENT...]
 *
 * The command is the one of its own whose end ends it, as that of init on a guest does. Prints "serving", and at the end what
 * serve_clients() gave. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "guest_agent.h"
#include "sessions.h"

int main(int argc, char *argv[])
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int guest = argc > 1 ? atoi(argv[1]) : -1, signals = signalfd(-1, &set, SFD_CLOEXEC), listener = listen_for_clients();
    if (signals < 0 || listener < 0 || !greet_agent(guest, 20000))
        return 1;
    set_environment(guest, environ);
    if (argc > 2 && start_on_guest(guest, argv + 2, "/dev/null", "/dev/null") < 0)
        return 1;
    puts("serving");
    fflush(stdout);
    printf("%d\n", serve_clients(listener, guest, signals));
    return 0;
}
