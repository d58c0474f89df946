// Arguments, and the few calls that every service uses.
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// On a page of its own: reads of 256 KiB into a buffer that starts 16 bytes into one, as a large malloc does, cost
// 6 to 50 % more CPU, by the machine.
_Alignas(4096) char read_buffer[READ_SIZE];

void die(const char *what) {
    perror(what);
    exit(1);
}

void announce(int fd) {
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    char text[INET_ADDRSTRLEN];
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) die("getsockname");
    inet_ntop(AF_INET, &addr.sin_addr, text, sizeof text);
    printf("ready %s:%d\n", text, ntohs(addr.sin_port));
    fflush(stdout);
}

void buffer_append(struct buffer **slot, const char *data, size_t len) {
    struct buffer *b = *slot;
    if (len == 0) return;
    if (!b || b->start + b->len + len > b->capacity) {
        size_t need = (b ? b->len : 0) + len, capacity = 64;
        while (capacity < need) capacity *= 2;
        struct buffer *grown = malloc(sizeof *grown + capacity);
        if (!grown) die("malloc");
        *grown = (struct buffer){.capacity = capacity, .len = b ? b->len : 0};
        if (b) memcpy(grown->data, b->data + b->start, b->len);
        free(b);
        *slot = b = grown;
    }
    memcpy(b->data + b->start + b->len, data, len);
    b->len += len;
}

void buffer_free(struct buffer **slot) {
    free(*slot);
    *slot = NULL;
}

ptrdiff_t write_some(int fd, const char *data, size_t len) {
    for (;;) {
        ssize_t n = write(fd, data, len);
        if (n >= 0) return n;
        if (errno == EAGAIN) return 0;
        if (errno != EINTR) return -1;
    }
}

ptrdiff_t read_some(int fd) {
    for (;;) {
        ssize_t n = read(fd, read_buffer, READ_SIZE);
        if (n >= 0) return n;
        if (errno == EAGAIN) return -1;
        if (errno != EINTR) return 0;
    }
}

bool flush(int fd, struct buffer **slot) {
    struct buffer *b = *slot;
    while (b && b->len) {
        ptrdiff_t n = write_some(fd, b->data + b->start, b->len);
        if (n == 0) return false;
        if (n < 0) break;
        b->start += n;
        b->len -= n;
    }
    if (b) buffer_free(slot);
    return true;
}

int main(int argc, char **argv) {
    const char *mode = NULL;
    struct sockaddr_in addr = {.sin_family = AF_INET};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--mode")) {
            mode = argv[i + 1];
        } else if (!strcmp(argv[i], "--addr")) {
            char *colon = strchr(argv[i + 1], ':');
            if (!colon) break;
            *colon = 0;
            inet_pton(AF_INET, argv[i + 1], &addr.sin_addr);
            addr.sin_port = htons(atoi(colon + 1));
        }
    }
    signal(SIGPIPE, SIG_IGN);
    if (mode && !strcmp(mode, "echo")) serve_tcp(&addr, &echo_service);
    if (mode && !strcmp(mode, "sink")) serve_tcp(&addr, &sink_service);
    if (mode && !strcmp(mode, "chat")) serve_tcp(&addr, &chat_service);
    if (mode && (!strcmp(mode, "udp") || !strcmp(mode, "train"))) serve_udp(&addr);
    fprintf(stderr, "usage: epoll --mode echo|chat|udp|train|sink --addr IP:PORT\n");
    return 2;
}
