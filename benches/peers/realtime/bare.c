// The honest limit of a wait: ppoll(2) with nothing to wait for but time. What it is late by is the system's.
//
//     bare wait MICROSECONDS COUNT    so many waits, each from when the last one ended
//     bare tick SECONDS               a loop with 60 ticks a second that does nothing else
//
// Prints how late it was, in microseconds: `waits 500 late_us p50 53.1 p99 80.0 max 120.4` (`ticks` for the other).
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void wait_until(long long deadline) {
    long long left;
    while ((left = deadline - now()) > 0) {
        struct timespec t = {left / 1000000000, left % 1000000000};
        if (ppoll(NULL, 0, &t, NULL) < 0 && errno != EINTR) {
            perror("ppoll");
            exit(1);
        }
    }
}

static int by_size(const void *a, const void *b) {
    long long x = *(const long long *)a, y = *(const long long *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    int ticks = argc == 3 && !strcmp(argv[1], "tick"), waits = argc == 4 && !strcmp(argv[1], "wait");
    long long period = ticks ? 1000000000 / 60 : waits ? atoll(argv[2]) * 1000 : 0;
    long count = ticks ? atol(argv[2]) * 60 : waits ? atol(argv[3]) : 0;
    if (count <= 0 || period <= 0) {
        fprintf(stderr, "usage: bare wait MICROSECONDS COUNT | bare tick SECONDS\n");
        return 2;
    }
    long long *late = malloc(count * sizeof *late);
    if (!late) return 1;
    long long due = now();
    for (long n = 0; n < count; n++) {
        due = (ticks ? due : now()) + period;
        wait_until(due);
        late[n] = now() - due;
    }
    qsort(late, count, sizeof *late, by_size);
    printf("%s %ld late_us p50 %.1f p99 %.1f max %.1f\n", ticks ? "ticks" : "waits", count,
           late[(count - 1) / 2] / 1e3, late[(count - 1) * 99 / 100] / 1e3, late[count - 1] / 1e3);
    return 0;
}
