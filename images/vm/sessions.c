/* See sessions.h. One thread, one poll(2). A client is a session of agent/protocol.h: its number is put into the upper
 * bits of each id on the way to the guest, and taken off on the way back. Frames are passed whole, so that a client that
 * dies in the middle of one harms nobody. Nothing is waited for: what a client does not read stays here, as much as its
 * commands' windows allow, and one that lets more than QUEUE_MOST pile up is dropped. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../agent/frame.h"
#include "guest_agent.h"
#include "sessions.h"

enum {
    SESSIONS_MOST = 256,
    QUEUE_HIGH = 1024 * 1024, /* with so much on its way to the guest, no client is read */
    QUEUE_MOST = 256 * 1024 * 1024,
};

struct buffer { unsigned char *bytes; size_t start, end, capacity; };

struct session {
    int fd; /* -1 when the client has gone and the agent has not said so yet */
    struct buffer to_client, from_client;
    int slot; /* in the array for poll, -1 for none */
};

static struct session *sessions[SESSIONS_MOST]; /* 0 is our own, see OWN_SLOT */
static struct buffer to_guest, from_guest;
static struct { int number; uint32_t id; } asked; /* who wants a reset; number 0 is nobody */

/* --- buffers -------------------------------------------------------------------------------------------------- */

static size_t pending(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* SIZE bytes of room at the end; they count once end is moved. */
static unsigned char *room(struct buffer *buffer, size_t size)
{
    if (buffer->start > 0 && buffer->capacity - buffer->end < size) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, pending(buffer));
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->capacity - buffer->end < size) {
        buffer->capacity = buffer->end + size + 64 * 1024;
        buffer->bytes = realloc(buffer->bytes, buffer->capacity);
        if (!buffer->bytes) {
            dprintf(STDERR_FILENO, "vm: out of memory\n");
            exit(1);
        }
    }
    return buffer->bytes + buffer->end;
}

static void add(struct buffer *buffer, const void *bytes, size_t size)
{
    memcpy(room(buffer, size), bytes, size);
    buffer->end += size;
}

static void add_frame(struct buffer *buffer, enum kind kind, uint32_t id, const void *body, size_t size)
{
    unsigned char header[HEADER_SIZE];
    put_header(header, kind, id, size);
    add(buffer, header, sizeof header);
    if (size > 0)
        add(buffer, body, size);
}

/* False when the other end has gone. */
static bool flush(struct buffer *buffer, int fd)
{
    while (pending(buffer) > 0) {
        ssize_t count = send(fd, buffer->bytes + buffer->start, pending(buffer), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno == EAGAIN;
        buffer->start += (size_t)count;
    }
    buffer->start = buffer->end = 0;
    return true;
}

static bool fill(struct buffer *buffer, int fd)
{
    enum { PIECE = 64 * 1024 };
    ssize_t count = recv(fd, room(buffer, PIECE), PIECE, MSG_DONTWAIT);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    buffer->end += (size_t)count;
    return count > 0;
}

/* The size of the whole frame at the buffer's start; 0 when it is not all there yet, 1 for what cannot be one. */
static size_t whole_frame(const struct buffer *buffer)
{
    if (pending(buffer) < 4)
        return 0;
    size_t size = get32(buffer->bytes + buffer->start);
    if (size < HEADER_SIZE - 4 || size > FRAME_MOST)
        return 1;
    return pending(buffer) >= 4 + size ? 4 + size : 0;
}

/* --- sessions ------------------------------------------------------------------------------------------------- */

static uint32_t id_of(int number, uint32_t id)
{
    return (uint32_t)number << SESSION_SHIFT | id;
}

static void end_session(int number)
{
    struct session *session = sessions[number];
    if (session->fd < 0)
        return;
    close(session->fd);
    session->fd = -1;
    add_frame(&to_guest, GOODBYE, id_of(number, 0), NULL, 0);
}

static void forget_session(int number)
{
    free(sessions[number]->to_client.bytes);
    free(sessions[number]->from_client.bytes);
    free(sessions[number]);
    sessions[number] = NULL;
}

static int free_number(void)
{
    for (int number = OWN_SLOT + 1; number < SESSIONS_MOST; number++)
        if (!sessions[number])
            return number;
    return -1;
}

static void take_client(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        close(fd);
        return;
    }
    session->fd = fd;
    sessions[free_number()] = session;
}

/* A frame from a client: false for one that no client may send. */
static bool pass_to_guest(int number, const unsigned char *frame, size_t size)
{
    static const unsigned char answer[] = MAGIC "\002";
    _Static_assert(VERSION == 2, "the answer's last byte");
    const uint32_t id = get32(frame + 5);
    switch (frame[4]) {
    case HELLO:
        if (size != HEADER_SIZE + MAGIC_SIZE || memcmp(frame + HEADER_SIZE, MAGIC, MAGIC_SIZE) != 0)
            return false;
        add_frame(&sessions[number]->to_client, HELLO, id, answer, sizeof answer - 1);
        return true;
    case START: case STDIN: case STDIN_END: case SIGNAL: case RESIZE: case CREDIT:
        if (id >> SESSION_SHIFT)
            return false;
        add_frame(&to_guest, frame[4], id_of(number, id), frame + HEADER_SIZE, size - HEADER_SIZE);
        return true;
    case RESET: /* the text is for the hosts that are not guests */
        asked.number = number;
        asked.id = id;
        return true;
    default:
        return false; /* GOODBYE too: then it is over */
    }
}

static void read_client(int number)
{
    struct session *session = sessions[number];
    bool there = fill(&session->from_client, session->fd);
    size_t size;
    while ((size = whole_frame(&session->from_client)) > 0) {
        if (size == 1 || !pass_to_guest(number, session->from_client.bytes + session->from_client.start, size)) {
            there = false;
            break;
        }
        session->from_client.start += size;
    }
    if (!there)
        end_session(number);
}

/* A frame from the guest: the exit code when it says that our own command has ended, else -1. */
static int pass_to_client(const unsigned char *frame, size_t size)
{
    const uint32_t id = get32(frame + 5), number = id >> SESSION_SHIFT;
    if (number == OWN_SLOT && id == STARTED_ID && frame[4] == EXITED)
        return frame[HEADER_SIZE] ? 128 + frame[HEADER_SIZE + 1] : frame[HEADER_SIZE + 1];
    struct session *session = number < SESSIONS_MOST ? sessions[number] : NULL;
    if (!session)
        return -1;
    if (frame[4] == GOODBYE && size > HEADER_SIZE) {
        dprintf(STDERR_FILENO, "vm: a client was dropped: %.*s\n", (int)(size - HEADER_SIZE), (const char *)frame + HEADER_SIZE);
        end_session((int)number);
    } else if (frame[4] == GOODBYE) {
        forget_session((int)number);
    } else if (session->fd >= 0) {
        add_frame(&session->to_client, frame[4], id & ((1u << SESSION_SHIFT) - 1), frame + HEADER_SIZE, size - HEADER_SIZE);
        if (pending(&session->to_client) > QUEUE_MOST)
            end_session((int)number);
    }
    return -1;
}

/* --- all of it ------------------------------------------------------------------------------------------------ */

int listen_for_clients(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = AGENT_SOCKET};
    mkdir(AGENT_DIRECTORY, 0755);
    unlink(AGENT_SOCKET);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void begin_sessions_anew(void)
{
    for (int number = 0; number < SESSIONS_MOST; number++) {
        if (!sessions[number] || (number == asked.number && sessions[number]->fd >= 0))
            continue;
        if (sessions[number]->fd >= 0)
            close(sessions[number]->fd);
        forget_session(number);
    }
    to_guest.start = to_guest.end = from_guest.start = from_guest.end = 0;
}

void tell_reset_done(void)
{
    struct session *session = sessions[asked.number];
    if (session)
        add_frame(&session->to_client, RESET, asked.id, &(unsigned char){RESET_DONE}, 1);
    asked.number = 0;
}

int serve_clients(int listener, int guest, int signals)
{
    enum { SIGNALS, GUEST, LISTENER, FIRST };
    struct pollfd watched[FIRST + SESSIONS_MOST];
    for (;;) {
        nfds_t count = FIRST;
        watched[SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
        watched[GUEST] = (struct pollfd){.fd = guest, .events = (short)(POLLIN | (pending(&to_guest) > 0 ? POLLOUT : 0))};
        watched[LISTENER] = (struct pollfd){.fd = free_number() < 0 ? -1 : listener, .events = POLLIN};
        for (int number = 0; number < SESSIONS_MOST; number++) {
            struct session *one = sessions[number];
            if (!one || (one->slot = -1, one->fd < 0))
                continue;
            short events = (short)((pending(&to_guest) < QUEUE_HIGH ? POLLIN : 0) | (pending(&one->to_client) > 0 ? POLLOUT : 0));
            one->slot = (int)count;
            watched[count++] = (struct pollfd){.fd = one->fd, .events = events};
        }
        if (poll(watched, count, -1) < 0 && errno != EINTR)
            return GUEST_GONE;
        if (watched[SIGNALS].revents)
            return SIGNALLED;
        for (int number = 0; number < SESSIONS_MOST; number++) {
            struct session *one = sessions[number];
            if (!one || one->slot < 0 || !watched[one->slot].revents)
                continue;
            if (!flush(&one->to_client, one->fd))
                end_session(number);
            else if (watched[one->slot].revents & (POLLIN | POLLHUP | POLLERR))
                read_client(number);
        }
        if (asked.number != 0)
            return RESET_ASKED;
        if (watched[GUEST].revents & (POLLIN | POLLHUP | POLLERR)) {
            if (!fill(&from_guest, guest))
                return GUEST_GONE;
            for (size_t size; (size = whole_frame(&from_guest)) > 0; from_guest.start += size) {
                if (size == 1)
                    return GUEST_GONE;
                int code = pass_to_client(from_guest.bytes + from_guest.start, size);
                if (code >= 0)
                    return code;
            }
        }
        if (watched[LISTENER].revents)
            take_client(listener);
        for (int number = 0; number < SESSIONS_MOST; number++)
            if (sessions[number] && sessions[number]->fd >= 0 && !flush(&sessions[number]->to_client, sessions[number]->fd))
                end_session(number);
        if (!flush(&to_guest, guest))
            return GUEST_GONE;
    }
}
