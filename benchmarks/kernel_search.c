/* What the kernel's search for a local port costs: connect() of a socket in TCP_REPAIR sends nothing.

   kernel_search PID DADDR DPORT          in the namespaces of process PID, as root of its user namespace

   fill N LOW HIGH       N more sockets connect and stay; LOW 0: plainly, else with IP_LOCAL_PORT_RANGE   -> N that did
   search N LOW HIGH     N connects, each closed again       -> median ns, 95th percentile ns, how many were refused
   bound N PORT          the same with the port bound before: all of connect() but the search
   trivial N             getppid(), for comparison

   Times are CPU times: a search of milliseconds is often interrupted.  Reading the clock once is in all of them.
   Sockets that stay are held by child processes, as one process may have too few descriptors. */
#include "measure.h"

#include <netinet/tcp.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#define HELD_BY_ONE 15000
#define MOST_HOLDERS 8

struct order {
    uint32_t count, low, high;
};

static struct sockaddr_in peer;
static struct { int ask, answer, held; } holders[MOST_HOLDERS];
static int holder_count;

static int new_socket(uint32_t low, uint32_t high) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    uint32_t range = high << 16 | low;
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on))
        fail("TCP_REPAIR");
    if (low && setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof range))
        fail("IP_LOCAL_PORT_RANGE");
    return fd;
}

static void hold(int ask, int answer) {
    struct order order;
    while (read(ask, &order, sizeof order) == sizeof order) {
        uint32_t done = 0;
        while (done < order.count && !connect(new_socket(order.low, order.high), (void *)&peer, sizeof peer))
            done++;
        if (write(answer, &done, sizeof done) < 0)
            break;
    }
    _exit(0);
}

static void new_holder(void) {
    int down[2], up[2];
    if (holder_count == MOST_HOLDERS || pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC))
        fail("holders");
    int pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid == 0) {
        close(down[1]);
        for (int i = 0; i < holder_count; i++) /* or the older ones would never see the end of their pipe */
            close(holders[i].ask);
        hold(down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    holders[holder_count].ask = down[1];
    holders[holder_count].answer = up[0];
    holders[holder_count++].held = 0;
}

static uint32_t fill(uint32_t n, uint32_t low, uint32_t high) {
    uint32_t total = 0;
    while (total < n) {
        if (!holder_count || holders[holder_count - 1].held == HELD_BY_ONE)
            new_holder();
        struct order order = {n - total, low, high};
        uint32_t done = 0, room = HELD_BY_ONE - holders[holder_count - 1].held;
        if (order.count > room)
            order.count = room;
        if (write(holders[holder_count - 1].ask, &order, sizeof order) < 0 ||
            read(holders[holder_count - 1].answer, &done, sizeof done) != sizeof done)
            fail("holder");
        holders[holder_count - 1].held += done;
        total += done;
        if (done < order.count)
            break;
    }
    return total;
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print(uint64_t *took, uint32_t n, uint32_t refused) {
    qsort(took, n, sizeof *took, by_size);
    printf("%lu %lu %u\n", took[n / 2], took[n - 1 - n / 20], refused);
}

/* Each call by itself between two readings of the clock; making and closing the socket is outside. */
static void search(uint32_t n, uint32_t low, uint32_t high, uint16_t bound) {
    uint64_t *took = calloc(n, sizeof *took);
    uint32_t refused = 0;
    for (uint32_t i = 0; i < n; i++) {
        int fd = new_socket(low, high);
        struct sockaddr_in own = ipv4(INADDR_ANY, bound);
        if (bound && bind(fd, (void *)&own, sizeof own))
            fail("bind");
        uint64_t start = thread_ns();
        int failed = connect(fd, (void *)&peer, sizeof peer);
        took[i] = thread_ns() - start;
        if (failed && errno != EADDRNOTAVAIL)
            fail("connect");
        refused += failed != 0;
        close(fd);
    }
    print(took, n, refused);
    free(took);
}

static void trivial(uint32_t n) {
    uint64_t *took = calloc(n, sizeof *took);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = thread_ns();
        syscall(SYS_getppid);
        took[i] = thread_ns() - start;
    }
    print(took, n, 0);
    free(took);
}

int main(int argc, char **argv) {
    char line[256], what[16];
    uint32_t n, a, b;
    if (argc != 4)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    want_files(HELD_BY_ONE + 64);
    enter_namespace(argv[1]);
    peer = ipv4(address_of(argv[2]), atoi(argv[3]));
    while (fgets(line, sizeof line, stdin)) {
        n = a = b = 0;
        sscanf(line, "%15s %u %u %u", what, &n, &a, &b);
        if (!strcmp(what, "fill"))
            printf("%u\n", fill(n, a, b));
        else if (!strcmp(what, "search"))
            search(n, a, b, 0);
        else if (!strcmp(what, "bound"))
            search(n, 0, 0, a);
        else if (!strcmp(what, "trivial"))
            trivial(n);
        else
            return 2;
    }
    while (holder_count)
        close(holders[--holder_count].ask);
    while (wait(NULL) > 0) /* their sockets are gone when we are */
        ;
    return 0;
}
