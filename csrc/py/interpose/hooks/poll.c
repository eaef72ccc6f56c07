/* poll.c - waiting for many descriptors: poll, select, epoll_wait and their like.
 *
 * Each asks the kernel first, with a timeout of 0.  Nothing there: the goroutine waits for an event on any
 * of the descriptors (netpoll.c), and asks again.  An epoll instance of the program's is itself a
 * descriptor that can be waited for; so an asyncio loop parks like anything else.
 *
 * ppoll, pselect and epoll_pwait with a signal mask are left to the thread: the mask must hold for exactly the
 * time of the wait. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "sched/netpoll.h"
#include "py/interpose/hooks/hooks.h"

enum { FEW = 8 };

/* What is waited for, built anew for each try: pollDesc records and their counts of events. */
typedef struct pollset {
  pollwait few[FEW], *w;
  uint32_t n;
} pollset;

static bool set_init(pollset *s, size_t most) {
  s->n = 0;
  s->w = most <= FEW ? s->few : malloc(most * sizeof *s->w);
  return s->w != NULL;
}

static void set_free(pollset *s) {
  if (s->w != s->few) free(s->w);
}

/* false: the poller has no record for it. */
static bool set_add(pollset *s, int fd, bool in, bool out) {
  pollwait *w = &s->w[s->n];
  if (!netpollwatch(w, fd, in, out)) return false;
  s->n++;
  netpollsample(w);
  return true;
}

/* Parks until something may have happened; a close has, and the number is asked for again: whatever is found there, the
 * caller learns nothing but that he may try. 0: ask again. -1: time is up.  Else an errno; *block: the poller
 * cannot watch one of them, or memory is short: let the thread wait. */
static int set_wait(call *c, pollset *s, int64_t deadline, bool *block) {
  call_attach(c);
  wake_t w = s->n ? netpollwait(s->w, s->n, deadline, true)
                  : gopark(NULL, NULL, waitReasonIOWait, deadline);
  w = call_woken(c, w);
  call_detach(c);
  switch (w) {
    case WAKE_OK:
    case WAKE_CLOSED: return 0;
    case WAKE_TIMEOUT: return -1;
    case WAKE_BADFD:
    case WAKE_NOMEM: *block = true; return 0;
    default: return call_errno(c, w);
  }
}

static int64_t deadline_ms(int timeout) { return timeout < 0 ? 0 : nanotime() + (int64_t)timeout * 1000000; }

/* What is left of it, for the thread. */
static int left_ms(int64_t deadline) {
  if (!deadline) return -1;
  int64_t left = deadline - nanotime();
  return left <= 0 ? 0 : (int)((left + 999999) / 1000000);
}

/* What poll and select have in common: which descriptors they are about, and the question, which does not wait. */
typedef struct question {
  bool (*watch)(pollset *s, void *what);
  int (*ask)(void *what);
  void *what;
} question;

enum { BLOCK = -2 }; /* the thread has to wait */

static int ask_until(question q, size_t most, int64_t deadline) {
  call c;
  pollset s;
  if (!call_begin(&c, FAM_FD) || !set_init(&s, most)) return BLOCK;
  int r, e = 0;
  bool block = false;
  for (;;) {
    s.n = 0;
    block = !q.watch(&s, q.what);
    r = q.ask(q.what);
    if (r != 0 || block) break;
    e = set_wait(&c, &s, deadline, &block);
    if (e > 0) break;
    if (e < 0) r = q.ask(q.what); /* what came at the last moment counts */
    if (e < 0 || block) break;
  }
  if (r < 0)
    e = errno_get();
  else if (e > 0)
    r = -1;
  set_free(&s);
  if (block && r == 0) return BLOCK;
  return r < 0 ? call_fail(&c, e) : r;
}

/* ---- poll -------------------------------------------------------------------------------------------------- */

typedef struct pollfds {
  struct pollfd *fd;
  nfds_t n;
} pollfds;

static bool poll_watch(pollset *s, void *what) {
  const pollfds *f = what;
  bool ok = true;
  for (nfds_t i = 0; i < f->n && ok; i++) {
    const struct pollfd *p = &f->fd[i];
    if (p->fd < 0) continue;
    bool out = p->events & (POLLOUT | POLLWRBAND);
    bool in = !out || p->events & ~(POLLOUT | POLLWRBAND);
    ok = set_add(s, p->fd, in, out);
  }
  return ok;
}

static int poll_ask(void *what) {
  pollfds *f = what;
  return real.poll(f->fd, f->n, 0);
}

static int poll_until(struct pollfd *fds, nfds_t n, int64_t deadline) {
  int r = ask_until((question){poll_watch, poll_ask, &(pollfds){fds, n}}, n, deadline);
  return r == BLOCK ? real.poll(fds, n, left_ms(deadline)) : r;
}

int hook_poll(struct pollfd *fds, nfds_t n, int timeout) {
  if (timeout == 0 || !detached_g()) return real.poll(fds, n, timeout);
  return poll_until(fds, n, deadline_ms(timeout));
}

int hook_poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size) {
  if (n > size / sizeof *fds) abort();
  return hook_poll(fds, n, timeout);
}

int hook_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *mask) {
  if (mask || !detached_g()) return real.ppoll(fds, n, t, mask);
  if (t && (t->tv_nsec < 0 || t->tv_nsec >= 1000000000 || t->tv_sec < 0)) return real.ppoll(fds, n, t, mask);
  return poll_until(fds, n, t ? nanotime() + timespec_ns(t) : 0);
}

/* ---- select -------------------------------------------------------------------------------------------------- */

typedef struct fdsets {
  int n;
  fd_set *want[3], in[3]; /* the caller's; what they were */
} fdsets;

static void sets_save(fdsets *f) {
  for (int i = 0; i < 3; i++)
    if (f->want[i]) memcpy(&f->in[i], f->want[i], sizeof f->in[i]);
}

/* As the caller gave them: so they stay after a failure, and he may call again. */
static void sets_restore(fdsets *f) {
  for (int i = 0; i < 3; i++)
    if (f->want[i]) memcpy(f->want[i], &f->in[i], sizeof f->in[i]);
}

/* Asks the kernel: > 0 and -1 are final, with the caller's sets filled as it says. */
static int sets_ask(void *what) {
  fdsets *f = what;
  struct timeval now = {0, 0};
  sets_restore(f);
  return real.select(f->n, f->want[0], f->want[1], f->want[2], &now);
}

static bool sets_watch(pollset *s, void *what) {
  const fdsets *f = what;
  bool ok = true;
  for (int fd = 0; fd < f->n && ok; fd++) {
    bool in = (f->want[0] && FD_ISSET(fd, &f->in[0])) || (f->want[2] && FD_ISSET(fd, &f->in[2]));
    bool out = f->want[1] && FD_ISSET(fd, &f->in[1]);
    if (in || out) ok = set_add(s, fd, in, out);
  }
  return ok;
}

/* The thread waits instead. */
static int sets_block(fdsets *f, int64_t deadline) {
  struct timeval t, *tp = NULL;
  if (deadline) {
    int64_t us = (int64_t)left_ms(deadline) * 1000;
    t = (struct timeval){us / 1000000, us % 1000000};
    tp = &t;
  }
  sets_restore(f);
  return real.select(f->n, f->want[0], f->want[1], f->want[2], tp);
}

static int select_until(fdsets *f, int64_t deadline) {
  sets_save(f);
  int r = ask_until((question){sets_watch, sets_ask, f}, (size_t)f->n, deadline);
  if (r == BLOCK) return sets_block(f, deadline);
  if (r < 0) sets_restore(f);
  return r;
}

/* Linux counts the rest of the time down in the caller's timeval. */
static void left_into(struct timeval *t, int64_t deadline) {
  int64_t left = deadline - nanotime();
  if (left < 0) left = 0;
  *t = (struct timeval){left / 1000000000, left % 1000000000 / 1000};
}

int hook_select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *t) {
  bool poll = t && t->tv_sec == 0 && t->tv_usec == 0;
  if (poll || n < 0 || n > FD_SETSIZE || (t && (t->tv_sec < 0 || t->tv_usec < 0)) || !detached_g())
    return real.select(n, r, w, x, t);
  fdsets f = {.n = n, .want = {r, w, x}};
  int64_t deadline = t ? nanotime() + (int64_t)t->tv_sec * 1000000000 + (int64_t)t->tv_usec * 1000 : 0;
  int result = select_until(&f, deadline), e = errno_get();
  if (t) left_into(t, deadline);
  errno_set(e);
  return result;
}

int hook_pselect(int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *t, const sigset_t *mask) {
  if (mask || n < 0 || n > FD_SETSIZE || (t && (t->tv_sec < 0 || t->tv_nsec < 0)) || !detached_g())
    return real.pselect(n, r, w, x, t, mask);
  fdsets f = {.n = n, .want = {r, w, x}};
  return select_until(&f, t ? nanotime() + timespec_ns(t) : 0);
}

/* ---- epoll ------------------------------------------------------------------------------------------------------ */

static int epoll_until(int fd, struct epoll_event *ev, int max, int64_t deadline) {
  call c;
  pollset s = {.w = s.few};
  if (!call_begin(&c, FAM_FD)) return real.epoll_wait(fd, ev, max, left_ms(deadline));
  bool block = !set_add(&s, fd, true, false);
  for (;;) {
    int r = real.epoll_wait(fd, ev, max, 0);
    if (r > 0) return r;
    if (r < 0) return call_fail(&c, netpollgone(s.w) ? EBADF : errno_get());
    int e = block ? 0 : set_wait(&c, &s, deadline, &block);
    if (e <= 0 && netpollgone(s.w)) return call_fail(&c, EBADF); /* the events are another's */
    if (block) return real.epoll_wait(fd, ev, max, left_ms(deadline));
    if (e > 0) return call_fail(&c, e);
    if (e < 0) {
      r = real.epoll_wait(fd, ev, max, 0);
      return r < 0 ? call_fail(&c, errno_get()) : r;
    }
    netpollsample(s.w);
  }
}

int hook_epoll_wait(int fd, struct epoll_event *ev, int max, int timeout) {
  if (timeout == 0 || !detached_g()) return real.epoll_wait(fd, ev, max, timeout);
  return epoll_until(fd, ev, max, deadline_ms(timeout));
}

int hook_epoll_pwait(int fd, struct epoll_event *ev, int max, int timeout, const sigset_t *mask) {
  if (mask || timeout == 0 || !detached_g()) return real.epoll_pwait(fd, ev, max, timeout, mask);
  return epoll_until(fd, ev, max, deadline_ms(timeout));
}
