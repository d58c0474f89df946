// The libuv server: the callbacks and calls its guide teaches, with one read buffer for all connections,
// `uv_try_write` before anything is queued, and one write per member and turn in the chat.
#ifndef ARENA_LIBUV_SERVER_H
#define ARENA_LIBUV_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum { READ_SIZE = 256 * 1024 };

struct connection {
    uv_tcp_t tcp;
    uint64_t received;             // sink
    struct connection *prev, *next; // chat: the list of members
    char *line;                    // chat: a line whose end has not arrived
    size_t line_len;
    bool spoke; // chat: the current turn's log holds lines of this member
};

extern const char *mode;
extern char read_buffer[READ_SIZE];

_Noreturn void die(const char *what, int status);
// Prints `ready ADDRESS`, the line that the runner waits for.
void announce(const struct sockaddr_storage *addr);
void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buf);

void serve_tcp(uv_loop_t *loop, const struct sockaddr *addr);
void serve_udp(uv_loop_t *loop, const struct sockaddr *addr);

void close_connection(struct connection *c);
// Writes at once what the socket takes and queues a copy of the rest.
void write_all(struct connection *c, uv_buf_t *bufs, unsigned count, uv_write_cb done);
void free_write(uv_write_t *request, int status);

void chat_start(uv_loop_t *loop);
void chat_join(struct connection *c);
void chat_leave(struct connection *c);
void chat_data(struct connection *c, const char *data, size_t len);

#endif
