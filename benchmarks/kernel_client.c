/* The kernel's own client as a C program can use it best: non-blocking connect() over a veth pair to another namespace.

   kernel_client                makes two private network namespaces (and a user namespace, unless it is root)
   run N WINDOW PORTS           N handshakes, looked after by poll(2) every WINDOW; then all end by RST
                                -> ns, CPU ns, how many were established
   listen PORTS                 -> 1       for `hold`, and for other programs that enter this one's namespace
   hold N WINDOW PORTS RANGE    the same as run, but they stay; RANGE 1: each socket has IP_LOCAL_PORT_RANGE
   release                      -> 1       the listeners are closed, and what is held ends by RST

   The listener is in the other namespace; nobody accepts.  What is held is held by child processes, one after the other,
   as one process may have too few descriptors. */
#include "measure.h"

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#define OWN_RANGE (60999u << 16 | 32768u) /* the default range, as the socket's own */
#define HELD_BY_ONE 18000
#define MOST_HOLDERS 8
#define MOST_WINDOW 1024
#define NEAR 0x0a4d0001u /* 10.77.0.1/16 */
#define FAR 0x0a4d0002u

static int near_fd, far_fd;

static void write_file(const char *path, const char *text, int needed) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        if (needed)
            fail(path);
    }
    if (fd >= 0)
        close(fd);
}

static void become_root_of_a_user_namespace(void) {
    char map[64];
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWUSER))
        fail("unshare");
    write_file("/proc/self/setgroups", "deny", 0);
    snprintf(map, sizeof map, "0 %u 1", uid);
    write_file("/proc/self/uid_map", map, 1);
    snprintf(map, sizeof map, "0 %u 1", gid);
    write_file("/proc/self/gid_map", map, 1);
}

static int new_namespace(void) {
    int fd;
    if (unshare(CLONE_NEWNET) || (fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0)
        fail("unshare");
    write_file("/proc/sys/net/core/somaxconn", "65535", 1);
    write_file("/proc/sys/net/ipv4/tcp_max_syn_backlog", "65535", 1);
    write_file("/proc/sys/net/ipv4/tcp_syncookies", "0", 1);
    write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", 0);
    return fd;
}

static void enter(int fd) {
    if (setns(fd, CLONE_NEWNET))
        fail("setns");
}

static struct rtattr *begin_attribute(struct nlmsghdr *message, int type, const void *data, int size) {
    struct rtattr *attribute = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(attribute), data, size);
    message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static void end_attribute(struct nlmsghdr *message, struct rtattr *attribute) {
    attribute->rta_len = (char *)message + message->nlmsg_len - (char *)attribute;
}

/* ip link add near type veth peer name far netns FAR */
static void add_veth(void) {
    static union {
        struct nlmsghdr message;
        char room[1024];
    } request;
    struct nlmsghdr *message = &request.message;
    struct ifinfomsg blank = {0};
    struct { struct nlmsghdr head; struct nlmsgerr error; } answer;
    message->nlmsg_len = NLMSG_LENGTH(sizeof blank);
    message->nlmsg_type = RTM_NEWLINK;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    begin_attribute(message, IFLA_IFNAME, "near", 5);
    struct rtattr *info = begin_attribute(message, IFLA_LINKINFO, NULL, 0);
    begin_attribute(message, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = begin_attribute(message, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = begin_attribute(message, VETH_INFO_PEER, &blank, sizeof blank);
    begin_attribute(message, IFLA_IFNAME, "far", 4);
    begin_attribute(message, IFLA_NET_NS_FD, &far_fd, sizeof far_fd);
    end_attribute(message, peer);
    end_attribute(message, data);
    end_attribute(message, info);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || send(fd, message, message->nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0)
        fail("rtnetlink");
    errno = -answer.error.error;
    if (errno)
        fail("veth");
    close(fd);
}

static void configure(const char *name, uint32_t address) {
    struct ifreq request = {0};
    struct sockaddr_in own = ipv4(address, 0), mask = ipv4(0xffff0000u, 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strcpy(request.ifr_name, name);
    memcpy(&request.ifr_addr, &own, sizeof own);
    if (ioctl(fd, SIOCSIFADDR, &request))
        fail("SIOCSIFADDR");
    memcpy(&request.ifr_addr, &mask, sizeof mask);
    if (ioctl(fd, SIOCSIFNETMASK, &request))
        fail("SIOCSIFNETMASK");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request))
        fail("SIOCSIFFLAGS");
    close(fd);
}

static void make_network(void) {
    if (geteuid())
        become_root_of_a_user_namespace();
    far_fd = new_namespace();
    near_fd = new_namespace();
    add_veth();
    configure("near", NEAR);
    enter(far_fd);
    configure("far", FAR);
    enter(near_fd);
}

/* How many of these descriptors are connected; waits for all of them. */
static int established(struct pollfd *waiting, int n) {
    int done = 0;
    for (int left = n; left > 0;) {
        if (poll(waiting, n, 2000) <= 0)
            return done;
        for (int i = 0; i < n; i++)
            if (waiting[i].fd >= 0 && waiting[i].revents) {
                done += waiting[i].revents == POLLOUT;
                waiting[i].fd = -1; /* poll() passes over it */
                left--;
            }
    }
    return done;
}

static int new_socket(int own_range) {
    uint32_t range = OWN_RANGE;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (own_range && setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof range)))
        fail("socket");
    return fd;
}

static int handshakes(int *fds, int n, int window, int ports, int own_range) {
    static struct pollfd waiting[MOST_WINDOW];
    int done = 0, begun = 0;
    while (begun < n) {
        int batch = n - begun < window ? n - begun : window;
        for (int i = 0; i < batch; i++, begun++) {
            struct sockaddr_in peer = ipv4(FAR, FIRST_PORT + begun % ports);
            int fd = fds[begun] = new_socket(own_range);
            if (connect(fd, (void *)&peer, sizeof peer) && errno != EINPROGRESS)
                fail("connect");
            waiting[i] = (struct pollfd){.fd = fd, .events = POLLOUT};
        }
        done += established(waiting, batch);
    }
    return done;
}

static void reset_all(int *fds, int n) {
    struct linger now = {1, 0};
    for (int i = 0; i < n; i++) {
        setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(fds[i]);
    }
}

struct order {
    int n, window, ports, own_range;
};

struct answer {
    uint64_t took, cpu;
    int done;
};

static struct { int ask, answer, held; } holders[MOST_HOLDERS];
static int holder_count;

static struct answer measured(int *fds, struct order order) {
    uint64_t start = now_ns(), cpu = cpu_ns();
    int done = handshakes(fds, order.n, order.window, order.ports, order.own_range);
    return (struct answer){now_ns() - start, cpu_ns() - cpu, done};
}

static void print(struct answer answer) { printf("%lu %lu %d\n", answer.took, answer.cpu, answer.done); }

static void hold(int ask, int answer) {
    static int fds[HELD_BY_ONE];
    struct order order;
    int held = 0;
    while (read(ask, &order, sizeof order) == sizeof order) {
        struct answer found = measured(fds + held, order);
        held += order.n;
        if (write(answer, &found, sizeof found) < 0)
            break;
    }
    reset_all(fds, held);
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
        close_listeners();
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

static struct answer hold_more(struct order order) {
    struct answer total = {0, 0, 0}, one;
    for (int left = order.n; left > 0; left -= order.n) {
        if (!holder_count || holders[holder_count - 1].held == HELD_BY_ONE)
            new_holder();
        int *held = &holders[holder_count - 1].held;
        order.n = left < HELD_BY_ONE - *held ? left : HELD_BY_ONE - *held;
        if (write(holders[holder_count - 1].ask, &order, sizeof order) < 0 ||
            read(holders[holder_count - 1].answer, &one, sizeof one) != sizeof one)
            fail("holder");
        *held += order.n;
        total = (struct answer){total.took + one.took, total.cpu + one.cpu, total.done + one.done};
    }
    return total;
}

static void release(void) {
    while (holder_count) {
        close(holders[--holder_count].ask);
        close(holders[holder_count].answer);
    }
    while (wait(NULL) > 0)
        ;
    close_listeners();
}

static void listen_far(int ports) {
    enter(far_fd);
    open_listeners(ports);
    enter(near_fd);
}

static void run(struct order order) {
    int *fds = calloc(order.n, sizeof *fds);
    listen_far(order.ports);
    print(measured(fds, order));
    reset_all(fds, order.n);
    close_listeners();
    free(fds);
}

int main(void) {
    char line[64], what[16];
    setvbuf(stdout, NULL, _IOLBF, 0);
    want_files(20000);
    make_network();
    while (fgets(line, sizeof line, stdin)) {
        struct order order = {0};
        int found = sscanf(line, "%15s %d %d %d %d", what, &order.n, &order.window, &order.ports, &order.own_range);
        if (found < 1 || order.window > MOST_WINDOW || order.ports > MOST_PORTS)
            return 2;
        if (!strcmp(what, "run") && found == 4)
            run(order);
        else if (!strcmp(what, "hold") && found == 5)
            print(hold_more(order));
        else if (!strcmp(what, "listen") && found == 2 && order.n <= MOST_PORTS)
            listen_far(order.n), puts("1");
        else if (!strcmp(what, "release"))
            release(), puts("1");
        else
            return 2;
    }
    release();
    return 0;
}
