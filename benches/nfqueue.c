// What a permit-all client of NFQUEUE costs: takes every packet whole, looks at its first byte, and permits in batches.
//
//   cc -O2 -o nfqueue benches/nfqueue.c
//   nfqueue QUEUE MILLISECONDS [poll]
//
// Netlink by hand, without a library: up to 64 packets by one recvmmsg(2), one verdict for all of them
// (NFQNL_MSG_VERDICT_BATCH). With `poll`, it looks for packets without sleeping. At the end it prints how many there were, and
// what processor time it took.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 70000 };

static int descriptor;
static unsigned short queue;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// Sends a message of the queue's with one attribute; waits for the answer when `acknowledged`.
static void say(int type, int attribute, const void *value, size_t length, int acknowledged) {
    struct {
        struct nlmsghdr header;
        struct nfgenmsg family;
        struct nlattr attribute;
        char value[64];
    } message = {
        .header = {.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type, .nlmsg_flags = NLM_F_REQUEST | (acknowledged ? NLM_F_ACK : 0)},
        .family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(queue)},
        .attribute = {.nla_len = sizeof(struct nlattr) + length, .nla_type = attribute},
    };
    memcpy(message.value, value, length);
    message.header.nlmsg_len = offsetof(typeof(message), value) + NLA_ALIGN(length);
    if (send(descriptor, &message, message.header.nlmsg_len, 0) < 0) fail("send");
    if (!acknowledged) return;
    struct { struct nlmsghdr header; struct nlmsgerr error; char rest[256]; } answer;
    if (recv(descriptor, &answer, sizeof answer, 0) < 0) fail("recv");
    if (answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error) {
        errno = -answer.error.error;
        fail("the queue");
    }
}

// Two attributes at once: flags and their mask.
static void say_flags(unsigned flags) {
    struct {
        struct nlmsghdr header;
        struct nfgenmsg family;
        struct nlattr flags;
        unsigned flags_value;
        struct nlattr mask;
        unsigned mask_value;
    } message = {
        .header = {sizeof message, NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, NLM_F_REQUEST, 0, 0},
        .family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(queue)},
        .flags = {8, NFQA_CFG_FLAGS}, .flags_value = htonl(flags),
        .mask = {8, NFQA_CFG_MASK}, .mask_value = htonl(flags),
    };
    if (send(descriptor, &message, sizeof message, 0) < 0) fail("send");
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int count, char **words) {
    if (count < 3) return 2;
    queue = atoi(words[1]);
    double end = seconds() + atof(words[2]) / 1000;
    int polls = count > 3;
    descriptor = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    if (bind(descriptor, (void *)&address, sizeof address)) fail("bind");
    struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND, .pf = htons(AF_INET)};
    say(NFQNL_MSG_CONFIG, NFQA_CFG_CMD, &command, sizeof command, 1);
    struct nfqnl_msg_config_params parameters = {.copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET};
    say(NFQNL_MSG_CONFIG, NFQA_CFG_PARAMS, &parameters, sizeof parameters, 1);
    unsigned longest = htonl(65536);
    say(NFQNL_MSG_CONFIG, NFQA_CFG_QUEUE_MAXLEN, &longest, sizeof longest, 1);
    say_flags(NFQA_CFG_F_GSO | NFQA_CFG_F_UID_GID);
    int room = 64 << 20, one = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(descriptor, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one);

    static char memory[BATCH][ROOM];
    static struct mmsghdr messages[BATCH];
    static struct iovec vectors[BATCH];
    for (int n = 0; n < BATCH; n++) {
        vectors[n] = (struct iovec){memory[n], ROOM};
        messages[n].msg_hdr = (struct msghdr){.msg_iov = &vectors[n], .msg_iovlen = 1};
    }
    puts("ready");
    fflush(stdout);
    unsigned long packets = 0, looked_at = 0;
    while (seconds() < end) {
        int got = recvmmsg(descriptor, messages, BATCH, MSG_DONTWAIT, 0);
        if (got <= 0) {
            struct pollfd waits = {descriptor, POLLIN, 0};
            if (!polls) poll(&waits, 1, 200);
            continue;
        }
        struct nfqnl_msg_verdict_hdr verdict = {.verdict = htonl(NF_ACCEPT)};
        int any = 0;
        for (int n = 0; n < got; n++) {
            struct nlmsghdr *header = (void *)memory[n];
            if (header->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET)) continue;
            char *at = memory[n] + NLMSG_HDRLEN + sizeof(struct nfgenmsg), *behind = memory[n] + messages[n].msg_len;
            for (struct nlattr *attribute = (void *)at; at < behind; at += NLA_ALIGN(attribute->nla_len)) {
                attribute = (void *)at;
                int type = attribute->nla_type & NLA_TYPE_MASK;
                if (type == NFQA_PACKET_HDR) verdict.id = ((struct nfqnl_msg_packet_hdr *)(attribute + 1))->packet_id;
                if (type == NFQA_PAYLOAD) looked_at += *(unsigned char *)(attribute + 1) >> 4;
                if (attribute->nla_len < sizeof *attribute) break;
            }
            packets++;
            any = 1;
        }
        if (any) say(NFQNL_MSG_VERDICT_BATCH, NFQA_VERDICT_HDR, &verdict, sizeof verdict, 0);
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double processor = used.ru_utime.tv_sec + used.ru_utime.tv_usec / 1e6 + used.ru_stime.tv_sec + used.ru_stime.tv_usec / 1e6;
    printf("packets %lu processor %.6f looked %lu\n", packets, processor, looked_at);
    return 0;
}
