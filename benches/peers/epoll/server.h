// The raw epoll server: what a readiness loop can do when nothing stands between it and the kernel.
#ifndef ARENA_EPOLL_SERVER_H
#define ARENA_EPOLL_SERVER_H

#include "bytes.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    READ_SIZE = 256 * 1024, // one read takes a large message whole; every peer that reads by hand uses the same size
    MAX_EVENTS = 1024,
    MAX_CONNECTIONS = 1 << 16, // indexed by descriptor; untouched entries cost no memory
};

struct connection {
    struct buffer *out;  // what the socket did not take
    struct buffer *line; // chat: a line whose end has not arrived
    uint64_t received;   // sink
    bool open;
    bool unread; // the edge said "readable" and no read has said "drained" since
    bool ended;  // the peer's FIN was announced: a short read is no proof of "drained" any more
    bool spoke;  // chat: the current turn's log holds lines of this member
};

struct service {
    // Serves one event; false closes the connection.
    bool (*ready)(int fd, struct connection *c);
    // After all events of one epoll_wait; `top` is above the largest open descriptor.
    void (*turn_ends)(struct connection *connections, int top);
};

extern const struct service echo_service, sink_service, chat_service;
extern unsigned char read_buffer[READ_SIZE];

void serve_tcp(const struct sockaddr_in *addr, const struct service *service);
void serve_udp(const struct sockaddr_in *addr);

// Prints `ready ADDRESS`, the line that the runner waits for.
void announce(int fd);

// One read into `read_buffer`: the length, 0 at the end or on failure, -1 when nothing is there.
ptrdiff_t read_some(int fd);

#endif
