// What examples/feed does, by hand on epoll: frames of publishers to all subscribers, one write for each of them and
// read. Without the newest values only: what a subscriber does not take is kept for it, however much.
//
//     relay    prints both addresses as the example does: 127.0.0.1, ports that the system chooses
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SYMBOLS = 10000, LONGEST = 1024, CONNECTIONS = 4096, READ = 256 * 1024 };
enum kind { NONE, PUBLISHERS, SUBSCRIBERS, PUBLISHER, SUBSCRIBER };

static struct connection {
    enum kind kind;
    char *out; // what the socket has not taken
    size_t out_len;
} connections[CONNECTIONS];
static struct { uint16_t len; char bytes[LONGEST + 2]; } newest[SYMBOLS];
static char buffer[READ];
static struct { size_t len; char bytes[LONGEST + 2]; } rests[CONNECTIONS]; // a frame that is not complete
static int poll_fd, top;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd, enum kind kind) {
    if (fd >= CONNECTIONS) die("too many connections");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    connections[fd] = (struct connection){.kind = kind};
    rests[fd].len = 0;
    if (fd >= top) top = fd + 1;
}

static void listen_for(enum kind kind, const char *what) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (void *)&at, len) < 0 || listen(fd, 1024) < 0) die("listen");
    if (getsockname(fd, (void *)&at, &len) < 0) die("getsockname");
    watch(fd, kind);
    printf("relay: listening on 127.0.0.1:%d, %s\n", ntohs(at.sin_port), what);
    fflush(stdout);
}

static void drop(int fd) {
    free(connections[fd].out);
    connections[fd] = (struct connection){0};
    close(fd);
}

static void keep(struct connection *c, const char *bytes, size_t len) {
    if (!len) return;
    c->out = realloc(c->out, c->out_len + len);
    if (!c->out) die("realloc");
    memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len;
}

static void send_to(int fd, const char *bytes, size_t len) {
    struct connection *c = &connections[fd];
    size_t taken = 0;
    while (!c->out_len && taken < len) {
        ssize_t n = write(fd, bytes + taken, len - taken);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break; // full; a broken one shows on the read side
        taken += n;
    }
    keep(c, bytes + taken, len - taken);
}

static void flush(int fd) {
    struct connection *c = &connections[fd];
    char *out = c->out;
    size_t len = c->out_len;
    c->out = NULL;
    c->out_len = 0;
    send_to(fd, out, len);
    free(out);
}

static void accept_all(int listener, enum kind kind) {
    int fd, on = 1, low = 2048;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd, kind);
        if (kind != SUBSCRIBER) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low, sizeof low);
        char *all = malloc(sizeof newest);
        size_t len = 0;
        for (int n = 0; all && n < SYMBOLS; n++) {
            memcpy(all + len, newest[n].bytes, newest[n].len);
            len += newest[n].len;
        }
        send_to(fd, all, len);
        free(all);
    }
}

// The whole frames at the beginning of `bytes`: each is noted. Returns their length, or -1 for what is no frame.
static ssize_t whole_frames(const char *bytes, size_t len) {
    size_t at = 0;
    while (len - at >= 2) {
        size_t body = (unsigned char)bytes[at] << 8 | (unsigned char)bytes[at + 1];
        if (body < 4 || body > LONGEST) return -1;
        if (len - at < body + 2) break;
        uint32_t symbol;
        memcpy(&symbol, bytes + at + 2, 4);
        symbol = ntohl(symbol);
        if (symbol >= SYMBOLS) return -1;
        newest[symbol].len = body + 2;
        memcpy(newest[symbol].bytes, bytes + at, body + 2);
        at += body + 2;
    }
    return at;
}

static void relay(int fd, int ended) {
    for (;;) {
        size_t before = rests[fd].len;
        memcpy(buffer, rests[fd].bytes, before);
        ssize_t n = read(fd, buffer + before, READ - before);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        ssize_t whole = n > 0 ? whole_frames(buffer, before + n) : -1;
        if (whole < 0) return drop(fd);
        for (int to = 0; whole && to < top; to++) {
            if (connections[to].kind == SUBSCRIBER) send_to(to, buffer, whole);
        }
        rests[fd].len = before + n - whole;
        memcpy(rests[fd].bytes, buffer + whole, rests[fd].len);
        if (before + n < READ && !ended) return; // drained
    }
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    poll_fd = epoll_create1(0);
    listen_for(PUBLISHERS, "publishers");
    listen_for(SUBSCRIBERS, "subscribers");
    for (;;) {
        struct epoll_event events[1024];
        int n = epoll_wait(poll_fd, events, 1024, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            uint32_t what = events[i].events;
            switch (connections[fd].kind) {
            case PUBLISHERS: accept_all(fd, PUBLISHER); break;
            case SUBSCRIBERS: accept_all(fd, SUBSCRIBER); break;
            case PUBLISHER:
                if (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) relay(fd, what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
                break;
            case SUBSCRIBER:
                if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) drop(fd);
                else if (what & EPOLLOUT) flush(fd);
                break;
            case NONE: break;
            }
        }
    }
}
