/* The limit of etherws' design: the same pump in C, without WebSocket, masking and TLS.

       pump listen|connect ADDRESS PORT DEVICE

   Makes the TAP with offloads, so that one read returns up to 64 KiB of a TCP stream. Carries records over one TCP
   connection: the length in four bytes, most significant first; the kernel's virtio_net_hdr of ten bytes; the frame.
   All that the TAP has goes into one batch, and a batch into one send. Runs in the foreground until the connection
   ends. If it fails, it prints the reason on standard error, and its status is 1.

   It has one thread with poll, not one for each direction. On two cores, which the other end, the sender and the
   receiver also need, this was a fifth faster. It must not wait in send: two ends with full sockets would wait for each
   other without end. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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
    BATCH = 128 * 1024,       /* a batch is sent when it has this many bytes */
    INPUT = 512 * 1024        /* bytes of one recv */
};

static int tap, sock;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "pump: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void wait_for(struct pollfd *ends, nfds_t count) {
    while (poll(ends, count, -1) < 0)
        if (errno != EINTR)
            die("poll");
}

/* What goes from the device to the peer: batch[sent] up to batch[filled]. */
static unsigned char batch[BATCH + LENGTH + LARGEST];
static size_t sent, filled;

/* From the device to the batch: all that the device has, or what fits. */
static void fill(void) {
    while (filled < BATCH) {
        ssize_t size = read(tap, batch + filled + LENGTH, LARGEST);
        if (size > 0) {
            uint32_t length = htonl((uint32_t)size);
            memcpy(batch + filled, &length, LENGTH);
            filled += LENGTH + (size_t)size;
        } else if (size < 0 && errno == EAGAIN) {
            return;
        } else if (size == 0 || errno != EINTR) {
            die("read from the TAP");
        }
    }
}

/* From the batch to the peer: as much as the socket takes. */
static void flush(void) {
    while (sent < filled) {
        ssize_t size = send(sock, batch + sent, filled - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size >= 0)
            sent += (size_t)size;
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            die("send");
    }
    sent = filled = 0;
}

static void deliver(const unsigned char *frame, size_t length) {
    struct pollfd end = {.fd = tap, .events = POLLOUT};
    while (write(tap, frame, length) < 0) {
        if (errno == EAGAIN)
            wait_for(&end, 1);
        else if (errno != EINTR)
            return; /* drop: the interface is down, or the kernel refuses this frame */
    }
}

/* From the peer to the device: one recv, and the records that are complete. Returns 0 when the peer has closed. */
static int receive(void) {
    static unsigned char input[INPUT];
    static size_t got;
    size_t at = 0;
    ssize_t size = recv(sock, input + got, INPUT - got, MSG_DONTWAIT);
    if (size < 0) {
        if (errno != EAGAIN && errno != EINTR)
            die("recv");
        return 1;
    }
    got += (size_t)size;
    while (got - at >= LENGTH) {
        uint32_t length;
        memcpy(&length, input + at, LENGTH);
        length = ntohl(length);
        if (length < SMALLEST || length > LARGEST) {
            fprintf(stderr, "pump: a record of %u bytes\n", length);
            exit(1);
        }
        if (got - at < LENGTH + length)
            break;
        deliver(input + at + LENGTH, length);
        at += LENGTH + length;
    }
    memmove(input, input + at, got - at);
    got -= at;
    return size > 0;
}

static void pump(void) {
    for (;;) {
        /* As long as the socket does not take the last batch, nothing is read from the TAP. */
        int full = sent < filled;
        struct pollfd ends[2] = {
            {.fd = tap, .events = full ? 0 : POLLIN},
            {.fd = sock, .events = full ? POLLIN | POLLOUT : POLLIN},
        };
        wait_for(ends, 2);
        if (ends[0].revents && !full)
            fill();
        flush();
        if (ends[1].revents & ~POLLOUT && !receive())
            return;
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
    int listens = argc == 5 && strcmp(argv[1], "listen") == 0;
    if (!listens && !(argc == 5 && strcmp(argv[1], "connect") == 0)) {
        fprintf(stderr, "usage: pump listen|connect ADDRESS PORT DEVICE\n");
        return 2;
    }
    open_tap(argv[4]);
    join(listens, argv[2], argv[3]);
    pump();
    return 0;
}
