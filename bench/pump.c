/* The limit of etherws' design: the same pump in C, without WebSocket, masking and TLS.

       pump listen|connect ADDRESS PORT DEVICE

   Makes the TAP with offloads, so that the kernel hands over up to 64 KiB of a TCP stream in one read, and carries
   records over one TCP connection: the length in four bytes, most significant first, the kernel's virtio_net_hdr of
   ten, the frame. What the TAP has to give goes into one batch, and a batch into one send. Runs in the foreground until
   the connection ends. Tells on standard error why it failed, with status 1.

   One thread for each direction, as etherws has a greenlet for each: neither waits for the other, so no half-sent batch
   has to be remembered, and two ends with full sockets cannot wait for each other. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LENGTH = 4,               /* bytes of a record's length */
    SMALLEST = 10 + 14,       /* virtio_net_hdr and an Ethernet header */
    LARGEST = 10 + 18 + 65536, /* a super-frame, tagged */
    BATCH = 128 * 1024,       /* a batch is sent once it has so much */
    INPUT = 512 * 1024        /* asked of the socket at once */
};

static int tap, sock;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "pump: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void wait_for(int fd, short events) {
    struct pollfd waiting = {.fd = fd, .events = events};
    while (poll(&waiting, 1, -1) < 0)
        if (errno != EINTR)
            die("poll");
}

static void send_all(const unsigned char *from, size_t left) {
    while (left) {
        ssize_t sent = send(sock, from, left, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            die("send");
        }
        from += sent;
        left -= (size_t)sent;
    }
}

/* From the device to the peer. */
static void *uplink(void *unused) {
    static unsigned char batch[BATCH + LENGTH + LARGEST];
    size_t filled = 0;
    for (;;) {
        ssize_t size = read(tap, batch + filled + LENGTH, LARGEST);
        if (size > 0) {
            uint32_t length = htonl((uint32_t)size);
            memcpy(batch + filled, &length, LENGTH);
            filled += LENGTH + (size_t)size;
            if (filled < BATCH)
                continue;
        } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
            die("read from the TAP");
        }
        if (filled) {
            send_all(batch, filled);
            filled = 0;
        } else {
            wait_for(tap, POLLIN);
        }
    }
    return unused;
}

/* From the peer to the device, until the peer closes. */
static void downlink(void) {
    static unsigned char input[INPUT];
    size_t filled = 0;
    for (;;) {
        ssize_t got = recv(sock, input + filled, INPUT - filled, 0);
        if (got == 0)
            return;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            die("recv");
        }
        filled += (size_t)got;
        size_t at = 0;
        while (filled - at >= LENGTH) {
            uint32_t length;
            memcpy(&length, input + at, LENGTH);
            length = ntohl(length);
            if (length < SMALLEST || length > LARGEST) {
                fprintf(stderr, "pump: a record of %u bytes\n", length);
                exit(1);
            }
            if (filled - at < LENGTH + length)
                break;
            while (write(tap, input + at + LENGTH, length) < 0) {
                if (errno == EAGAIN)
                    wait_for(tap, POLLOUT);
                else if (errno != EINTR)
                    break; /* as Ethernet does: the interface is down, or the kernel rejects this frame */
            }
            at += LENGTH + length;
        }
        memmove(input, input + at, filled - at);
        filled -= at;
    }
}

static void open_tap(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
        die(name);
    if (ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0)
        die("TUNSETOFFLOAD");
}

static void join(int listens, const char *address, const char *port) {
    struct sockaddr_in end = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int one = 1;
    if (inet_pton(AF_INET, address, &end.sin_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0)
        die("socket");
    if (listens) {
        int listening = sock;
        setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(listening, (struct sockaddr *)&end, sizeof end) < 0 || listen(listening, 1) < 0)
            die("listen");
        sock = accept(listening, NULL, NULL);
        if (sock < 0)
            die("accept");
        close(listening);
    } else if (connect(sock, (struct sockaddr *)&end, sizeof end) < 0) {
        die("connect");
    }
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int main(int argc, char **argv) {
    pthread_t other;
    int listens = argc == 5 && strcmp(argv[1], "listen") == 0;
    if (!listens && !(argc == 5 && strcmp(argv[1], "connect") == 0)) {
        fprintf(stderr, "usage: pump listen|connect ADDRESS PORT DEVICE\n");
        return 2;
    }
    open_tap(argv[4]);
    join(listens, argv[2], argv[3]);
    if ((errno = pthread_create(&other, NULL, uplink, NULL)))
        die("pthread_create");
    downlink();
    return 0;
}
