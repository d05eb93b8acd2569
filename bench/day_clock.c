/* A clock that runs fast, put under programs by LD_PRELOAD; for bench/day.py.
 *
 * All processes map one file, DAY_CLOCK: what their clocks showed at the start, how many times faster they go, and how far they have come.
 * One thread ticks (`tick`): it adds what has passed since its last tick, TICK_MAX_NS at most, so that time stands still
 * while the machine has none for it, and time-outs that are short in truth are not reached for the machine's slowness.
 *
 * libfaketime 0.9.10 is no fit: its time goes on while the machine is busy, and waits of Rust's locks, which are futexes, end too late
 * under it or never.
 *
 * Programs under it have no transparent huge pages: the kernel would put more and more of them in the place of small ones, with
 * memory that nobody has asked for.
 *
 * Scaled: clocks, sleeps, poll, epoll, time-outs of sockets, and futexes as far as libc's `syscall` is used (locks of Rust).
 * Not scaled: io_uring, timers of the kernel such as TCP's, times of files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define TICK_NS 300000LL
#define TICK_MAX_NS 2000000LL
/* No wait is shorter in truth. */
#define WAIT_MIN_NS 100000LL

struct page {
    int64_t rate, real_ns, monotonic_ns;
    _Atomic int64_t passed_ns;
};

static struct page *page;
static long (*raw)(long, ...);

static int64_t true_ns(clockid_t clock) {
    struct timespec now;
    raw(SYS_clock_gettime, clock, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static struct page *map(const char *path, int size) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || (size && ftruncate(file, size)))
        abort();
    struct page *at = mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        abort();
    close(file);
    return at;
}

__attribute__((constructor)) static void begin(void) {
    raw = dlsym(RTLD_NEXT, "syscall");
    const char *path = getenv("DAY_CLOCK");
    if (!path)
        return;
    page = map(path, 0);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

/* --- For who ticks --- */

static struct page *ticking;

void make(const char *path, int64_t rate) {
    ticking = map(path, sizeof *ticking);
    ticking->rate = rate;
    ticking->real_ns = true_ns(CLOCK_REALTIME);
    ticking->monotonic_ns = true_ns(CLOCK_MONOTONIC);
}

int64_t passed(void) { return atomic_load(&ticking->passed_ns); }

void tick(void) {
    int64_t last = true_ns(CLOCK_MONOTONIC);
    struct timespec pause = {0, TICK_NS};
    for (;;) {
        raw(SYS_nanosleep, &pause, NULL);
        int64_t now = true_ns(CLOCK_MONOTONIC), step = now - last;
        last = now;
        atomic_fetch_add(&ticking->passed_ns, (step < TICK_MAX_NS ? step : TICK_MAX_NS) * ticking->rate);
    }
}

/* --- For all others --- */

static int64_t base_ns(clockid_t clock) {
    switch (clock) {
    case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE:
        return page->real_ns;
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_RAW: case CLOCK_MONOTONIC_COARSE: case CLOCK_BOOTTIME:
        return page->monotonic_ns;
    default: /* Time of processors. */
        return -1;
    }
}

static int64_t now_ns(clockid_t clock) { return base_ns(clock) + atomic_load(&page->passed_ns); }

/* What has to be waited for in truth, until a moment of the false monotonic clock. */
static struct timespec wait_until(int64_t deadline) {
    int64_t left = (deadline - now_ns(CLOCK_MONOTONIC)) / page->rate;
    if (left < WAIT_MIN_NS)
        left = WAIT_MIN_NS;
    return (struct timespec){left / SECOND, left % SECOND};
}

static int is_due(int64_t deadline) { return now_ns(CLOCK_MONOTONIC) >= deadline; }

static int64_t ns_of(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (!page || base_ns(clock) < 0)
        return raw ? raw(SYS_clock_gettime, clock, at) : syscall(SYS_clock_gettime, clock, at);
    int64_t now = now_ns(clock);
    *at = (struct timespec){now / SECOND, now % SECOND};
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
    if (!page)
        return raw(SYS_clock_nanosleep, clock, flags, wanted, left) ? errno : 0;
    int64_t deadline = ns_of(wanted);
    deadline += flags & TIMER_ABSTIME ? page->monotonic_ns - base_ns(clock) : now_ns(CLOCK_MONOTONIC);
    while (!is_due(deadline)) {
        struct timespec wait = wait_until(deadline);
        if (raw(SYS_nanosleep, &wait, NULL) && errno == EINTR) {
            if (left)
                *left = (struct timespec){0, 0};
            return EINTR;
        }
    }
    return 0;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    errno = error;
    return error ? -1 : 0;
}

int epoll_wait(int epoll, struct epoll_event *events, int max, int timeout_ms) {
    if (!page || timeout_ms <= 0)
        return raw(SYS_epoll_pwait, epoll, events, max, timeout_ms, NULL, 0);
    int64_t deadline = now_ns(CLOCK_MONOTONIC) + timeout_ms * 1000000LL;
    while (!is_due(deadline)) {
        struct timespec wait = wait_until(deadline);
        int count = raw(SYS_epoll_pwait2, epoll, events, max, &wait, NULL, 0);
        if (count)
            return count;
    }
    return raw(SYS_epoll_pwait, epoll, events, max, 0, NULL, 0);
}

int poll(struct pollfd *files, nfds_t count, int timeout_ms) {
    int64_t deadline = page && timeout_ms > 0 ? now_ns(CLOCK_MONOTONIC) + timeout_ms * 1000000LL : 0;
    while (deadline && !is_due(deadline)) {
        struct timespec wait = wait_until(deadline);
        int ready = raw(SYS_ppoll, files, count, &wait, NULL, 0);
        if (ready)
            return ready;
    }
    struct timespec wait = {0, 0};
    if (!page && timeout_ms > 0)
        wait = (struct timespec){timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    return raw(SYS_ppoll, files, count, timeout_ms < 0 ? NULL : &wait, NULL, 0);
}

int setsockopt(int socket, int level, int name, const void *value, socklen_t length) {
    struct timeval scaled;
    if (page && level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO)) {
        const struct timeval *wanted = value;
        int64_t us = (wanted->tv_sec * 1000000LL + wanted->tv_usec) / page->rate;
        if (wanted->tv_sec || wanted->tv_usec)
            us = us < 1000 ? 1000 : us;
        scaled = (struct timeval){us / 1000000, us % 1000000};
        value = &scaled;
    }
    return raw(SYS_setsockopt, socket, level, name, value, length);
}

/* A wait for a futex: until a moment of the false clock (absolute, as std has it), or for a time (as parking_lot has it). */
static long wait_for_futex(long at, int operation, long expected, const struct timespec *until) {
    int command = operation & FUTEX_CMD_MASK;
    int64_t deadline = ns_of(until);
    if (command == FUTEX_WAIT)
        deadline += now_ns(CLOCK_MONOTONIC);
    else if (operation & FUTEX_CLOCK_REALTIME)
        deadline += page->monotonic_ns - page->real_ns;
    operation = FUTEX_WAIT | (operation & FUTEX_PRIVATE_FLAG);
    while (!is_due(deadline)) {
        struct timespec wait = wait_until(deadline);
        long done = raw(SYS_futex, at, (long)operation, expected, &wait, NULL, 0L);
        if (!done || errno != ETIMEDOUT)
            return done;
    }
    errno = ETIMEDOUT;
    return -1;
}

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a[6];
    for (int index = 0; index < 6; index++)
        a[index] = va_arg(list, long);
    va_end(list);
    if (!raw)
        raw = dlsym(RTLD_NEXT, "syscall");
    int command = a[1] & FUTEX_CMD_MASK;
    if (page && number == SYS_futex && a[3] && (command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET))
        return wait_for_futex(a[0], (int)a[1], a[2], (const struct timespec *)a[3]);
    return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
