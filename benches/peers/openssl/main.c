// TLS by OpenSSL on epoll: its own reads and writes on the socket, with read-ahead, so that a record costs one read and
// not two. Buffers are released while a connection rests.
#include "loop.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <endian.h>
#include <string.h>

struct connection {
    SSL *tls;
    struct buffer *out;  // what the session did not take
    struct buffer *line; // a line whose end has not arrived
    uint64_t received;   // sink
    bool spoke;          // chat: the current turn's log holds lines of this member
};

static struct connection connections[MAX_CONNECTIONS];
static SSL_CTX *context;

static void opened(int fd) {
    SSL *tls = SSL_new(context);
    if (!tls || !SSL_set_fd(tls, fd)) die("SSL_new");
    SSL_set_accept_state(tls);
    connections[fd] = (struct connection){.tls = tls};
}

static void closed(int fd) {
    struct connection *c = &connections[fd];
    SSL_free(c->tls);
    buffer_free(&c->out);
    buffer_free(&c->line);
    *c = (struct connection){0};
}

// Whether the session waits for its socket; anything else ended it. An error must not stay in the queue, where the
// next session would find it.
static bool waits(struct connection *c, int result) {
    int error = SSL_get_error(c->tls, result);
    ERR_clear_error();
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

// Writes what the session takes; returns how much, -1 when it is gone.
static ptrdiff_t tls_write(struct connection *c, const void *data, size_t len) {
    size_t written = 0;
    while (written < len) {
        int n = SSL_write(c->tls, (const char *)data + written, len - written);
        if (n <= 0) return waits(c, n) ? (ptrdiff_t)written : -1;
        written += n;
    }
    return written;
}

static bool tls_send(struct connection *c, const void *data, size_t len) {
    ptrdiff_t written = c->out ? 0 : tls_write(c, data, len);
    if (written < 0) return false;
    buffer_append(&c->out, (const unsigned char *)data + written, len - written);
    return true;
}

// Writes what waits until it is gone (true) or the socket is full (false).
static bool tls_flush(struct connection *c) {
    struct buffer *b = c->out;
    if (!b) return true;
    ptrdiff_t n = tls_write(c, b->data + b->start, b->len);
    if (n >= 0 && (size_t)n < b->len) {
        b->start += n;
        b->len -= n;
        return false;
    }
    // All is gone, or the session is: its end shows on the read side.
    buffer_free(&c->out);
    return true;
}

// Decrypts what is there, up to a buffer full: the length, 0 at the end or on failure, -1 when nothing is there.
static ptrdiff_t tls_read(struct connection *c) {
    int n = SSL_read(c->tls, read_buffer, READ_SIZE);
    if (n > 0) return n;
    return waits(c, n) ? -1 : 0;
}

static bool echo_ready(int fd, bool readable, bool ended) {
    (void)readable, (void)ended;
    struct connection *c = &connections[fd];
    while (tls_flush(c)) {
        ptrdiff_t n = tls_read(c);
        if (n == 0) SSL_shutdown(c->tls);
        if (n < 0) return true;
        if (n == 0 || !tls_send(c, read_buffer, n)) return false;
    }
    return true;
}

static bool sink_ready(int fd, bool readable, bool ended) {
    (void)readable, (void)ended;
    struct connection *c = &connections[fd];
    for (;;) {
        ptrdiff_t n = tls_read(c);
        if (n < 0) return true;
        if (n == 0) {
            // Nothing was sent before, so these eight bytes always fit.
            uint64_t count = htole64(c->received);
            tls_write(c, &count, sizeof count);
            SSL_shutdown(c->tls);
            return false;
        }
        c->received += n;
    }
}

static bool chat_ready(int fd, bool readable, bool ended) {
    (void)readable, (void)ended;
    struct connection *c = &connections[fd];
    tls_flush(c);
    for (;;) {
        ptrdiff_t n = tls_read(c);
        if (n < 0) return true;
        if (n == 0) return false;
        const unsigned char *last = memrchr(read_buffer, '\n', n);
        size_t whole = last ? (size_t)(last + 1 - read_buffer) : 0;
        if (whole) {
            if (c->line) {
                log_append(fd, c->line->data + c->line->start, c->line->len);
                buffer_free(&c->line);
            }
            log_append(fd, read_buffer, whole);
            c->spoke = true;
        }
        buffer_append(&c->line, read_buffer + whole, n - whole);
    }
}

// A member that spoke gets the log without its own runs, gathered first: a record for each stretch would cost more.
static void send_others(int fd, struct connection *c) {
    static struct buffer *others;
    for (size_t i = 0; i < runs_len; i++) {
        if (runs[i].speaker != fd) buffer_append(&others, log_data + runs[i].start, runs[i].len);
    }
    if (!others) return;
    tls_send(c, others->data, others->len);
    others->len = 0;
}

static void chat_turn_ends(int top) {
    if (!log_len) return;
    for (int fd = 0; fd < top; fd++) {
        struct connection *c = &connections[fd];
        if (!c->tls || !SSL_is_init_finished(c->tls)) continue;
        if (c->spoke) {
            send_others(fd, c);
        } else {
            tls_send(c, log_data, log_len);
        }
        c->spoke = false;
    }
    log_clear();
}

static const struct service echo = {.opened = opened, .ready = echo_ready, .closed = closed};
static const struct service sink = {.opened = opened, .ready = sink_ready, .closed = closed};
static const struct service chat = {
    .opened = opened, .ready = chat_ready, .closed = closed, .turn_ends = chat_turn_ends};

static void make_context(const struct arguments *arguments) {
    context = SSL_CTX_new(TLS_server_method());
    if (!context || !arguments->cert || !arguments->key
        || SSL_CTX_use_certificate_chain_file(context, arguments->cert) != 1
        || SSL_CTX_use_PrivateKey_file(context, arguments->key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        die("a certificate and its key");
    }
    SSL_CTX_set_mode(context,
        SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    // Sessions resume with tickets alone, so that nothing is kept for a client that went away.
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

const struct service *choose(const struct arguments *arguments) {
    const struct service *service = !strcmp(arguments->mode, "tls-echo") ? &echo
        : !strcmp(arguments->mode, "tls-sink")                           ? &sink
        : !strcmp(arguments->mode, "tls-chat")                           ? &chat
                                                                         : NULL;
    if (service) make_context(arguments);
    return service;
}
