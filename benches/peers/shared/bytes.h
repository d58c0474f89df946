// Bytes that wait, and what all members of a room say in a turn: of all C peers on epoll.
#ifndef ARENA_BYTES_H
#define ARENA_BYTES_H

#include <stdbool.h>
#include <stddef.h>

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
