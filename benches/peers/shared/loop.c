// The epoll loop: each socket registered once for both directions, edge-triggered.
#include "loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

_Alignas(4096) unsigned char read_buffer[READ_SIZE];

static int top; // above the largest descriptor that was ever a connection

void die(const char *what) {
    perror(what);
    exit(1);
}

static void announce(int fd) {
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    char text[INET_ADDRSTRLEN];
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) die("getsockname");
    inet_ntop(AF_INET, &addr.sin_addr, text, sizeof text);
    printf("ready %s:%d\n", text, ntohs(addr.sin_port));
    fflush(stdout);
}

static void accept_all(int epoll, int listener, const struct service *service) {
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
        if (fd >= top) top = fd + 1;
        service->opened(fd);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

static void serve(const struct sockaddr_in *addr, const struct service *service) {
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
                accept_all(epoll, listener, service);
                continue;
            }
            // A connection closes only on its own event, and has one a turn: no event here can be stale.
            bool ended = events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
            if (!service->ready(fd, ended || events[i].events & EPOLLIN, ended)) {
                service->closed(fd);
                close(fd);
            }
        }
        if (service->turn_ends) service->turn_ends(top);
    }
}

int main(int argc, char **argv) {
    struct arguments arguments = {0};
    struct sockaddr_in addr = {.sin_family = AF_INET};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--mode")) {
            arguments.mode = argv[i + 1];
        } else if (!strcmp(argv[i], "--cert")) {
            arguments.cert = argv[i + 1];
        } else if (!strcmp(argv[i], "--key")) {
            arguments.key = argv[i + 1];
        } else if (!strcmp(argv[i], "--addr")) {
            char *colon = strchr(argv[i + 1], ':');
            if (!colon) break;
            *colon = 0;
            inet_pton(AF_INET, argv[i + 1], &addr.sin_addr);
            addr.sin_port = htons(atoi(colon + 1));
        }
    }
    signal(SIGPIPE, SIG_IGN);
    const struct service *service = arguments.mode ? choose(&arguments) : NULL;
    if (service) serve(&addr, service);
    fprintf(stderr, "usage: --mode MODE --addr IP:PORT [--cert FILE --key FILE]\n");
    return 2;
}
