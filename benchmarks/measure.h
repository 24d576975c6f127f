/* What the small C programs here share: clocks, order statistics, a namespace to enter, a listener.
   Each reads commands, one a line, from its standard input and answers each with one line of numbers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 65535 /* of the listener: nobody accepts, so it has to hold every connection of a run */
#define FIRST_PORT 7000
#define MOST_PORTS 64

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static uint64_t thread_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
static uint64_t cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* As many descriptors as may be had; root may have more than the limit. */
static void want_files(rlim_t n) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < n) {
        struct rlimit higher = {n, n};
        if (setrlimit(RLIMIT_NOFILE, &higher) == 0)
            return;
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void enter_one(const char *pid, const char *kind, int type) {
    char theirs[64], ours[64];
    struct stat a, b;
    snprintf(theirs, sizeof theirs, "/proc/%s/ns/%s", pid, kind);
    snprintf(ours, sizeof ours, "/proc/self/ns/%s", kind);
    if (stat(theirs, &a) || stat(ours, &b))
        fail(theirs);
    if (a.st_ino == b.st_ino) /* entering one's own user namespace is an error */
        return;
    int fd = open(theirs, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, type))
        fail(theirs);
    close(fd);
}

/* The user and network namespace of another process. */
static void enter_namespace(const char *pid) {
    enter_one(pid, "user", CLONE_NEWUSER);
    enter_one(pid, "net", CLONE_NEWNET);
}

static struct sockaddr_in ipv4(uint32_t address, uint16_t port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
    return a;
}

static uint32_t address_of(const char *text) {
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1) {
        errno = EINVAL;
        fail(text);
    }
    return ntohl(a.s_addr);
}

static int listeners[MOST_PORTS], listener_count;

static void open_listeners(int ports) {
    for (listener_count = 0; listener_count < ports; listener_count++) {
        struct sockaddr_in a = ipv4(INADDR_ANY, FIRST_PORT + listener_count);
        int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (void *)&a, sizeof a) || listen(fd, BACKLOG))
            fail("listen");
        listeners[listener_count] = fd;
    }
}

static void close_listeners(void) {
    while (listener_count)
        close(listeners[--listener_count]);
}
