/* SPDX-FileCopyrightText: 2026 netvlad_ros authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process, records what it does to the files below $SHIM_FOLDER in $SHIM_LOG, in
 * order and with the data, so that a test can replay a power cut. With $SHIM_FULL_AFTER every
 * write fails with ENOSPC once that many bytes were written; while a file $SHIM_FOLDER.full
 * exists, too. With $SHIM_READ_ONLY no file there can be opened for writing.
 *
 * Record: one letter, u32 length of name, name, u64 offset, u64 length of data, data.
 *   W write, T truncate (offset = length), S sync of a file, D sync of a folder, C create,
 *   R rename (data = new name), U unlink. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int log_fd = -1;
static const char *folder;
static long full_after = -1, written;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char names[4096][512];

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); \
  if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t real_write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  return real(fd, data, size);
}

__attribute__((constructor)) static void start(void) {
  const char *log = getenv("SHIM_LOG"), *full = getenv("SHIM_FULL_AFTER");
  folder = getenv("SHIM_FOLDER");
  if (full) full_after = atol(full);
  REAL(int, open64, const char *, int, ...);
  if (log) log_fd = real(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int watched(const char *name) {
  return folder && !strncmp(name, folder, strlen(folder));
}

static const char *name_of(int fd) {
  return fd >= 0 && fd < 4096 && names[fd][0] ? names[fd] : NULL;
}

static void record(char kind, const char *name, uint64_t offset, const void *data, uint64_t size) {
  uint32_t length = strlen(name);
  if (log_fd < 0) return;
  pthread_mutex_lock(&lock);
  real_write(log_fd, &kind, 1);
  real_write(log_fd, &length, 4);
  real_write(log_fd, name, length);
  real_write(log_fd, &offset, 8);
  real_write(log_fd, &size, 8);
  for (uint64_t done = 0; done < size;) {
    ssize_t n = real_write(log_fd, (const char *)data + done, size - done);
    if (n <= 0) abort();
    done += n;
  }
  pthread_mutex_unlock(&lock);
}

static int is_full(size_t size) {
  char flag[600];
  if (!folder) return 0;
  snprintf(flag, sizeof flag, "%s.full", folder);
  written += size;
  if ((full_after >= 0 && written > full_after) || access(flag, F_OK) == 0) {
    errno = ENOSPC;
    return 1;
  }
  return 0;
}

static int opened(int fd, const char *name, int flags, int was_there) {
  char full[512];
  if (fd < 0 || fd >= 4096) return fd;
  names[fd][0] = 0;
  if (name[0] != '/') {
    char here[256];
    if (!getcwd(here, sizeof here)) return fd;
    snprintf(full, sizeof full, "%s/%.250s", here, name);
    name = full;
  }
  if (!watched(name) || strlen(name) > 500) return fd;
  strcpy(names[fd], name);
  if ((flags & O_CREAT) && !was_there) record('C', name, 0, NULL, 0);
  else if (flags & O_TRUNC) record('T', name, 0, NULL, 0);
  return fd;
}

#define OPEN(function) int function(const char *name, int flags, ...) { \
  REAL(int, function, const char *, int, ...); \
  va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
  int there = access(name, F_OK) == 0; \
  if (getenv("SHIM_READ_ONLY") && watched(name) && !strstr(name, ".acks") && \
      ((flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT))) { errno = EROFS; return -1; } \
  return opened(real(name, flags, mode), name, flags, there); }
OPEN(open)
OPEN(open64)

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
  const char *name = name_of(fd);
  if (name && is_full(size)) return -1;
  ssize_t n = real(fd, data, size, offset);
  if (name && n > 0) record('W', name, offset, data, n);
  return n;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  return pwrite64(fd, data, size, offset);
}
ssize_t write(int fd, const void *data, size_t size) {
  const char *name = name_of(fd);
  if (name && is_full(size)) return -1;
  off_t offset = name ? lseek(fd, 0, SEEK_CUR) : 0;
  ssize_t n = real_write(fd, data, size);
  if (name && n > 0) record('W', name, offset, data, n);
  return n;
}

#define SYNC(function) int function(int fd) { \
  REAL(int, function, int); \
  const char *name = name_of(fd); struct stat about; \
  if (name) record(fstat(fd, &about) == 0 && S_ISDIR(about.st_mode) ? 'D' : 'S', name, 0, NULL, 0); \
  return 0; } /* the test replays the log: the disk need not be kept waiting */
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(function, type) int function(int fd, type length) { \
  REAL(int, function, int, type); \
  const char *name = name_of(fd); \
  if (name) record('T', name, length, NULL, 0); \
  return real(fd, length); }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int close(int fd) {
  REAL(int, close, int);
  if (fd >= 0 && fd < 4096) names[fd][0] = 0;
  return real(fd);
}
int unlink(const char *name) {
  REAL(int, unlink, const char *);
  if (watched(name)) record('U', name, 0, NULL, 0);
  return real(name);
}
int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  if (watched(from)) record('R', from, 0, to, strlen(to));
  return real(from, to);
}
