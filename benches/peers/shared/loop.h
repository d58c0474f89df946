// What the C peers with layers share: the arguments, and the epoll loop.
#ifndef ARENA_LOOP_H
#define ARENA_LOOP_H

#include "bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    READ_SIZE = 256 * 1024, // one read takes a large message whole; every peer that reads by hand uses the same size
    MAX_EVENTS = 1024,
    MAX_CONNECTIONS = 1 << 16, // indexed by descriptor; untouched entries cost no memory
};

struct arguments {
    const char *mode, *cert, *key;
};

struct service {
    void (*opened)(int fd);
    // One event; false closes the connection. `ended`: the peer's FIN was announced.
    bool (*ready)(int fd, bool readable, bool ended);
    void (*closed)(int fd);
    // After all events of one epoll_wait; `top` is above the largest descriptor that was ever a connection.
    void (*turn_ends)(int top);
};

// Of each peer: its service for these arguments, NULL where it has none.
const struct service *choose(const struct arguments *arguments);

// On a page of its own, as in every peer.
extern unsigned char read_buffer[READ_SIZE];

#endif
