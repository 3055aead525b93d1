/* The beginning of every frame of protocol.h, and its numbers, for all that speak it. */

#ifndef TESTBED_AGENT_FRAME_H
#define TESTBED_AGENT_FRAME_H

#include "protocol.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void put32(unsigned char *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, sizeof value);
}

static inline uint32_t get32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return ntohl(value);
}

/* HEADER_SIZE bytes, before a body of SIZE bytes. */
static inline void put_header(unsigned char *at, enum kind kind, uint32_t id, size_t size)
{
    put32(at, (uint32_t)(HEADER_SIZE - 4 + size));
    at[4] = (unsigned char)kind;
    put32(at + 5, id);
}

#endif
