/* Preloaded: writes down every call that changes a file below $RECORD_ROOT, and every fsync, to $RECORD_LOG.
 *
 * A record is "op path-length offset data-length\n", then the path and the data. Ops: w write, t truncate, s fsync,
 * c create, u unlink, r rename (data: the new path), m mkdir, p punch (data-length counts, no data follows), a all that
 * waits is written (syncfs).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int log_fd = -1;

__attribute__((constructor)) static void begin(void) {
    root = getenv("RECORD_ROOT");
    const char *path = getenv("RECORD_LOG");
    if (root == NULL || path == NULL)
        return;
    root_length = strlen(root);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int ours(const char *path) {
    return log_fd >= 0 && path != NULL && strncmp(path, root, root_length) == 0 && path[root_length] == '/';
}

static void put(const void *data, size_t length) {
    const char *from = data;
    while (length > 0) {
        long done = syscall(SYS_write, log_fd, from, length);
        if (done <= 0)
            abort();
        from += done;
        length -= (size_t)done;
    }
}

static void record(char op, const char *path, long long offset, const void *data, size_t length) {
    char head[96];
    path += root_length + 1;
    int size = snprintf(head, sizeof head, "%c %zu %lld %zu\n", op, strlen(path), offset, length);
    put(head, (size_t)size);
    put(path, strlen(path));
    if (data != NULL)
        put(data, length);
}

static const char *path_of(int fd, char *buffer, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, size - 1);
    if (length < 0)
        return NULL;
    buffer[length] = 0;
    return ours(buffer) ? buffer : NULL;
}

/* The call and its record are one step, so that the log has the order in which things happened. */
#define ON_FD(result, call, fd, op, offset, data, length)                                                              \
    do {                                                                                                               \
        char buffer[4096];                                                                                             \
        const char *path = log_fd < 0 ? NULL : path_of(fd, buffer, sizeof buffer);                                     \
        pthread_mutex_lock(&lock);                                                                                     \
        result = call;                                                                                                 \
        int error = errno;                                                                                             \
        if (path != NULL && result >= 0)                                                                               \
            record(op, path, offset, data, length);                                                                    \
        pthread_mutex_unlock(&lock);                                                                                   \
        errno = error;                                                                                                 \
    } while (0)

#define ON_PATH(result, call, path, op, data, length)                                                                  \
    do {                                                                                                               \
        pthread_mutex_lock(&lock);                                                                                     \
        result = call;                                                                                                 \
        int error = errno;                                                                                             \
        if (result >= 0 && ours(path))                                                                                 \
            record(op, path, 0, data, length);                                                                         \
        pthread_mutex_unlock(&lock);                                                                                   \
        errno = error;                                                                                                 \
    } while (0)

#define PWRITE(name)                                                                                                   \
    ssize_t name(int fd, const void *data, size_t length, off64_t offset) {                                            \
        ssize_t done;                                                                                                  \
        ON_FD(done, syscall(SYS_pwrite64, fd, data, length, offset), fd, 'w', (long long)offset, data, (size_t)done);  \
        return done;                                                                                                   \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t length) {
    ssize_t done;
    long long at = log_fd < 0 ? 0 : (long long)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ON_FD(done, syscall(SYS_write, fd, data, length), fd, 'w', at, data, (size_t)done);
    return done;
}

#define TRUNCATE(name)                                                                                                 \
    int name(int fd, off64_t size) {                                                                                   \
        int done;                                                                                                      \
        ON_FD(done, (int)syscall(SYS_ftruncate, fd, size), fd, 't', (long long)size, NULL, 0);                         \
        return done;                                                                                                   \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name, number)                                                                                             \
    int name(int fd) {                                                                                                 \
        int done;                                                                                                      \
        ON_FD(done, (int)syscall(number, fd), fd, 's', 0, NULL, 0);                                                    \
        return done;                                                                                                   \
    }
SYNC(fsync, SYS_fsync)
SYNC(fdatasync, SYS_fdatasync)

int syncfs(int fd) {
    int done;
    ON_FD(done, (int)syscall(SYS_syncfs, fd), fd, 'a', 0, NULL, 0);
    return done;
}

#define FALLOCATE(name)                                                                                                \
    int name(int fd, int mode, off64_t offset, off64_t length) {                                                       \
        int done;                                                                                                      \
        ON_FD(done, (int)syscall(SYS_fallocate, fd, mode, offset, length), fd, 'p', (long long)offset, NULL,           \
              (size_t)length);                                                                                         \
        return done;                                                                                                   \
    }
FALLOCATE(fallocate)
FALLOCATE(fallocate64)

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    int fd;
    if (!(flags & (O_CREAT | O_TRUNC)) || !ours(path))
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    struct stat before;
    int there = stat(path, &before) == 0;
    if (there && !(flags & O_TRUNC))
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    ON_PATH(fd, (int)syscall(SYS_openat, folder, path, flags, mode), path, there ? 't' : 'c', NULL, 0);
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list words;                                                                                                 \
        va_start(words, flags);                                                                                        \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(words, mode_t) : 0;                                       \
        va_end(words);                                                                                                 \
        return open_at(AT_FDCWD, path, flags, mode);                                                                   \
    }
OPEN(open)
OPEN(open64)

int unlink(const char *path) {
    int done;
    ON_PATH(done, (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0), path, 'u', NULL, 0);
    return done;
}

int rename(const char *from, const char *to) {
    int done;
    ON_PATH(done, (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), from, 'r', to + root_length + 1,
            strlen(to) - root_length - 1);
    return done;
}

int mkdir(const char *path, mode_t mode) {
    int done;
    ON_PATH(done, (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), path, 'm', NULL, 0);
    return done;
}
