/* The least that a user-space client over a TUN can do: a SYN from a template, a look-up of the answer, an ACK.

   tun_client FD VNET_HDR_LEN CLIENT SERVER     FD: the TUN, inherited, non-blocking
   run N WINDOW PORTS                           -> ns, CPU ns, how many were established; then all end by RST
   open N WINDOW PORTS ADDRESSES                the same, to ADDRESSES from SERVER on; they stay open
   reset                                        -> 1        all end by RST

   Ports are taken in order, there is no timer, no congestion control, no data: a floor, not a stack. */
#include "measure.h"

#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>

#define FIRST_LOCAL 32768
#define SYN_LEN 60
#define ACK_LEN 52

struct packet {
    uint8_t room[16]; /* the virtio_net_hdr, zeros, ends where the packet begins: one write() for both */
    struct iphdr ip;
    struct tcphdr tcp;
    uint8_t options[20];
};

/* One connection: its number says which address and port of the server and which local port, so that the look-up of a
   packet is arithmetic. */
struct flow {
    uint32_t isn, next;
    uint8_t established;
};

static int tun, header_len;
static uint32_t client, server;
static uint32_t addresses, ports; /* of the server */
static struct flow *flows;
static int flow_count;
static struct packet syn, ack;
static uint32_t run_number;

static uint32_t sum_words(const void *data, int size) {
    const uint8_t *bytes = data;
    uint32_t total = 0;
    for (int i = 0; i < size; i += 2) {
        uint16_t word;
        memcpy(&word, bytes + i, 2);
        total += word;
    }
    return total;
}

static uint16_t folded(uint32_t total) {
    total = (total & 0xffff) + (total >> 16);
    total += total >> 16;
    return ~total;
}

static void make_template(struct packet *p, int length, const uint8_t *options) {
    int tcp_len = length - sizeof p->ip;
    p->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP, .frag_off = htons(IP_DF),
                           .tot_len = htons(length), .saddr = htonl(client)};
    p->tcp = (struct tcphdr){.doff = tcp_len / 4, .window = htons(64240)};
    memcpy(p->options, options, tcp_len - sizeof p->tcp);
}

static void send_packet(struct packet *p, int length) {
    int tcp_len = length - sizeof p->ip;
    p->ip.check = 0;
    p->ip.check = folded(sum_words(&p->ip, sizeof p->ip));
    p->tcp.check = 0;
    uint32_t total = sum_words(&p->ip.saddr, 8) + htons(IPPROTO_TCP) + htons(tcp_len);
    p->tcp.check = folded(total + sum_words(&p->tcp, tcp_len));
    if (write(tun, (uint8_t *)&p->ip - header_len, header_len + length) < 0)
        fail("write");
}

static void address_packet(struct packet *p, uint32_t i) {
    p->ip.daddr = htonl(server + i % addresses);
    p->tcp.dest = htons(FIRST_PORT + i / addresses % ports);
    p->tcp.source = htons(FIRST_LOCAL + i / addresses / ports);
}

static void send_syn(uint32_t i) {
    flows[i].isn = (i + run_number * 40503u) * 2654435761u;
    address_packet(&syn, i);
    syn.tcp.seq = htonl(flows[i].isn);
    send_packet(&syn, SYN_LEN);
}

static void send_ack(uint32_t i, int reset) {
    address_packet(&ack, i);
    ack.tcp.seq = htonl(flows[i].isn + 1);
    ack.tcp.ack_seq = htonl(flows[i].next);
    ack.tcp.rst = reset;
    send_packet(&ack, ACK_LEN);
}

/* The SYN-ACK of a connection that waits for it: its number, else -1. */
static int flow_of(const struct packet *p, uint32_t begun) {
    uint32_t address = ntohl(p->ip.saddr) - server, port = ntohs(p->tcp.source) - FIRST_PORT;
    uint32_t i = ((uint32_t)(ntohs(p->tcp.dest) - FIRST_LOCAL) * ports + port) * addresses + address;
    if (p->ip.version != 4 || p->ip.protocol != IPPROTO_TCP || address >= addresses || port >= ports)
        return -1;
    if (!p->tcp.syn || !p->tcp.ack || i >= begun || flows[i].established || ntohl(p->tcp.ack_seq) != flows[i].isn + 1)
        return -1;
    return i;
}

static int take_answers(uint32_t begun) {
    uint8_t room[2048];
    int done = 0;
    while (read(tun, room, sizeof room) > header_len) {
        struct packet p;
        memcpy(&p.ip, room + header_len, SYN_LEN);
        int i = flow_of(&p, begun);
        if (i < 0)
            continue;
        flows[i].next = ntohl(p.tcp.seq) + 1;
        flows[i].established = 1;
        memcpy(ack.options + 8, p.options + 8, 4); /* TSecr; both ends put the timestamps after 4 bytes */
        send_ack(i, 0);
        done++;
    }
    return done;
}

static int handshakes(int n, int window) {
    int begun = 0, done = 0;
    while (done < n) {
        for (; begun < n && begun - done < window; begun++)
            send_syn(begun);
        int more = take_answers(begun);
        done += more;
        struct pollfd readable = {.fd = tun, .events = POLLIN};
        if (!more && poll(&readable, 1, 500) <= 0)
            break;
    }
    return done;
}

static void drain(void) {
    uint8_t room[2048];
    while (read(tun, room, sizeof room) > 0)
        ;
}

static void open_all(int n, int window) {
    flows = calloc(n, sizeof *flows);
    flow_count = n;
    run_number++;
    drain();
    uint64_t start = now_ns(), cpu = cpu_ns();
    int done = handshakes(n, window);
    printf("%lu %lu %d\n", now_ns() - start, cpu_ns() - cpu, done);
}

static void reset_all(void) {
    for (int i = 0; i < flow_count; i++) {
        send_ack(i, 1);
        if (i % 128 == 0)
            drain();
    }
    drain();
    free(flows);
    flow_count = 0;
}

int main(int argc, char **argv) {
    static const uint8_t syn_options[20] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
    static const uint8_t ack_options[12] = {1, 1, 8, 10, 0, 0, 0, 1};
    char line[64];
    int n, window;
    if (argc != 5 || atoi(argv[2]) > (int)sizeof syn.room)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    tun = atoi(argv[1]);
    header_len = atoi(argv[2]);
    client = address_of(argv[3]);
    server = address_of(argv[4]);
    make_template(&syn, SYN_LEN, syn_options);
    syn.tcp.syn = 1;
    make_template(&ack, ACK_LEN, ack_options);
    ack.tcp.ack = 1;
    while (fgets(line, sizeof line, stdin)) {
        addresses = 1;
        if (sscanf(line, "open %d %d %u %u", &n, &window, &ports, &addresses) == 4) {
            open_all(n, window);
        } else if (sscanf(line, "run %d %d %u", &n, &window, &ports) == 3) {
            open_all(n, window);
            reset_all();
        } else if (!strcmp(line, "reset\n")) {
            reset_all();
            puts("1");
        } else {
            return 2;
        }
    }
    return 0;
}
