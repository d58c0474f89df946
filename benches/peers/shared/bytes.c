// Bytes that wait, and a room's log.
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void buffer_reserve(struct buffer **slot, size_t more) {
    struct buffer *b = *slot;
    if (b && b->start + b->len + more <= b->capacity) return;
    size_t need = (b ? b->len : 0) + more, capacity = 64;
    while (capacity < need) capacity *= 2;
    struct buffer *grown = malloc(sizeof *grown + capacity);
    if (!grown) die("malloc");
    *grown = (struct buffer){.capacity = capacity, .len = b ? b->len : 0};
    if (b) memcpy(grown->data, b->data + b->start, b->len);
    free(b);
    *slot = grown;
}

void buffer_append(struct buffer **slot, const void *data, size_t len) {
    if (len == 0) return;
    buffer_reserve(slot, len);
    memcpy((*slot)->data + (*slot)->start + (*slot)->len, data, len);
    (*slot)->len += len;
}

void buffer_free(struct buffer **slot) {
    free(*slot);
    *slot = NULL;
}

ptrdiff_t write_some(int fd, const void *data, size_t len) {
    for (;;) {
        ssize_t n = write(fd, data, len);
        if (n >= 0) return n;
        if (errno == EAGAIN) return 0;
        if (errno != EINTR) return -1;
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

bool send_bytes(int fd, struct buffer **slot, const void *data, size_t len) {
    ptrdiff_t written = *slot ? 0 : write_some(fd, data, len);
    if (written < 0) return false;
    buffer_append(slot, (const unsigned char *)data + written, len - written);
    return true;
}

unsigned char *log_data;
size_t log_len, runs_len;
struct run *runs;
static size_t log_capacity, runs_capacity;

void log_append(int speaker, const void *data, size_t len) {
    if (log_len + len > log_capacity) {
        while (log_len + len > log_capacity) log_capacity = log_capacity ? log_capacity * 2 : 1 << 16;
        log_data = realloc(log_data, log_capacity);
        if (!log_data) die("realloc");
    }
    memcpy(log_data + log_len, data, len);
    if (runs_len && runs[runs_len - 1].speaker == speaker) {
        runs[runs_len - 1].len += len;
    } else {
        if (runs_len == runs_capacity) {
            runs_capacity = runs_capacity ? runs_capacity * 2 : 64;
            runs = realloc(runs, runs_capacity * sizeof *runs);
            if (!runs) die("realloc");
        }
        runs[runs_len++] = (struct run){speaker, log_len, len};
    }
    log_len += len;
}

void log_clear(void) {
    log_len = runs_len = 0;
}
