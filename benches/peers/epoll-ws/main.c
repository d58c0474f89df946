// The two services. An echo unmasks a message where it lies, puts the shorter head before it and writes it from there;
// a room's turn is encoded once, into one log.
#include "websocket.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct connection {
    struct buffer *out; // what the socket did not take
    struct buffer *in;  // a request, or a frame, whose end has not arrived
    size_t whole;       // the size of that frame, zero where its head has not arrived
    bool open;
    bool upgraded; // the handshake is done
    bool unread;   // the edge said "readable" and no read has said "drained" since
    bool ended;    // a short read is no proof of "drained" any more
    bool spoke;    // the current turn's log holds lines of this member
};

static struct connection connections[MAX_CONNECTIONS];
static bool is_room;

static void opened(int fd) {
    connections[fd] = (struct connection){.open = true};
}

static void closed(int fd) {
    buffer_free(&connections[fd].out);
    buffer_free(&connections[fd].in);
    connections[fd].open = false;
}

// Takes the whole frames; returns how many bytes they were, or -1 to close. Replies are made in the place of what they
// answer, one behind the other, and leave together.
static ptrdiff_t take_frames(int fd, struct connection *c, unsigned char *data, size_t len, size_t *next) {
    unsigned char *at = data, *replies = NULL, *replies_end = NULL;
    struct frame frame;
    bool wrong = false;
    *next = 0;
    while (parse(at, len - (at - data), &frame, &wrong)) {
        unsigned char *reply = NULL;
        at += frame.whole;
        if (frame.opcode == PONG) continue;
        if (frame.opcode == PING) {
            reply = put_head(frame.payload, PONG, frame.len);
        } else if (frame.opcode == CLOSE) {
            reply = put_head(frame.payload, CLOSE, frame.len);
            wrong = true;
        } else {
            unsigned char *head = put_head(frame.payload, frame.opcode, frame.len);
            if (is_room) {
                log_append(fd, head, frame.payload + frame.len - head);
                c->spoke = true;
            } else {
                reply = head;
            }
        }
        if (reply) {
            size_t size = frame.payload + frame.len - reply;
            if (!replies) {
                replies = reply;
            } else {
                memmove(replies_end, reply, size);
                reply = replies_end;
            }
            replies_end = reply + size;
        }
        if (wrong) break;
    }
    if (replies && !send_bytes(fd, &c->out, replies, replies_end - replies)) return -1;
    *next = frame.whole;
    return wrong ? -1 : at - data;
}

// Takes what is whole of what arrived at the front of the connection's input.
static ptrdiff_t take(int fd, struct connection *c, unsigned char *data, size_t len, size_t *next) {
    *next = 0;
    if (c->upgraded) return take_frames(fd, c, data, len, next);
    unsigned char *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end) return len > MAX_HEAD ? -1 : 0;
    char response[MAX_RESPONSE];
    size_t size = accept_request((char *)data, end - data, response);
    if (!size || !send_bytes(fd, &c->out, response, size)) return -1;
    c->upgraded = true;
    size_t head = end + 4 - data;
    ptrdiff_t taken = take_frames(fd, c, data + head, len - head, next);
    return taken < 0 ? -1 : (ptrdiff_t)head + taken;
}

// Keeps what was not taken, with room for the rest of the frame where its size is known.
static void keep(struct connection *c, const unsigned char *data, size_t len, size_t whole) {
    c->whole = whole;
    if (whole > len) buffer_reserve(&c->in, whole);
    buffer_append(&c->in, data, len);
}

// One read: the rest of the frame that was kept goes behind it, and what follows into the shared buffer. False to
// close.
static bool read_once(int fd, struct connection *c) {
    struct iovec room[2] = {{NULL, 0}, {read_buffer, READ_SIZE}};
    if (c->in && c->whole) room[0] = (struct iovec){c->in->data + c->in->len, c->whole - c->in->len};
    ssize_t n = room[0].iov_len ? readv(fd, room, 2) : read(fd, read_buffer, READ_SIZE);
    if (n == 0) return false;
    if (n < 0) {
        if (errno == EAGAIN) c->unread = false;
        return errno == EAGAIN || errno == EINTR;
    }
    if ((size_t)n < room[0].iov_len + READ_SIZE && !c->ended) c->unread = false;
    size_t kept = (size_t)n < room[0].iov_len ? (size_t)n : room[0].iov_len, rest = n - kept, next;
    if (c->in) {
        struct buffer *in = c->in;
        in->len += kept;
        if (c->whole && in->len < c->whole) return true;
        if (!c->whole) {
            buffer_append(&c->in, read_buffer, rest);
            in = c->in;
            rest = 0;
        }
        c->in = NULL;
        ptrdiff_t taken = take(fd, c, in->data, in->len, &next);
        if (taken >= 0 && (size_t)taken < in->len) keep(c, in->data + taken, in->len - taken, next);
        buffer_free(&in);
        if (taken < 0) return false;
    }
    if (!rest) return true;
    ptrdiff_t taken = take(fd, c, read_buffer, rest, &next);
    if (taken < 0) return false;
    if ((size_t)taken < rest) keep(c, read_buffer + taken, rest - taken, next);
    return true;
}

// While replies wait, reading waits too: the socket's own buffers then slow the sender down. A room's members are
// read whatever waits for them.
static bool ready(int fd, bool readable, bool ended) {
    struct connection *c = &connections[fd];
    c->unread |= readable;
    c->ended |= ended;
    while ((flush(fd, &c->out) || is_room) && c->unread) {
        if (!read_once(fd, c)) return false;
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

enum { MAX_IOVECS = 1024 };

// One gathering write of the stretches between the speaker's own runs; returns what was taken, -1 when it is gone.
static ptrdiff_t write_others(int fd) {
    struct iovec vectors[MAX_IOVECS];
    int count = 0;
    bool joined = false;
    for (size_t i = 0; i < runs_len; i++) {
        if (runs[i].speaker == fd) {
            joined = false;
        } else if (joined) {
            vectors[count - 1].iov_len += runs[i].len;
        } else {
            if (count == MAX_IOVECS) break; // the caller queues the rest
            vectors[count++] = (struct iovec){log_data + runs[i].start, runs[i].len};
            joined = true;
        }
    }
    for (;;) {
        ssize_t n = count ? writev(fd, vectors, count) : 0;
        if (n >= 0) return n;
        if (errno == EAGAIN) return 0;
        if (errno != EINTR) return -1;
    }
}

static void room_turn_ends(int top) {
    if (!log_len) return;
    for (int fd = 0; fd < top; fd++) {
        struct connection *c = &connections[fd];
        if (!c->open || !c->upgraded) continue;
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

static const struct service echo = {.opened = opened, .ready = ready, .closed = closed};
static const struct service room = {
    .opened = opened, .ready = ready, .closed = closed, .turn_ends = room_turn_ends};

const struct service *choose(const struct arguments *arguments) {
    if (!strcmp(arguments->mode, "ws-echo")) return &echo;
    is_room = !strcmp(arguments->mode, "ws-chat");
    return is_room ? &room : NULL;
}
