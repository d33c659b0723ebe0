/* Sends dump requests and receives the bytes, and does nothing with them.
 *
 * usage: drbd_rival FAMILY SAMPLES each|once|HANDLE BATCH COMMAND...
 *
 * "each": a netlink socket for each sample; "once": one for all; a number: the
 * descriptor to talk to. BATCH: how many messages a system call receives, up
 * to 32; 1 is recv. Prints the milliseconds of each sample.
 */
#define _GNU_SOURCE
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM 8192
#define BATCH 32

static char buffer[65536];
static char batch[BATCH][ROOM];

static int fail(const char *what)
{
    perror(what);
    exit(1);
}

static int open_socket(void)
{
    struct sockaddr_nl address = { .nl_family = AF_NETLINK };
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_GENERIC);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address))
        fail("socket");
    return fd;
}

/* Whether a datagram ends the dump. */
static int ends(char *datagram, int length)
{
    struct nlmsghdr *message = (struct nlmsghdr *)datagram;
    for (; NLMSG_OK(message, length); message = NLMSG_NEXT(message, length)) {
        if (message->nlmsg_type == NLMSG_DONE)
            return 1;
        if (message->nlmsg_type == NLMSG_ERROR)
            fail("refused");
    }
    return 0;
}

static void dump(int fd, int family, int command, int most)
{
    struct {
        struct nlmsghdr nl;
        struct genlmsghdr genl;
        uint32_t minor, flags;
    } request = {
        .nl = { sizeof request, family, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
        .genl = { command, 1, 0 },
        .minor = UINT32_MAX,
    };
    if (send(fd, &request, sizeof request, 0) < 0)
        fail("send");
    while (most == 1) {
        int length = recv(fd, buffer, sizeof buffer, 0);
        if (length <= 0)
            fail("recv");
        if (ends(buffer, length))
            return;
    }
    for (;;) {
        struct mmsghdr headers[BATCH] = {};
        struct iovec parts[BATCH];
        for (int i = 0; i < most; i++) {
            parts[i] = (struct iovec){ batch[i], ROOM };
            headers[i].msg_hdr.msg_iov = &parts[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        int count = recvmmsg(fd, headers, most, MSG_WAITFORONE, NULL);
        if (count <= 0)
            fail("recvmmsg");
        for (int i = 0; i < count; i++)
            if (ends(batch[i], headers[i].msg_len))
                return;
    }
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    int family = atoi(argv[1]), samples = atoi(argv[2]), most = atoi(argv[4]);
    if (most < 1 || most > BATCH)
        return 2;
    int each = !strcmp(argv[3], "each");
    int fd = each ? -1 : strcmp(argv[3], "once") ? atoi(argv[3]) : open_socket();
    for (int sample = 0; sample < samples; sample++) {
        struct timespec begun, ended;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        if (each)
            fd = open_socket();
        for (int i = 5; i < argc; i++)
            dump(fd, family, atoi(argv[i]), most);
        if (each)
            close(fd);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%f\n", (ended.tv_sec - begun.tv_sec) * 1e3
            + (ended.tv_nsec - begun.tv_nsec) / 1e6);
    }
}
