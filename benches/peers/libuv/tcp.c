// The TCP services: echo and sink here, chat's lines in chat.c.
#include "server.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

static void free_connection(uv_handle_t *handle) {
    struct connection *c = handle->data;
    free(c->line);
    free(c);
}

void close_connection(struct connection *c) {
    if (uv_is_closing((uv_handle_t *)&c->tcp)) return;
    chat_leave(c);
    uv_close((uv_handle_t *)&c->tcp, free_connection);
}

void free_write(uv_write_t *request, int status) {
    (void)status; // a broken connection shows on its read side as well
    free(request);
}

// An echo that waited is out: the reading that stopped for it goes on.
static void on_data(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf);
static void resume_reading(uv_write_t *request, int status) {
    if (status == 0) uv_read_start(request->handle, lend_buffer, on_data);
    free(request);
}

void write_all(struct connection *c, uv_buf_t *bufs, unsigned count, uv_write_cb done) {
    uv_stream_t *stream = (uv_stream_t *)&c->tcp;
    int taken = uv_try_write(stream, bufs, count);
    if (taken < 0 && taken != UV_EAGAIN) return; // broken: the read side reports it
    size_t skip = taken > 0 ? (size_t)taken : 0, total = 0;
    for (unsigned i = 0; i < count; i++) total += bufs[i].len;
    if (skip == total) return;
    // The request and the copy share one allocation.
    uv_write_t *request = malloc(sizeof *request + total - skip);
    if (!request) die("malloc", UV_ENOMEM);
    char *copy = (char *)(request + 1), *end = copy;
    for (unsigned i = 0; i < count; i++) {
        size_t here = skip < bufs[i].len ? skip : bufs[i].len;
        memcpy(end, bufs[i].base + here, bufs[i].len - here);
        end += bufs[i].len - here;
        skip -= here;
    }
    uv_buf_t rest = uv_buf_init(copy, end - copy);
    // Reading stops while an echo waits; the socket's own buffers then slow the sender down.
    if (done == resume_reading) uv_read_stop(stream);
    int status = uv_write(request, stream, &rest, 1, done);
    if (status < 0) free(request);
}

static void closed_after_count(uv_write_t *request, int status) {
    (void)status;
    close_connection(request->handle->data);
    free(request);
}

static void answer_count(struct connection *c) {
    uv_write_t *request = malloc(sizeof *request + sizeof(uint64_t));
    if (!request) die("malloc", UV_ENOMEM);
    uint64_t count = htole64(c->received);
    memcpy(request + 1, &count, sizeof count);
    uv_buf_t buf = uv_buf_init((char *)(request + 1), sizeof count);
    uv_write(request, (uv_stream_t *)&c->tcp, &buf, 1, closed_after_count);
}

static void on_data(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf) {
    struct connection *c = stream->data;
    if (len == 0) return;
    if (len < 0) {
        if (len == UV_EOF && mode[0] == 's') {
            answer_count(c);
        } else {
            close_connection(c);
        }
        return;
    }
    if (mode[0] == 'e') {
        uv_buf_t reply = uv_buf_init(buf->base, len);
        write_all(c, &reply, 1, resume_reading);
    } else if (mode[0] == 's') {
        c->received += len;
    } else {
        chat_data(c, buf->base, len);
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0) return;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) die("calloc", UV_ENOMEM);
    uv_tcp_init(listener->loop, &c->tcp);
    c->tcp.data = c;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) < 0) {
        close_connection(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    if (mode[0] == 'c') chat_join(c);
    uv_read_start((uv_stream_t *)&c->tcp, lend_buffer, on_data);
}

void serve_tcp(uv_loop_t *loop, const struct sockaddr *addr) {
    static uv_tcp_t listener;
    uv_tcp_init(loop, &listener);
    int status = uv_tcp_bind(&listener, addr, 0);
    if (status == 0) status = uv_listen((uv_stream_t *)&listener, 4096, on_connection);
    if (status < 0) die("listen", status);
    if (mode[0] == 'c') chat_start(loop);
    struct sockaddr_storage bound;
    int len = sizeof bound;
    uv_tcp_getsockname(&listener, (struct sockaddr *)&bound, &len);
    announce(&bound);
}
