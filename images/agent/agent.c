/* Runs commands on a host for a client at the other end of two byte streams: protocol.h says how they talk.
 *
 *     agent [--own CAPABILITIES]  standard input and output (under docker exec -i); CAPABILITIES: see own.h
 *     agent --fds IN OUT          two descriptors that it was given
 *     agent --device PATH         a device to read and write (a virtio-serial port); stays after GOODBYE
 *
 * One thread, one poll(2), any number of commands. Nothing here waits for a command or for the client: what cannot be
 * written stays in a bounded buffer, and what has no room there is not read. It is linked statically for the machine's
 * own processor, also where the rest of the host is emulated, and it uses no network.
 *
 * A command is its process group. When its first process has ended, the rest of the group has GRACE_MS to finish
 * writing, if it still holds the command's output, and is then killed; what left the group (setsid, daemons) stays.
 * What a shell on a terminal runs, it puts in groups of their own: with the shell and the terminal the one in the
 * foreground gets the kernel's SIGHUP, those in the background stay. */

#include "clock.h"
#include "frame.h"
#include "own.h"
#include "spawn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    GRACE_MS = 250,
    WAITING_MOST = INPUT_WINDOW + 1, /* and a terminal's end-of-file character */
    LITTLE = 4 * 1024, /* bytes on their way to the client that may wait HOLD_MS for more */
    HOLD_MS = 20,
    QUEUE_HIGH = 256 * 1024, /* with so much on its way to the client, no command's output is read */
    TERMINAL_KEEPS = 64 * 1024, /* the kernel keeps no more of what was written to a terminal and not read */
    ALL = UINT32_MAX >> 1,
    EVERY = UINT32_MAX >> 1, /* session */
    LEFT_ON_GARBAGE = 2,
};

struct stream { /* of a command's output */
    int fd;          /* -1 after its end */
    uint32_t credit; /* bytes that the client has room for */
    uint32_t left;   /* bytes still to be read before it is closed; ALL for all that come */
};

struct command {
    struct command *next;
    uint32_t id;
    pid_t pid; /* 0 when it has been reaped */
    bool detached, brief, silent, ended;
    siginfo_t end;
    int64_t patience_ends; /* when the group of a command that has ended is killed, in ms */
    struct stream output[2];
    int input;
    int slave; /* of its terminal, -1 without one or when the command has ended: held so that only then its output ends */
    bool has_terminal, input_complete;
    unsigned char *waiting; /* input that the command has not read: WAITING_MOST bytes from the first STDIN on */
    size_t waiting_start, waiting_size;
    uint32_t used; /* input bytes written and not yet credited */
    int slot[3];   /* places of input and output in the array for poll, -1 for none */
};

static struct command *commands;
static int in = STDIN_FILENO, out = STDOUT_FILENO, signals;
static bool stays, greeted;
static int nothing; /* see struct order */
static uint64_t own; /* see struct order */
static struct { uint32_t id; char *hosts; int mounts; } reset; /* hosts is NULL where none is asked for */
static int64_t held_until; /* in ms: nothing that waits for the client is urgent before */

static struct { unsigned char *bytes; size_t start, end, capacity; } queue; /* on its way to the client */
static struct { unsigned char bytes[4 + FRAME_MOST]; size_t size; } received;

/* --- ends ----------------------------------------------------------------------------------------------------- */

static void close_input(struct command *command);
static void let_terminal_end(struct command *command);

static void kill_group(const struct command *command)
{
    /* Its first process is not reaped before, so the number cannot be that of another group. */
    if (command->pid > 0)
        kill(-command->pid, SIGKILL);
}

/* Nobody wants to hear of this session's commands any more. Detached ones go on. */
static void end_session(uint32_t session)
{
    for (struct command *one = commands; one; one = one->next) {
        if (session != EVERY && one->id >> SESSION_SHIFT != session)
            continue;
        if (!one->detached)
            kill_group(one);
        one->silent = true;
        close_input(one);
        let_terminal_end(one);
        for (int i = 0; i < 2; i++)
            if (one->output[i].fd >= 0) {
                close(one->output[i].fd);
                one->output[i].fd = -1;
            }
    }
}

static _Noreturn void leave(int code)
{
    end_session(EVERY);
    exit(code);
}

static _Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void die(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "agent: %s\n", line);
    leave(LEFT_ON_GARBAGE);
}

/* --- to the client -------------------------------------------------------------------------------------------- */

static size_t pending(void)
{
    return queue.end - queue.start;
}

/* SIZE bytes of room at the end of the queue; they count once queue.end is moved. */
static unsigned char *room(size_t size)
{
    if (queue.start > 0 && queue.capacity - queue.end < size) {
        memmove(queue.bytes, queue.bytes + queue.start, pending());
        queue.end -= queue.start;
        queue.start = 0;
    }
    if (queue.capacity - queue.end < size) {
        queue.capacity = queue.end + size + QUEUE_HIGH;
        queue.bytes = realloc(queue.bytes, queue.capacity);
        if (!queue.bytes)
            die("out of memory");
    }
    return queue.bytes + queue.end;
}

/* A frame whose body of SIZE bytes is in its place behind the header already. */
static void queue_frame(enum kind kind, uint32_t id, size_t size)
{
    unsigned char *frame = queue.bytes + queue.end;
    put_header(frame, kind, id, size);
    queue.end += HEADER_SIZE + size;
}

static void tell(const struct command *command, enum kind kind, const void *body, size_t size)
{
    if (command->silent)
        return;
    if (!command->brief || kind == EXITED)
        held_until = 0;
    unsigned char *frame = room(HEADER_SIZE + size);
    if (size > 0)
        memcpy(frame + HEADER_SIZE, body, size);
    queue_frame(kind, command->id, size);
}

static void tell_end(const struct command *command, int stream)
{
    tell(command, END, &(unsigned char){(unsigned char)stream}, 1);
}

static void flush(void)
{
    while (pending() > 0) {
        ssize_t count = write(out, queue.bytes + queue.start, pending());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count < 0)
            leave(0); /* the client has gone */
        queue.start += (size_t)count;
    }
    queue.start = queue.end = 0;
}

/* The client has said what none may. That is the end, unless others have this agent too: then it is the end of what that
 * client has here, and it is told. */
static void refuse(uint32_t id, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(uint32_t id, const char *format, ...)
{
    char why[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    if (!stays)
        die("garbage from the client: %s", why);
    end_session(id >> SESSION_SHIFT);
    tell(&(struct command){.id = id}, GOODBYE, why, strlen(why));
}

/* --- a command's streams -------------------------------------------------------------------------------------- */

static void close_output(struct command *command, int i)
{
    close(command->output[i].fd);
    command->output[i].fd = -1;
    tell_end(command, STDOUT_FILENO + i);
}

/* One frame's worth of what the command wrote; more in the next round, after the others had theirs. */
static void forward(struct command *command, int i)
{
    struct stream *stream = &command->output[i];
    size_t budget = DATA_MOST;
    while (stream->fd >= 0 && stream->credit > 0 && budget > 0) {
        size_t most = budget < stream->credit ? budget : stream->credit;
        if (stream->left < most)
            most = stream->left;
        ssize_t count = read(stream->fd, room(HEADER_SIZE + most) + HEADER_SIZE, most);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN && stream->left == ALL)
            return;
        if (count <= 0) { /* of a terminal EIO is the end */
            close_output(command, i);
            return;
        }
        if (!command->brief)
            held_until = 0;
        queue_frame(i == 0 ? STDOUT : STDERR, command->id, (size_t)count);
        stream->credit -= (uint32_t)count;
        budget -= (size_t)count;
        if (stream->left != ALL && (stream->left -= (uint32_t)count) == 0)
            close_output(command, i);
    }
}

static void close_input(struct command *command)
{
    if (command->input >= 0) {
        close(command->input);
        command->input = -1;
        tell_end(command, STDIN_FILENO);
    }
    free(command->waiting);
    command->waiting = NULL;
    command->waiting_size = 0;
}

/* As much of the waiting input as the command's pipe takes. */
static void feed(struct command *command)
{
    while (command->input >= 0 && command->waiting_size > 0) {
        ssize_t count = write(command->input, command->waiting + command->waiting_start, command->waiting_size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0) {
            close_input(command); /* it does not read any more */
            return;
        }
        command->waiting_start += (size_t)count;
        command->waiting_size -= (size_t)count;
        command->used += (uint32_t)count;
    }
    if (command->input >= 0 && command->used >= (command->waiting_size > 0 ? INPUT_WINDOW / 4 : 1)) {
        unsigned char body[5] = {STDIN_FILENO};
        put32(body + 1, command->used);
        command->used = 0;
        tell(command, CREDIT, body, sizeof body);
    }
    if (command->input_complete && command->waiting_size == 0)
        close_input(command);
}

static void add_input(struct command *command, const unsigned char *bytes, size_t size)
{
    if (!command->waiting && !(command->waiting = malloc(WAITING_MOST)))
        die("out of memory");
    if (command->waiting_start + command->waiting_size + size > WAITING_MOST) {
        memmove(command->waiting, command->waiting + command->waiting_start, command->waiting_size);
        command->waiting_start = 0;
    }
    memcpy(command->waiting + command->waiting_start + command->waiting_size, bytes, size);
    command->waiting_size += size;
}

static void take_input(struct command *command, const unsigned char *bytes, size_t size)
{
    if (command->input < 0 || command->input_complete)
        return;
    if (size > INPUT_WINDOW - command->waiting_size) {
        refuse(command->id, "more input than it had credit for");
        return;
    }
    add_input(command, bytes, size);
    feed(command);
}

static void end_input(struct command *command)
{
    if (command->input < 0 || command->input_complete)
        return;
    const unsigned char character = command->has_terminal ? end_of_file(command->input) : 0;
    if (character)
        add_input(command, &character, 1);
    command->input_complete = true;
    feed(command);
}

static void let_terminal_end(struct command *command)
{
    if (command->slave >= 0)
        close(command->slave);
    command->slave = -1;
}

/* --- a command's life ----------------------------------------------------------------------------------------- */

static void start(uint32_t id, const struct order *order)
{
    struct command *command = calloc(1, sizeof *command);
    struct spawned spawned;
    unsigned char body[5];
    int what = NO_PROCESS;
    const bool nothing_waits = pending() == 0;
    int error = command ? spawn(order, &spawned, &what) : ENOMEM;
    if (error) {
        struct command nobody = {.id = id};
        body[0] = (unsigned char)what;
        put32(body + 1, (uint32_t)error);
        tell(&nobody, FAILED, body, sizeof body);
        free(command);
        return;
    }
    *command = (struct command){
        .next = commands,
        .id = id,
        .pid = spawned.pid,
        .detached = order->detached,
        .brief = order->brief,
        .output = {{spawned.ends[1], OUTPUT_WINDOW, ALL}, {spawned.ends[2], OUTPUT_WINDOW, ALL}},
        .input = spawned.ends[0],
        .slave = spawned.slave,
        .has_terminal = order->terminal,
        .slot = {-1, -1, -1},
    };
    commands = command;
    put32(body, (uint32_t)spawned.pid);
    tell(command, STARTED, body, 4);
    for (int i = 0; i < 3; i++)
        if (spawned.ends[i] < 0)
            tell_end(command, i);
    if (command->brief && nothing_waits)
        held_until = now_ms() + HOLD_MS;
}

/* Which commands' first processes have ended? They stay zombies, so that their numbers stay theirs. */
static void look_for_ends(void)
{
    for (struct command *one = commands; one; one = one->next) {
        one->end.si_pid = 0;
        if (!one->ended && waitid(P_PID, (id_t)one->pid, &one->end, WEXITED | WNOHANG | WNOWAIT) == 0 && one->end.si_pid == one->pid) {
            one->ended = true;
            let_terminal_end(one);
            one->patience_ends = now_ms() + GRACE_MS;
        }
    }
}

static bool is_silent(const struct command *command)
{
    return command->output[0].fd < 0 && command->output[1].fd < 0;
}

/* How much is still to be read of what has been written. */
static uint32_t left_in(int fd, bool of_terminal)
{
    int left = 0;
    if (of_terminal) { /* of its two buffers FIONREAD counts one; poll() looks into both */
        struct pollfd look = {.fd = fd, .events = POLLIN};
        return poll(&look, 1, 0) == 1 && (look.revents & POLLIN) ? TERMINAL_KEEPS : 0;
    }
    return ioctl(fd, FIONREAD, &left) == 0 && left > 0 ? (uint32_t)left : 0;
}

/* The last of its group is killed and its first process reaped. Whoever still holds its output does not belong to it:
 * what has been written is read, what comes later is not waited for. */
static void reap(struct command *command)
{
    if (!command->detached)
        kill_group(command);
    waitpid(command->pid, NULL, 0);
    command->pid = 0;
    close_input(command);
    unsigned char body[2] = {command->end.si_code != CLD_EXITED, (unsigned char)command->end.si_status};
    tell(command, EXITED, body, sizeof body);
    for (int i = 0; i < 2; i++) {
        struct stream *stream = &command->output[i];
        if (stream->fd >= 0 && (stream->left = left_in(stream->fd, command->has_terminal)) == 0)
            close_output(command, i);
    }
}

/* Brings every command that has ended a step on; gives the ms until one needs it again, -1 for never. */
static int attend_to_ends(void)
{
    int64_t now = now_ms(), next = INT_MAX;
    for (struct command **link = &commands; *link;) {
        struct command *one = *link;
        if (one->ended && one->pid > 0) {
            if (is_silent(one) || now >= one->patience_ends)
                reap(one);
            else if (one->patience_ends - now < next)
                next = one->patience_ends - now;
        }
        if (one->pid == 0 && is_silent(one)) {
            *link = one->next;
            free(one->waiting);
            free(one);
        } else {
            link = &one->next;
        }
    }
    return next == INT_MAX ? -1 : (int)next;
}

/* The first command becomes the last, so that none is always served before the others. */
static void rotate(void)
{
    struct command *first = commands, *last = commands;
    if (!first || !first->next)
        return;
    while (last->next)
        last = last->next;
    commands = first->next;
    last->next = first;
    first->next = NULL;
}

/* --- from the client ------------------------------------------------------------------------------------------ */

/* COUNT strings from AT on, each ending in NUL before END, into LIST; where the next would start, NULL when there are fewer. */
static char *strings(char *at, const char *end, char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *nul = at && at < end ? memchr(at, '\0', (size_t)(end - at)) : NULL;
        if (!nul)
            return NULL;
        list[i] = at;
        at = nul + 1;
    }
    return at;
}

static struct size size_at(const unsigned char *at)
{
    return (struct size){.rows = (uint16_t)(at[0] << 8 | at[1]), .columns = (uint16_t)(at[2] << 8 | at[3])};
}

/* The strings of a START into ORDER, whose lists have room for them: what is wrong with them, or NULL. */
static const char *read_strings(struct order *order, size_t argument_count, size_t variable_count, char *at, const char *end)
{
    enum { FIXED = 5 };
    char *fixed[FIXED];
    at = strings(at, end, fixed, FIXED);
    at = strings(at, end, order->arguments, argument_count);
    if (!strings(at, end, order->environment, variable_count))
        return "a START with fewer strings than it says";
    for (size_t i = 0; i < variable_count; i++)
        if (!strchr(order->environment[i], '='))
            return "a variable without '='";
    order->directory = fixed[0];
    order->user = fixed[1];
    for (int i = 0; i < 3; i++)
        order->files[i] = order->detached && !*fixed[2 + i] ? "/dev/null" : fixed[2 + i];
    return NULL;
}

static void take_start(uint32_t id, unsigned char *body, size_t size)
{
    if (size < START_NUMBERS) {
        refuse(id, "a START of %zu bytes", size);
        return;
    }
    const size_t argument_count = get32(body + 12), variable_count = get32(body + 16);
    const uint32_t flags = get32(body);
    if (argument_count < 1 || argument_count > size || variable_count > size) {
        refuse(id, "a START with %zu arguments and %zu variables", argument_count, variable_count);
        return;
    }
    if ((flags & ~(uint32_t)BRIEF) > TERMINAL) {
        refuse(id, "a START with flags %u", flags);
        return;
    }
    char **lists = calloc(argument_count + variable_count + 2, sizeof *lists);
    if (!lists)
        die("out of memory");
    struct order order = {
        .detached = flags & DETACHED,
        .nothing = nothing,
        .own = own,
        .terminal = flags & TERMINAL,
        .brief = flags & BRIEF,
        .size = size_at(body + 8),
        .mode = get32(body + 4) & 07777,
        .arguments = lists,
        .environment = lists + argument_count + 1,
    };
    const char *wrong = read_strings(&order, argument_count, variable_count, (char *)body + START_NUMBERS, (char *)body + size);
    if (wrong)
        refuse(id, "%s", wrong);
    else
        start(id, &order);
    free(lists);
}

static void take_environment(char *at, size_t size)
{
    for (char *end = at + size; at < end;) {
        char *one;
        at = strings(at, end, &one, 1);
        if (!at || !strchr(one, '=') || !(one = strdup(one)) || putenv(one) != 0)
            die("garbage from the client: a wrong ENVIRONMENT");
    }
}

static void take_hello(uint32_t id, const unsigned char *body, size_t size)
{
    static const unsigned char answer[] = MAGIC "\002";
    _Static_assert(VERSION == 2, "the answer's last byte");
    const struct command client = {.id = id};
    if (size != MAGIC_SIZE || memcmp(body, MAGIC, MAGIC_SIZE) != 0)
        die("garbage from the client: it greets in another language");
    end_session(EVERY);
    greeted = true;
    tell(&client, HELLO, answer, sizeof answer - 1);
}

static void take_credit(struct command *command, const unsigned char *body, size_t size)
{
    if (size != 5 || (body[0] != STDOUT_FILENO && body[0] != STDERR_FILENO)) {
        refuse(command->id, "a wrong CREDIT");
        return;
    }
    struct stream *stream = &command->output[body[0] - STDOUT_FILENO];
    const uint32_t more = get32(body + 1);
    if (more > OUTPUT_WINDOW - stream->credit)
        refuse(command->id, "credit beyond the window");
    else
        stream->credit += more;
}

/* Init does it, and tells its steps by signals that carry their numbers. */
static void take_reset(uint32_t id, const unsigned char *hosts, size_t size)
{
    if (reset.hosts) {
        refuse(id, "a RESET while there is one");
        return;
    }
    reset.id = id;
    reset.hosts = calloc(size + 1, 1);
    if (!reset.hosts)
        die("out of memory");
    reset.mounts = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC); /* now: this /proc will be gone */
    memcpy(reset.hosts, hosts, size);
    end_session(EVERY);
    if (sigqueue(1, SIGUSR1, (union sigval){0}) < 0)
        die("init cannot be asked for a reset: %s", strerror(errno));
}

/* The commands to come belong in init's new root, which is on top of all in its mount namespace, and its network namespace. */
static void follow_init(void)
{
    if (reset.mounts < 0 || setns(reset.mounts, CLONE_NEWNS) < 0)
        die("the host's new root: %s", strerror(errno));
    int network = open("/proc/1/ns/net", O_RDONLY | O_CLOEXEC);
    if (network < 0 || setns(network, CLONE_NEWNET) < 0)
        die("the host's new network namespace: %s", strerror(errno));
    close(network);
    close(reset.mounts);
}

static void write_hosts(void)
{
    FILE *file = *reset.hosts ? fopen("/etc/hosts", "we") : NULL;
    if (*reset.hosts && (!file || fputs(reset.hosts, file) < 0 || fclose(file) != 0))
        die("/etc/hosts: %s", strerror(errno));
    free(reset.hosts);
    reset.hosts = NULL;
}

static void take_reset_step(unsigned char step)
{
    if (!reset.hosts)
        return;
    if (step == RESET_DONE) {
        follow_init();
        write_hosts();
    }
    tell(&(struct command){.id = reset.id}, RESET, &step, 1);
}

static void take_frame(unsigned char kind, uint32_t id, unsigned char *body, size_t size)
{
    if (!greeted && kind != HELLO)
        die("garbage from the client: frame %d before HELLO", kind);
    struct command *command = commands;
    while (command && (command->id != id || command->silent))
        command = command->next;
    switch (kind) {
    case HELLO:
        take_hello(id, body, size);
        return;
    case GOODBYE:
        if (!stays)
            leave(0);
        end_session(id >> SESSION_SHIFT);
        tell(&(struct command){.id = id}, GOODBYE, NULL, 0);
        return;
    case RESET:
        if (stays)
            refuse(id, "no RESET of this host is for its agent");
        else
            take_reset(id, body, size);
        return;
    case ENVIRONMENT:
        take_environment((char *)body, size);
        return;
    case START:
        if (command)
            refuse(id, "command %u is there already", id);
        else
            take_start(id, body, size);
        return;
    case STDIN:
        if (command)
            take_input(command, body, size);
        return;
    case STDIN_END:
        if (command)
            end_input(command);
        return;
    case SIGNAL:
        if (size != 1 || body[0] < 1 || body[0] >= NSIG)
            refuse(id, "a wrong SIGNAL");
        else if (command && command->pid > 0)
            kill(-command->pid, body[0]);
        return;
    case RESIZE:
        if (size != 4 || (command && !command->has_terminal))
            refuse(id, "a wrong RESIZE");
        else if (command && command->output[0].fd >= 0)
            resize_terminal(command->output[0].fd, size_at(body));
        return;
    case CREDIT:
        if (command)
            take_credit(command, body, size);
        return;
    default:
        refuse(id, "a frame of kind %d", kind);
    }
}

static void receive(void)
{
    ssize_t count = read(in, received.bytes + received.size, sizeof received.bytes - received.size);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        flush();
        leave(0); /* the client has gone, or will say no more */
    }
    received.size += (size_t)count;

    unsigned char *at = received.bytes;
    size_t left = received.size;
    while (left >= 4) {
        const size_t size = get32(at);
        if (size < HEADER_SIZE - 4 || size > FRAME_MOST)
            die("garbage from the client: a frame of %zu bytes", size);
        if (left < 4 + size)
            break;
        take_frame(at[4], get32(at + 5), at + HEADER_SIZE, size + 4 - HEADER_SIZE);
        at += 4 + size;
        left -= 4 + size;
    }
    memmove(received.bytes, at, left);
    received.size = left;
}

/* --- all of it ------------------------------------------------------------------------------------------------ */

static struct pollfd *watched;
static size_t watched_count, watched_capacity;

static int watch(int fd, short events)
{
    if (watched_count == watched_capacity) {
        watched_capacity = 2 * watched_capacity + 16;
        watched = realloc(watched, watched_capacity * sizeof *watched);
        if (!watched)
            die("out of memory");
    }
    watched[watched_count] = (struct pollfd){.fd = fd, .events = events};
    return (int)watched_count++;
}

static bool happened(int slot)
{
    return slot >= 0 && watched[slot].revents != 0;
}

static void watch_all(bool with_output)
{
    watched_count = 0;
    watch(in, POLLIN);
    watch(signals, POLLIN);
    if (with_output && pending() > 0)
        watch(out, POLLOUT);
    for (struct command *one = commands; one; one = one->next) {
        /* Without input waiting, an error still tells that nobody has the other end of a pipe, a hang-up that of a terminal. */
        one->slot[0] = one->input >= 0 ? watch(one->input, one->waiting_size > 0 ? POLLOUT : 0) : -1;
        for (int i = 0; i < 2; i++) {
            const struct stream *stream = &one->output[i];
            bool wanted = stream->fd >= 0 && stream->credit > 0 && pending() < QUEUE_HIGH;
            one->slot[1 + i] = wanted ? watch(stream->fd, POLLIN) : -1;
        }
    }
}

static void serve(struct command *command)
{
    if (happened(command->slot[0])) {
        if (command->waiting_size == 0 && (watched[command->slot[0]].revents & (POLLERR | POLLHUP)))
            close_input(command);
        else
            feed(command);
    }
    for (int i = 0; i < 2; i++)
        if (happened(command->slot[1 + i]) && pending() < QUEUE_HIGH)
            forward(command, i);
}

static void look(bool with_output, int patience)
{
    watch_all(with_output);
    if (poll(watched, watched_count, patience) < 0 && errno != EINTR)
        die("poll: %s", strerror(errno));
}

/* Wait for what happens next. What is on its way about a command that nobody hears of before its end waits a moment for that end:
 * on a guest, where a system call takes 0.1 ms, the whole story of a short command is then one write, and not four. */
static void wait_for_events(int patience)
{
    int64_t left = held_until > 0 ? held_until - now_ms() : 0;
    if (pending() > 0 && pending() < LITTLE && left > 0) {
        look(false, patience < 0 || left < patience ? (int)left : patience);
        return;
    }
    held_until = 0;
    flush();
    look(true, patience);
}

static void take_signal(void)
{
    struct signalfd_siginfo arrived;
    while (read(signals, &arrived, sizeof arrived) == sizeof arrived) {
        if (arrived.ssi_signo == SIGUSR1 && arrived.ssi_pid == 1)
            take_reset_step((unsigned char)arrived.ssi_int);
        else if (arrived.ssi_signo != SIGCHLD && arrived.ssi_signo != SIGUSR1)
            leave(128 + (int)arrived.ssi_signo);
    }
    look_for_ends();
}

static int descriptor(const char *text)
{
    char *end;
    long fd = strtol(text, &end, 10);
    if (*end || fd < 0 || fd > INT_MAX || fcntl((int)fd, F_GETFD) < 0)
        die("'%s' is no open file descriptor", text);
    return (int)fd;
}

static void read_arguments(int argc, char *argv[])
{
    if (argc == 4 && strcmp(argv[1], "--fds") == 0) {
        in = descriptor(argv[2]);
        out = descriptor(argv[3]);
    } else if (argc == 3 && strcmp(argv[1], "--device") == 0) {
        in = out = open(argv[2], O_RDWR | O_NOCTTY);
        if (in < 0)
            die("%s: %s", argv[2], strerror(errno));
        stays = true;
    } else if (argc == 3 && strcmp(argv[1], "--own") == 0) {
        own = capability_set(argv[2]);
    } else if (argc != 1) {
        die("usage: agent [--own CAPABILITIES | --fds IN OUT | --device PATH]");
    }
}

/* glibc keeps signals 32 and 33 to itself and signal() refuses them; whoever started us may have left one ignored. */
static void by_default(int number)
{
    static const unsigned long zeros[8]; /* the kernel's struct sigaction, SIG_DFL, of any architecture */
    syscall(SYS_rt_sigaction, number, zeros, NULL, 8UL);
}

int main(int argc, char *argv[])
{
    while ((nothing = open(NOTHING, O_RDWR)) >= 0 && nothing <= STDERR_FILENO)
        ; /* no pipe of a command may get the number of a standard stream that we were not given */
    if (nothing < 0)
        die(NOTHING ": %s", strerror(errno));
    read_arguments(argc, argv);
    if (chdir("/") < 0)
        die("/: %s", strerror(errno));
    umask(022);
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
    fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK);

    /* All signals are blocked for ever, SIGPIPE too: commands get them back, and nothing is ignored or handled. */
    sigset_t set;
    for (int number = 1; number < NSIG; number++)
        by_default(number);
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        die("signalfd: %s", strerror(errno));

    for (;;) {
        int patience = attend_to_ends();
        rotate();
        wait_for_events(patience);
        for (struct command *one = commands; one; one = one->next)
            serve(one);
        if (watched[1].revents)
            take_signal();
        if (watched[0].revents)
            receive();
    }
}
