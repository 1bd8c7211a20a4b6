/* Preloaded into a writer: SIGKILLs it at the n-th call that changes a file, before the call or in its middle.
   Standard streams do not count. Until arm() nothing happens. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long left = -1;
static int torn = 0;

void arm(long point, int in_the_middle) { left = point; torn = in_the_middle; }

static int due(int fd) { return fd > 2 && left > 0 && --left == 0; }
static void die(void) { kill(getpid(), SIGKILL); pause(); }

ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  if (due(fd)) { if (torn) real(fd, data, size / 2); die(); }
  return real(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  if (due(fd)) { if (torn) real(fd, data, size / 2, at); die(); }
  return real(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
  static ssize_t (*real)(int, const struct iovec *, int);
  if (!real) real = dlsym(RTLD_NEXT, "writev");
  if (due(fd)) die();
  return real(fd, parts, count);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  static ssize_t (*real)(int, const struct iovec *, int, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwritev64");
  if (due(fd)) die();
  return real(fd, parts, count, at);
}
int ftruncate64(int fd, off64_t size) {
  static int (*real)(int, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "ftruncate64");
  if (due(fd)) die();
  return real(fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  if (due(fd)) die();
  return real(fd);
}
int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  if (due(fd)) die();
  return real(fd);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
  static int (*real)(int, off64_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "posix_fallocate64");
  if (due(fd)) die();
  return real(fd, at, size);
}
int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  if (due(3)) die();
  return real(from, to);
}
int unlink(const char *path) {
  static int (*real)(const char *);
  if (!real) real = dlsym(RTLD_NEXT, "unlink");
  if (due(3)) die();
  return real(path);
}
