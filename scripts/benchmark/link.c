/* A line between network namespaces: delay, rate, queue and loss, where the kernel has no netem.
 *
 *     link DELAY_US RATE_MBIT QUEUE_BYTES LOSS_PER_MILLION  NETNS DEVICE NETNS DEVICE  ...
 *
 * Each four names make one leg: two TUN devices, joined in both directions. A packet takes its turn
 * at RATE_MBIT (0: no limit) and comes out DELAY_US after its last bit; one that meets more than
 * QUEUE_BYTES before it is dropped. "ready" is printed once the devices are there; whoever reads
 * that gives them addresses. On SIGTERM it prints what each direction carried, and the devices go.
 *
 * Without loss, segments travel as the kernel hands them over, up to 64 KiB in one piece, as they
 * do to a network card: they take the line's time that their packets would, and the processor a
 * twentieth of it. Loss is of packets, so with loss each packet travels alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

/* The most that one read gives: an IP packet of 64 KiB and what TUN puts before it. */
#define LARGEST (sizeof(struct virtio_net_hdr) + 65536)

/* Packets taken from one device before the others have their turn. */
#define TURN 64

/* Legs of one process: hospitals around a Bridge. */
#define MAXIMUM_LEGS 16

/* Memory for what is under way without a rate to reckon it by; touched only as far as it is used. */
#define UNLIMITED (256LL << 20)

/* A packet in a direction's ring; `size` 0: the ring goes on at its beginning. */
struct packet {
    int64_t due;
    uint32_t size;
    uint8_t bytes[];
};

struct direction {
    int from, to;
    uint8_t *ring;
    size_t capacity, head, tail; /* taken in at the head, given out at the tail */
    int64_t busy;                /* when the line has sent what it was given */
    uint64_t packets, octets, dropped;
};

static int64_t delay, queue;
static double seconds_per_byte;
static long loss;
static volatile sig_atomic_t ended;

static void end(int signal) {
    (void)signal;
    ended = 1;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static int open_device(const char *netns, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", netns);
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0) fail(path);
    close(namespace);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(device, TUNSETIFF, &request) < 0) fail(name);
    if (!loss && ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
        fail("TUNSETOFFLOAD");
    return device;
}

static struct direction make_direction(int from, int to) {
    struct direction made = {.from = from, .to = to, .capacity = UNLIMITED};
    if (seconds_per_byte > 0) /* twice: small packets take more of the ring than of the line */
        made.capacity = 2 * (queue + (int64_t)(delay / (seconds_per_byte * SECOND))) + 8 * LARGEST;
    made.capacity &= ~(size_t)15;
    made.ring = mmap(NULL, made.capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made.ring == MAP_FAILED) fail("mmap");
    return made;
}

/* What `size` bytes of TUN's are on the line: the kernel's large segments as the packets they are. */
static int64_t on_the_line(const uint8_t *bytes, int64_t size) {
    const struct virtio_net_hdr *offload = (const void *)bytes;
    int64_t length = size - (int64_t)sizeof *offload;
    if (offload->gso_type == VIRTIO_NET_HDR_GSO_NONE || offload->gso_size == 0) return length;
    const uint8_t *packet = bytes + sizeof *offload;
    int64_t headers = offload->csum_start + 4 * (packet[offload->csum_start + 12] >> 4);
    int64_t payload = length - headers;
    return payload + headers * ((payload + offload->gso_size - 1) / offload->gso_size);
}

/* Where the next packet goes, or NULL while the ring is full. */
static struct packet *room(struct direction *line) {
    size_t need = LARGEST + 3 * sizeof(struct packet); /* rounded up, and the mark of the end */
    if (line->head >= line->tail) {
        if (line->capacity - line->head >= need) return (void *)(line->ring + line->head);
        if (line->tail <= need) return NULL;
        ((struct packet *)(line->ring + line->head))->size = 0;
        line->head = 0;
    }
    return line->tail - line->head > need ? (void *)(line->ring + line->head) : NULL;
}

/* Take one packet from the device; false if there is none. */
static bool take(struct direction *line) {
    static uint8_t refused[LARGEST];
    struct packet *packet = room(line);
    uint8_t *bytes = packet ? packet->bytes : refused;
    ssize_t size = read(line->from, bytes, LARGEST);
    if (size <= 0) return false;
    int64_t length = on_the_line(bytes, size), time = now();
    int64_t start = line->busy > time ? line->busy : time;
    bool lost = loss && random() % 1000000 < loss;
    bool full = seconds_per_byte > 0 && (start - time) / (seconds_per_byte * SECOND) > queue;
    if (!packet || lost || full) {
        line->dropped++;
        return true;
    }
    line->busy = start + (int64_t)(length * seconds_per_byte * SECOND);
    packet->due = line->busy + delay;
    packet->size = size;
    line->head += (sizeof *packet + size + 15) & ~(size_t)15;
    line->packets++;
    line->octets += length;
    return true;
}

/* Give out what is due; when the next one is, or INT64_MAX. */
static int64_t give(struct direction *line) {
    while (line->tail != line->head) {
        struct packet *packet = (void *)(line->ring + line->tail);
        if (packet->size == 0) {
            line->tail = 0;
            continue;
        }
        if (packet->due > now()) return packet->due;
        if (write(line->to, packet->bytes, packet->size) < 0) line->dropped++; /* it is down */
        line->tail += (sizeof *packet + packet->size + 15) & ~(size_t)15;
    }
    return INT64_MAX;
}

static void carry(struct direction *lines, int count, const sigset_t *waiting) {
    struct pollfd devices[2 * MAXIMUM_LEGS];
    for (int i = 0; i < count; i++) devices[i] = (struct pollfd){lines[i].from, POLLIN, 0};
    while (!ended) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < count; i++) {
            for (int taken = 0; taken < TURN && take(&lines[i]); taken++) continue;
            int64_t due = give(&lines[i]);
            if (due < next) next = due;
        }
        int64_t wait = next == INT64_MAX ? SECOND : next - now();
        if (wait < 0) wait = 0;
        struct timespec time = {wait / SECOND, wait % SECOND};
        if (ppoll(devices, count, &time, waiting) < 0 && errno != EINTR) fail("ppoll");
    }
}

int main(int count, char **words) {
    int legs = (count - 5) / 4;
    if (count < 9 || (count - 5) % 4 || legs > MAXIMUM_LEGS) {
        fprintf(stderr, "usage: link DELAY_US RATE_MBIT QUEUE_BYTES LOSS_PER_MILLION"
                        " NETNS DEVICE NETNS DEVICE ...\n");
        return 2;
    }
    delay = atoll(words[1]) * 1000;
    double rate = atof(words[2]) * 1e6 / 8;
    seconds_per_byte = rate > 0 ? 1 / rate : 0;
    queue = atoll(words[3]);
    loss = atol(words[4]);

    struct direction lines[2 * MAXIMUM_LEGS];
    for (int i = 0; i < legs; i++) {
        char **leg = words + 5 + 4 * i;
        int one = open_device(leg[0], leg[1]), other = open_device(leg[2], leg[3]);
        lines[2 * i] = make_direction(one, other);
        lines[2 * i + 1] = make_direction(other, one);
    }
    sigset_t blocked, waiting;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &waiting); /* they come while it waits, and only then */
    signal(SIGTERM, end);
    signal(SIGINT, end);
    /* A line is on time whatever the machine's processors have to do. */
    if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}) < 0)
        perror("the line may be late while the machine is busy");
    printf("ready\n");
    fflush(stdout);
    carry(lines, 2 * legs, &waiting);
    for (int i = 0; i < 2 * legs; i++)
        printf("direction %d: %lu packets, %lu bytes, %lu dropped\n", i, lines[i].packets,
               lines[i].octets, lines[i].dropped);
    return 0;
}
