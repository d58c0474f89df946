// What the C peers with layers share: the arguments, the epoll loop, bytes that wait, a room's log.
#ifndef ARENA_LOOP_H
#define ARENA_LOOP_H

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

_Noreturn void die(const char *what);

// Bytes that wait: allocated only while there are some.
struct buffer {
    size_t start, len, capacity;
    unsigned char data[];
};

void buffer_append(struct buffer **b, const void *data, size_t len);
// Makes room for so many bytes behind those that are there.
void buffer_reserve(struct buffer **b, size_t more);
void buffer_free(struct buffer **b);

// One write; returns what the socket took, 0 when it is full, -1 when it is gone.
ptrdiff_t write_some(int fd, const void *data, size_t len);
// Writes what waits until it is gone (true) or the socket is full (false). What a broken socket can't take is
// dropped: its end shows on the read side.
bool flush(int fd, struct buffer **b);
// Writes at once where nothing waits; what the socket does not take waits. False when it is gone.
bool send_bytes(int fd, struct buffer **b, const void *data, size_t len);

// What all members say in a turn, and by whom: a run is what one speaker said, who alone must not get it.
struct run {
    int speaker;
    size_t start, len;
};
extern unsigned char *log_data;
extern size_t log_len, runs_len;
extern struct run *runs;

void log_append(int speaker, const void *data, size_t len);
void log_clear(void);

#endif
