// UDP echo: one recvmmsg and one sendmmsg for each batch.
#include "server.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    BATCH = 64,
    DATAGRAM = 1 << 16, // the largest there is, so that nothing is ever cut; only touched pages cost memory
};

static char data[BATCH][DATAGRAM];
static struct sockaddr_in peers[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

// Sends messages[from..count]; returns how far it came before the socket was full.
static int send_batch(int fd, int from, int count) {
    while (from < count) {
        int n = sendmmsg(fd, messages + from, count - from, 0);
        if (n > 0) {
            from += n;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            from++; // the first one was refused (an unreachable peer): datagrams may be lost, the socket lives on
        }
    }
    return from;
}

static int receive_batch(int fd) {
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_len = DATAGRAM;
        messages[i].msg_hdr.msg_namelen = sizeof peers[i];
    }
    for (;;) {
        int n = recvmmsg(fd, messages, BATCH, 0, NULL);
        if (n >= 0) {
            for (int i = 0; i < n; i++) vectors[i].iov_len = messages[i].msg_len;
            return n;
        }
        if (errno == EAGAIN) return 0;
        if (errno != EINTR && errno != ECONNREFUSED) die("recvmmsg");
    }
}

void serve_udp(const struct sockaddr_in *addr) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0) die("bind");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_base = data[i];
        messages[i].msg_hdr.msg_name = &peers[i];
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    announce(fd);
    int sent = 0, count = 0;
    bool unread = false;
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR) die("epoll_wait");
        if (event.events & (EPOLLIN | EPOLLERR)) unread = true;
        for (;;) {
            sent = send_batch(fd, sent, count);
            if (sent < count || !unread) break;
            sent = 0;
            count = receive_batch(fd);
            if (count < BATCH) unread = false; // a short batch is a drained socket
        }
    }
}
