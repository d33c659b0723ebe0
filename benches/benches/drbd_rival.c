/* Sends dump requests and receives the bytes, and does nothing with them.
 *
 * usage: drbd_rival FAMILY SAMPLES each|once|HANDLE COMMAND...
 *
 * "each": a netlink socket for each sample; "once": one for all; a number: the
 * descriptor to talk to. Prints the milliseconds of each sample.
 */
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];

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

static void dump(int fd, int family, int command)
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
    for (;;) {
        int length = recv(fd, buffer, sizeof buffer, 0);
        struct nlmsghdr *message = (struct nlmsghdr *)buffer;
        if (length <= 0)
            fail("recv");
        for (; NLMSG_OK(message, length); message = NLMSG_NEXT(message, length)) {
            if (message->nlmsg_type == NLMSG_DONE)
                return;
            if (message->nlmsg_type == NLMSG_ERROR)
                fail("refused");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    int family = atoi(argv[1]), samples = atoi(argv[2]);
    int each = !strcmp(argv[3], "each");
    int fd = each ? -1 : strcmp(argv[3], "once") ? atoi(argv[3]) : open_socket();
    for (int sample = 0; sample < samples; sample++) {
        struct timespec begun, ended;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        if (each)
            fd = open_socket();
        for (int i = 4; i < argc; i++)
            dump(fd, family, atoi(argv[i]));
        if (each)
            close(fd);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%f\n", (ended.tv_sec - begun.tv_sec) * 1e3
            + (ended.tv_nsec - begun.tv_nsec) / 1e6);
    }
}
