// Chat: the lines of a loop iteration are collected and leave after its events, one write for each member.
#include "server.h"

#include <stdlib.h>
#include <string.h>

// A run of bytes in the log by one speaker, who is the only one that must not get it.
struct run {
    struct connection *speaker;
    size_t start, len;
};

static struct connection members = {.prev = &members, .next = &members};
static char *log_data;
static size_t log_len, log_capacity;
static struct run *runs;
static uv_buf_t *bufs; // as many as runs
static size_t runs_len, runs_capacity;

static void log_append(struct connection *speaker, const char *data, size_t len) {
    if (log_len + len > log_capacity) {
        while (log_len + len > log_capacity) log_capacity = log_capacity ? log_capacity * 2 : 1 << 16;
        log_data = realloc(log_data, log_capacity);
        if (!log_data) die("realloc", UV_ENOMEM);
    }
    memcpy(log_data + log_len, data, len);
    if (runs_len && runs[runs_len - 1].speaker == speaker) {
        runs[runs_len - 1].len += len;
    } else {
        if (runs_len == runs_capacity) {
            runs_capacity = runs_capacity ? runs_capacity * 2 : 64;
            runs = realloc(runs, runs_capacity * sizeof *runs);
            bufs = realloc(bufs, runs_capacity * sizeof *bufs);
            if (!runs || !bufs) die("realloc", UV_ENOMEM);
        }
        runs[runs_len++] = (struct run){speaker, log_len, len};
    }
    log_len += len;
}

// Runs right after the poll: all lines of the iteration are in.
static void after_events(uv_check_t *check) {
    (void)check;
    if (!log_len) return;
    for (struct connection *c = members.next; c != &members; c = c->next) {
        unsigned count = 0;
        if (!c->spoke) {
            bufs[count++] = uv_buf_init(log_data, log_len);
        } else {
            for (size_t i = 0; i < runs_len; i++) {
                if (runs[i].speaker != c) bufs[count++] = uv_buf_init(log_data + runs[i].start, runs[i].len);
            }
        }
        if (count) write_all(c, bufs, count, free_write);
        c->spoke = false;
    }
    log_len = runs_len = 0;
}

void chat_start(uv_loop_t *loop) {
    static uv_check_t check;
    uv_check_init(loop, &check);
    uv_check_start(&check, after_events);
}

void chat_join(struct connection *c) {
    c->prev = members.prev;
    c->next = &members;
    c->prev->next = c->next->prev = c;
}

void chat_leave(struct connection *c) {
    if (!c->next) return;
    c->prev->next = c->next;
    c->next->prev = c->prev;
    c->prev = c->next = NULL;
}

void chat_data(struct connection *c, const char *data, size_t len) {
    const char *last = memrchr(data, '\n', len);
    size_t whole = last ? (size_t)(last + 1 - data) : 0;
    if (whole) {
        if (c->line_len) log_append(c, c->line, c->line_len);
        log_append(c, data, whole);
        free(c->line);
        c->line = NULL;
        c->line_len = 0;
        c->spoke = true;
    }
    if (whole < len) {
        c->line = realloc(c->line, c->line_len + len - whole);
        if (!c->line) die("realloc", UV_ENOMEM);
        memcpy(c->line + c->line_len, data + whole, len - whole);
        c->line_len += len - whole;
    }
}
