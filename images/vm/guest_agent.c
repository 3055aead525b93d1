/* See guest_agent.h. One thing at a time, and blocking: nobody else talks to the agent yet. */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../agent/clock.h"
#include "../agent/frame.h"
#include "guest_agent.h"

static struct { unsigned char bytes[4 + FRAME_MOST]; size_t size; } frame;

static int send_all(int stream, const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t count = send(stream, bytes, size, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        bytes += count;
        size -= (size_t)count;
    }
    return 0;
}

/* A frame whose body of SIZE bytes is in FRAME, behind the room for its header. */
static int send_frame(int stream, unsigned char *whole, enum kind kind, uint32_t id, size_t size)
{
    put_header(whole, kind, id, size);
    return send_all(stream, whole, HEADER_SIZE + size);
}

static int receive(int stream, unsigned char *bytes, size_t size, long deadline)
{
    while (size > 0) {
        struct pollfd readable = {.fd = stream, .events = POLLIN};
        long left = deadline < 0 ? -1 : deadline - now_ms();
        if (deadline >= 0 && left <= 0)
            return -1;
        if (poll(&readable, 1, (int)left) <= 0)
            continue;
        ssize_t count = recv(stream, bytes, size, 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        bytes += count;
        size -= (size_t)count;
    }
    return 0;
}

/* The next frame: its kind, its body in frame.bytes from HEADER_SIZE on, frame.size bytes; or -1. */
static int next_frame(int stream, long deadline)
{
    if (receive(stream, frame.bytes, 4, deadline) < 0)
        return -1;
    size_t size = get32(frame.bytes);
    if (size < HEADER_SIZE - 4 || size > FRAME_MOST || receive(stream, frame.bytes + 4, size, deadline) < 0)
        return -1;
    frame.size = size + 4 - HEADER_SIZE;
    return frame.bytes[4];
}

bool greet_agent(int stream, int timeout_ms)
{
    unsigned char hello[HEADER_SIZE + MAGIC_SIZE];
    memcpy(hello + HEADER_SIZE, MAGIC, MAGIC_SIZE);
    if (send_frame(stream, hello, HELLO, 0, MAGIC_SIZE) < 0)
        return false;
    return next_frame(stream, now_ms() + timeout_ms) == HELLO && frame.size == MAGIC_SIZE + 1 &&
           memcmp(frame.bytes + HEADER_SIZE, MAGIC, MAGIC_SIZE) == 0 && frame.bytes[HEADER_SIZE + MAGIC_SIZE] == VERSION;
}

bool agent_answers(int stream, int timeout_ms)
{
    /* The end of a session that there is not. */
    const uint32_t id = UINT32_MAX << SESSION_SHIFT;
    const long deadline = now_ms() + timeout_ms;
    unsigned char goodbye[HEADER_SIZE];
    if (send_frame(stream, goodbye, GOODBYE, id, 0) < 0)
        return false;
    for (;;) {
        int kind = next_frame(stream, deadline);
        if (kind < 0 || (kind == GOODBYE && get32(frame.bytes + 5) == id))
            return kind == GOODBYE;
    }
}

/* Append the strings of LIST with their ends at AT; where the next would begin, or NULL without room. */
static unsigned char *append(unsigned char *at, const unsigned char *end, char *const *list)
{
    for (; at && *list; list++) {
        size_t size = strlen(*list) + 1;
        if (size > (size_t)(end - at))
            return NULL;
        memcpy(at, *list, size);
        at += size;
    }
    return at;
}

void set_environment(int stream, char *const *environment)
{
    unsigned char *body = frame.bytes + HEADER_SIZE;
    unsigned char *end = append(body, frame.bytes + sizeof frame.bytes, environment);
    if (end)
        send_frame(stream, frame.bytes, ENVIRONMENT, 0, (size_t)(end - body));
}

static uint32_t count(char *const *list)
{
    uint32_t number = 0;
    while (list[number])
        number++;
    return number;
}

static int order(int stream, uint32_t id, uint32_t flags, char *const *argv, char *const files[4])
{
    static char nothing[] = "";
    char *const place[] = {nothing, nothing, NULL};
    unsigned char *body = frame.bytes + HEADER_SIZE, *end = frame.bytes + sizeof frame.bytes, *at = body + START_NUMBERS;
    memset(body, 0, START_NUMBERS);
    put32(body, flags);
    put32(body + 4, 0644);
    put32(body + 12, count(argv));
    at = append(at, end, place);
    at = append(at, end, files);
    at = append(at, end, argv);
    return at ? send_frame(stream, frame.bytes, START, id, (size_t)(at - body)) : -1;
}

/* One piece of INPUT, at most SIZE bytes, or the end of it: how many went, or -1. */
static ssize_t send_input(int stream, uint32_t id, int input, size_t size)
{
    static unsigned char piece[HEADER_SIZE + DATA_MOST];
    ssize_t got = read(input, piece + HEADER_SIZE, size < DATA_MOST ? size : DATA_MOST);
    if (got < 0)
        return -1;
    return send_frame(stream, piece, got > 0 ? STDIN : STDIN_END, id, (size_t)got) < 0 ? -1 : got;
}

int run_on_guest(int stream, char *const *argv, int input)
{
    static char nothing[] = "", null[] = "/dev/null", console[] = "/dev/console";
    static uint32_t last_id = STARTED_ID;
    const uint32_t id = ++last_id;
    size_t credit = INPUT_WINDOW;
    if (order(stream, id, 0, argv, (char *const[]){input < 0 ? null : nothing, console, console, NULL}) < 0)
        return -1;
    for (bool more = input >= 0;;) {
        while (more && credit > 0) {
            ssize_t went = send_input(stream, id, input, credit);
            if (went < 0)
                return -1;
            more = went > 0;
            credit -= (size_t)went;
        }
        int kind = next_frame(stream, -1);
        const unsigned char *body = frame.bytes + HEADER_SIZE;
        if (kind < 0 || kind == FAILED)
            return -1;
        if (kind == CREDIT)
            credit += get32(body + 1);
        if (kind == END && body[0] == STDIN_FILENO)
            more = false;
        if (kind == EXITED)
            return body[0] ? 128 + body[1] : body[1];
    }
}

int start_on_guest(int stream, char *const *argv, const char *output, const char *errors)
{
    static char nothing[] = "";
    char out[64], err[64];
    strncpy(out, output, sizeof out - 1)[sizeof out - 1] = '\0';
    strncpy(err, errors, sizeof err - 1)[sizeof err - 1] = '\0';
    if (order(stream, STARTED_ID, 0, argv, (char *const[]){nothing, out, err, NULL}) < 0 || next_frame(stream, -1) != STARTED)
        return -1;
    for (int ends = 0; ends < 2; ends++) /* of the outputs, which are files */
        if (next_frame(stream, -1) != END)
            return -1;
    return 0;
}

int tell_started(int stream, const char *bytes, size_t size)
{
    static unsigned char piece[HEADER_SIZE + DATA_MOST];
    if (size > INPUT_WINDOW)
        return -1;
    while (size > 0) {
        size_t part = size < DATA_MOST ? size : DATA_MOST;
        memcpy(piece + HEADER_SIZE, bytes, part);
        if (send_frame(stream, piece, STDIN, STARTED_ID, part) < 0)
            return -1;
        bytes += part;
        size -= part;
    }
    return send_frame(stream, piece, STDIN_END, STARTED_ID, 0);
}
