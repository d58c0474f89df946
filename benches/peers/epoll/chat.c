// Chat: what all members say in a turn goes into one shared log, and each member gets it with one write.
#include "server.h"

#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <sys/uio.h>

enum { MAX_IOVECS = 1024 };

static bool chat_ready(int fd, struct connection *c) {
    flush(fd, &c->out);
    while (c->unread) {
        ptrdiff_t n = read_some(fd);
        if (n == 0) return false;
        if (n < READ_SIZE && !(n > 0 && c->ended)) c->unread = false;
        if (n < 0) break;
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
    return true;
}

// Queues what the socket did not take: the log, without the member's own runs and without its first `skip` bytes.
static void queue_rest(int fd, struct connection *c, size_t skip) {
    for (size_t i = 0; i < runs_len; i++) {
        if (runs[i].speaker == fd) continue;
        size_t here = skip < runs[i].len ? skip : runs[i].len;
        skip -= here;
        buffer_append(&c->out, log_data + runs[i].start + here, runs[i].len - here);
    }
}

// One gathering write of the stretches between the speaker's own runs. Returns what was taken, `log_len` for all.
static ptrdiff_t write_others(int fd) {
    struct iovec vectors[MAX_IOVECS];
    int count = 0;
    size_t own = 0, offered = 0;
    bool joined = false;
    for (size_t i = 0; i < runs_len; i++) {
        if (runs[i].speaker == fd) {
            own += runs[i].len;
            joined = false;
            continue;
        }
        if (joined) {
            vectors[count - 1].iov_len += runs[i].len;
        } else {
            if (count == MAX_IOVECS) break; // the caller queues the rest
            vectors[count++] = (struct iovec){log_data + runs[i].start, runs[i].len};
            joined = true;
        }
        offered += runs[i].len;
    }
    for (;;) {
        ssize_t n = count ? writev(fd, vectors, count) : 0;
        if (n >= 0) return (size_t)n == offered && own + offered == log_len ? (ptrdiff_t)log_len : n;
        if (errno == EAGAIN) return 0;
        if (errno != EINTR) return -1;
    }
}

static void chat_turn_ends(struct connection *connections, int top) {
    if (!log_len) return;
    for (int fd = 0; fd < top; fd++) {
        struct connection *c = &connections[fd];
        if (!c->open) continue;
        ptrdiff_t written = 0;
        if (!c->out) written = c->spoke ? write_others(fd) : write_some(fd, log_data, log_len);
        if (written >= 0 && (size_t)written < log_len) {
            queue_rest(fd, c, written);
            // What was cut at MAX_IOVECS gets no edge of its own.
            flush(fd, &c->out);
        }
        c->spoke = false;
    }
    log_clear();
}

const struct service chat_service = {.ready = chat_ready, .turn_ends = chat_turn_ends};
