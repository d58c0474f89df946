// Arguments and start.
#include "server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mode = "";
_Alignas(4096) char read_buffer[READ_SIZE]; // see the epoll peer

void die(const char *what, int status) {
    fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
    exit(1);
}

void announce(const struct sockaddr_storage *addr) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    char text[INET_ADDRSTRLEN];
    uv_ip4_name(in, text, sizeof text);
    printf("ready %s:%d\n", text, ntohs(in->sin_port));
    fflush(stdout);
}

// One buffer serves all: it is free again when the read callback returns.
void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)handle, (void)suggested;
    *buf = uv_buf_init(read_buffer, READ_SIZE);
}

int main(int argc, char **argv) {
    struct sockaddr_in addr;
    uv_ip4_addr("127.0.0.1", 0, &addr);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--mode")) {
            mode = argv[i + 1];
        } else if (!strcmp(argv[i], "--addr")) {
            char *colon = strchr(argv[i + 1], ':');
            if (!colon) break;
            *colon = 0;
            uv_ip4_addr(argv[i + 1], atoi(colon + 1), &addr);
        }
    }
    signal(SIGPIPE, SIG_IGN);
    uv_loop_t *loop = uv_default_loop();
    if (!strcmp(mode, "udp") || !strcmp(mode, "train")) {
        serve_udp(loop, (struct sockaddr *)&addr);
    } else if (!strcmp(mode, "echo") || !strcmp(mode, "chat") || !strcmp(mode, "sink")) {
        serve_tcp(loop, (struct sockaddr *)&addr);
    } else {
        fprintf(stderr, "usage: libuv --mode echo|chat|udp|train|sink --addr IP:PORT\n");
        return 2;
    }
    return uv_run(loop, UV_RUN_DEFAULT);
}
