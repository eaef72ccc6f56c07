/* io.h - one blocking call on one descriptor: io.c; what socket.c and file.c share. */
#ifndef GMPRT_PY_INTERPOSE_HOOKS_IO_H
#define GMPRT_PY_INTERPOSE_HOOKS_IO_H

#include "py/interpose/call.h"
#include "py/interpose/homes.h"
#include "sched/netpoll.h"

typedef struct io {
  call c;
  pollwait w;
  int64_t deadline; /* the socket's own time-out, when it is known; 0: none */
  bool partial;     /* something is done already, and will be returned: a cancel must wait */
  bool known;       /* that the descriptor is a blocking one, and the deadline */
} io;

/* What an attempt that would block leads to: an errno to fail with, or */
enum {
  IO_AGAIN = 0,
  IO_BLOCK = -1, /* it cannot be waited for here, or there is no memory for it: let the thread do it */
};

/* An attempt that cannot block.  Sysmon, who finds most threads of a server in such calls, need not come back soon
 * to see whether they have ended. */
#define IO_TRY(m, attempt) \
  ({ \
    store_rlx(&(m)->tries, true); \
    __typeof__(attempt) try_ = (attempt); \
    store_rlx(&(m)->tries, false); \
    try_; \
  })

bool io_begin(io *x, int fd, int mode);
bool io_blocking(io *x, int timeout_option);
int io_wait_hosted(io *x, int timeout_option);
int io_error(const io *x, int e);
bool io_ready(int fd, short events);

/* Tries `attempt`, which must not block, until it says something else than EAGAIN; `original` is the call itself. */
#define IO_CALL(fd, mode, timeout_option, attempt, original) \
  do { \
    io x; \
    if (!io_begin(&x, fd, mode)) return original; \
    for (;;) { \
      netpollsample(&x.w); \
      __typeof__(original) r_ = (attempt); \
      if (r_ >= 0) return r_; \
      int e_ = errno_get(); \
      e_ = e_ == EAGAIN ? io_wait_hosted(&x, timeout_option) : io_error(&x, e_); \
      if (e_ == IO_BLOCK) return original; \
      if (e_ != IO_AGAIN) return call_fail(&x.c, e_); \
    } \
  } while (0)

#endif
