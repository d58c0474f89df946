// UDP echo: batched receives through UV_UDP_RECVMMSG; this version of the API has no batched send.
#include "server.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 20, DATAGRAM = 1 << 16 }; // libuv takes up to 20 datagrams of 64 KiB for each recvmmsg

static char batch_buffer[BATCH * DATAGRAM];

static void lend_batch(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)handle, (void)suggested;
    *buf = uv_buf_init(batch_buffer, sizeof batch_buffer);
}

static void free_send(uv_udp_send_t *request, int status) {
    (void)status;
    free(request);
}

static void on_datagram(uv_udp_t *udp, ssize_t len, const uv_buf_t *buf, const struct sockaddr *peer, unsigned flags) {
    (void)flags;
    if (len < 0 || !peer) return; // nothing more for now, or the batch's buffer comes back
    uv_buf_t reply = uv_buf_init(buf->base, len);
    if (uv_udp_try_send(udp, &reply, 1, peer) != UV_EAGAIN) return;
    uv_udp_send_t *request = malloc(sizeof *request + len);
    if (!request) die("malloc", UV_ENOMEM);
    reply.base = memcpy(request + 1, buf->base, len);
    if (uv_udp_send(request, udp, &reply, 1, peer, free_send) < 0) free(request);
}

void serve_udp(uv_loop_t *loop, const struct sockaddr *addr) {
    static uv_udp_t udp;
    int status = uv_udp_init_ex(loop, &udp, AF_INET | UV_UDP_RECVMMSG);
    if (status == 0) status = uv_udp_bind(&udp, addr, 0);
    if (status == 0) status = uv_udp_recv_start(&udp, lend_batch, on_datagram);
    if (status < 0) die("udp", status);
    struct sockaddr_storage bound;
    int len = sizeof bound;
    uv_udp_getsockname(&udp, (struct sockaddr *)&bound, &len);
    announce(&bound);
}
