/* ownfd.c - descriptors of the runtime's own, among those of the program.
 *
 * A program may close every number that it did not open itself (daemons do), or put a file of its own at any number
 * with dup2.  Its own descriptors it knows, ours it does not: to it they are not open.  So
 *   - they lie high (but below 1024), where loops over small numbers and the lowest free number do not meet them;
 *   - the host's stand-ins for close and its like ask ownfd_is(), and pass over them; one that is to be
 *     overwritten moves away first (ownfd_move);
 *   - code that nobody sees may close one all the same.  Nothing is written to or read from a number before a look
 *     whether it is still what was opened (device and inode).  Its owner makes a new one then.
 * Two files without inodes of their own (another eventfd) are not told apart, unless we hear of it (ownfd_taken).
 *
 * The number is used with the lock held: moved away meanwhile, it would belong to the program.  Records are pooled and never
 * freed, so who looks without the lock finds a record.  errno is left alone (os_linux.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"
#include "base/lockrank.h"
#include "base/ownfd.h"

enum { HIGHEST = 1024, ROOM = 64 };

struct ownfd {
  _Atomic int fd; /* -1: gone */
  bool used;
  dev_t dev;
  ino_t ino;
  ownfd *next;
};

static struct {
  spinlock lock;
  ownfd *all;
  _Atomic int lowest; /* no number of ours is below; it only falls */
} own = {.lowest = INT_MAX};

static bool look(int fd, struct stat *st) { return cpu_syscall(SYS_fstat, fd, (long)st, 0, 0, 0, 0) == 0; }

static int high(void) {
  struct rlimit rl;
  rlim_t end = getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < HIGHEST ? rl.rlim_cur : HIGHEST;
  return end > 2 * ROOM ? (int)end - ROOM : (int)(end / 2);
}

static void lowered(int fd) {
  if (fd < load_rlx(&own.lowest)) store_rlx(&own.lowest, fd);
}

/* Lock held, or nobody else knows o. */
static bool intact(const ownfd *o) {
  struct stat st;
  int fd = load_rlx(&o->fd);
  return fd >= 0 && look(fd, &st) && st.st_dev == o->dev && st.st_ino == o->ino;
}

/* Lock held: the kernel has given out this number, so it is no more what it was. */
static void taken(int fd) {
  for (ownfd *o = own.all; o; o = o->next)
    if (load_rlx(&o->fd) == fd) store_rlx(&o->fd, -1);
}

/* fd is the runtime's from now on; its number changes.  NULL: errno says why, and fd is closed.  EBADF: somebody closes
 * all there is at this moment, so try again. */
ownfd *ownfd_new(int fd) {
  struct stat st;
  if (fd < 0) return NULL;
  int far = fcntl(fd, F_DUPFD_CLOEXEC, high());
  if (far >= 0) close(fd);
  if (far < 0) far = fd; /* no room there */
  spin_lock(&own.lock);
  ownfd *o = own.all;
  while (o && o->used) o = o->next;
  if (!o && (o = calloc(1, sizeof *o))) {
    o->next = own.all;
    own.all = o;
  }
  bool there = look(far, &st);
  taken(far);
  if (o && there) {
    o->used = true;
    o->dev = st.st_dev;
    o->ino = st.st_ino;
    lowered(far);
    store_rel(&o->fd, far);
  }
  spin_unlock(&own.lock);
  if (o && there) return o;
  if (there) close(far);
  errno = there ? ENOMEM : EBADF;
  return NULL;
}

void ownfd_free(ownfd *o) {
  if (!o) return;
  spin_lock(&own.lock);
  bool ours = intact(o);
  int fd = load_rlx(&o->fd);
  store_rlx(&o->fd, -1);
  o->used = false;
  spin_unlock(&own.lock);
  if (ours) cpu_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* Its number is somebody else's. */
void ownfd_forget(ownfd *o) {
  store_rlx(&o->fd, -1);
  ownfd_free(o);
}

int ownfd_number(const ownfd *o) { return load_rlx(&o->fd); }

/* Of an eventfd. false: it is gone. */
bool ownfd_post(ownfd *o) {
  uint64_t one = 1;
  spin_lock(&own.lock);
  bool ok = intact(o);
  if (ok) cpu_syscall(SYS_write, load_rlx(&o->fd), (long)&one, sizeof one, 0, 0, 0); /* full: it is awake anyway */
  spin_unlock(&own.lock);
  return ok;
}

bool ownfd_drain(ownfd *o) {
  uint64_t junk;
  spin_lock(&own.lock);
  bool ok = intact(o);
  if (ok) cpu_syscall(SYS_read, load_rlx(&o->fd), (long)&junk, sizeof junk, 0, 0, 0);
  spin_unlock(&own.lock);
  return ok;
}

bool ownfd_intact(ownfd *o) {
  spin_lock(&own.lock);
  bool ok = intact(o);
  spin_unlock(&own.lock);
  return ok;
}

/* ---- for the stand-ins of close and dup2 --------------------------------------------------------------------- */

/* Lock held: the record with the lowest number of at least fd. */
static ownfd *from(int fd) {
  ownfd *found = NULL;
  for (ownfd *o = own.all; o; o = o->next) {
    int at = load_rlx(&o->fd);
    if (at >= fd && (!found || at < load_rlx(&found->fd)) && intact(o)) found = o;
  }
  return found;
}

/* The lowest number of ours of at least fd, or UINT_MAX. */
unsigned ownfd_from(unsigned fd) {
  if (fd > INT_MAX) return UINT_MAX;
  spin_lock(&own.lock);
  ownfd *o = from((int)fd);
  unsigned at = o ? (unsigned)load_rlx(&o->fd) : UINT_MAX;
  spin_unlock(&own.lock);
  return at;
}

bool ownfd_is(int fd) {
  if (likely(fd < load_rlx(&own.lowest))) return false;
  return ownfd_from((unsigned)fd) == (unsigned)fd;
}

/* The program has been given this number. */
void ownfd_taken(int fd) {
  if (likely(fd < load_rlx(&own.lowest))) return;
  spin_lock(&own.lock);
  taken(fd);
  spin_unlock(&own.lock);
}

/* The program is about to put a file of its own at this number: 0, or an errno. */
int ownfd_move(int fd) {
  if (likely(fd < load_rlx(&own.lowest))) return 0;
  int e = 0;
  spin_lock(&own.lock);
  ownfd *o = from(fd);
  if (o && load_rlx(&o->fd) == fd) {
    long to = cpu_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd + 1, 0, 0, 0);
    if (to < 0) to = cpu_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0, 0, 0);
    if (to < 0)
      e = (int)-to;
    else {
      lowered((int)to);
      store_rlx(&o->fd, (int)to);
      cpu_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
    }
  }
  spin_unlock(&own.lock);
  return e;
}

/* In a forked child they are the parent's: closed, and their records free. */
void ownfd_afterfork(void) {
  memset(&own.lock, 0, sizeof own.lock);
  for (ownfd *o = own.all; o; o = o->next) ownfd_free(o);
}
