// The TCP loop, and the two services that concern one connection at a time.
#include "server.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct connection connections[MAX_CONNECTIONS];
static int top; // above the largest descriptor that was ever a connection

static void accept_all(int epoll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0 && errno == EAGAIN) return;
        if (fd < 0) die("accept4");
        if (fd >= MAX_CONNECTIONS) {
            close(fd);
            continue;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[fd] = (struct connection){.open = true};
        if (fd >= top) top = fd + 1;
        // Registered once for everything: an edge costs nothing while nobody waits for it, and no epoll_ctl follows.
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

static void close_connection(int fd) {
    buffer_free(&connections[fd].out);
    buffer_free(&connections[fd].line);
    connections[fd].open = false;
    close(fd);
}

void serve_tcp(const struct sockaddr_in *addr, const struct service *service) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (listener < 0) die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (const struct sockaddr *)addr, sizeof *addr) < 0) die("bind");
    if (listen(listener, 4096) < 0) die("listen");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[MAX_EVENTS], event = {.events = EPOLLIN | EPOLLET, .data.fd = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");
    announce(listener);
    for (;;) {
        int n = epoll_wait(epoll, events, MAX_EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(epoll, listener);
                continue;
            }
            // A connection closes only on its own event, and has one a turn: no event here can be stale.
            struct connection *c = &connections[fd];
            if (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) c->ended = true;
            if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) c->unread = true;
            if (!service->ready(fd, c)) close_connection(fd);
        }
        if (service->turn_ends) service->turn_ends(connections, top);
    }
}

// While replies wait, reading waits too: the socket's own buffers then slow the sender down.
static bool echo_ready(int fd, struct connection *c) {
    while (flush(fd, &c->out) && c->unread) {
        ptrdiff_t n = read_some(fd);
        if (n == 0) return false;
        if (n < READ_SIZE && !(n > 0 && c->ended)) c->unread = false;
        if (n < 0) break;
        ptrdiff_t written = write_some(fd, read_buffer, n);
        if (written < 0) return false;
        buffer_append(&c->out, read_buffer + written, n - written);
    }
    return true;
}

static bool sink_ready(int fd, struct connection *c) {
    while (c->unread) {
        ptrdiff_t n = read_some(fd);
        if (n == 0) {
            // Nothing was sent before, so these eight bytes always fit.
            uint64_t count = htole64(c->received);
            write_some(fd, (const char *)&count, sizeof count);
            return false;
        }
        if (n < READ_SIZE && !(n > 0 && c->ended)) c->unread = false;
        if (n > 0) c->received += n;
    }
    return true;
}

const struct service echo_service = {.ready = echo_ready};
const struct service sink_service = {.ready = sink_ready};
