/* gmprt.h - the C interface of gmprt: native goroutines, channels, select, mutexes, sleep, descriptors.
 *
 * A native goroutine is a C function with a stack of its own that runs on any OS thread of the runtime,
 * without Python's GIL.  It must not touch Python objects, and must not keep addresses of thread-local
 * variables (errno among them) across a call that may park: it may wake on another thread.
 *
 * Every function marked (any) may also be called from an ordinary OS thread, which then blocks; call it
 * without the GIL.  Times are nanoseconds; a timeout < 0 waits for ever, 0 polls.
 *
 * Extension modules compile against this header (gmprt.native.include_dir()) and find the functions at
 * run time through `const gm_api *` = gmprt.native.api_pointer(), which needs no linking. */
#ifndef GMPRT_H
#define GMPRT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GM_API_VERSION 1

typedef struct gm_chan gm_chan;

typedef enum gm_result {
  GM_OK = 0,         /* done */
  GM_CLOSED = 1,     /* the channel is closed (and, for a receive, drained) */
  GM_WOULDBLOCK = 2, /* timeout 0, and not ready */
  GM_TIMEOUT = 3,    /* the time is up */
  GM_CANCELLED = 4,  /* the waiting goroutine was cancelled (Python goroutines only) */
  GM_INTERRUPTED = 5,/* a signal; only threads that run Python hear of it */
  GM_NOMEM = 7,      /* no memory, no thread */
  GM_INVALID = 8     /* gm_go: no function; gm_preemptible: no range */
} gm_result;

typedef struct gm_case {
  gm_chan *chan; /* NULL: never ready */
  void *elem;    /* send: the value; receive: where it goes (may be NULL) */
  bool send;
} gm_case;

typedef struct gm_mutex { /* all zero is an unlocked mutex */
  uint64_t lock;
  uint32_t state, pad;
  void *waiters[2];
} gm_mutex;

typedef struct gm_sema { /* all zero has the value 0 */
  uint64_t lock;
  uint32_t value, pad;
  void *waiters[2];
} gm_sema;

/* Start the runtime if it does not run: 0, or an errno. gm_go and native channels need it. */
int gm_start(void);
/* Start fn(arg) as a native goroutine. (any)  GM_NOMEM: no stack or no thread could be had. */
gm_result gm_go(void (*fn)(void *), void *arg);
/* Let others run. In a foreign thread: sched_yield. (any) */
void gm_yield(void);
/* Park for ns nanoseconds; <= 0 yields. (any) */
gm_result gm_sleep(int64_t ns);
/* The id of the calling goroutine, 0 in an ordinary thread. (any) */
uint64_t gm_goid(void);

/* A channel of `capacity` elements of `elemsize` bytes (1..65535). NULL: no memory or bad size. */
gm_chan *gm_chan_make(size_t elemsize, size_t capacity);
/* Free a channel that nobody uses any more. */
void gm_chan_free(gm_chan *c);
gm_result gm_chan_send(gm_chan *c, const void *elem, int64_t timeout); /* (any) */
gm_result gm_chan_recv(gm_chan *c, void *elem, int64_t timeout);       /* (any) elem may be NULL */
/* Many elements at once, in order, as an array of them; *sent and *got are set whatever is returned. (any)
 * send_many: GM_OK if all n have gone. recv_many waits for one and takes what is there besides, at most n.
 * The memory is the other side's to read or write until the call returns, and the channel is in use as long. */
gm_result gm_chan_send_many(gm_chan *c, const void *elems, size_t n, size_t *sent, int64_t timeout);
gm_result gm_chan_recv_many(gm_chan *c, void *elems, size_t n, size_t *got, int64_t timeout);
gm_result gm_chan_close(gm_chan *c); /* (any) GM_CLOSED: it was closed already */
size_t gm_chan_len(gm_chan *c);
size_t gm_chan_cap(gm_chan *c);
bool gm_chan_closed(gm_chan *c);
/* Go's select: exactly one case takes effect, a random one among the ready. (any)
 * Returns its index and sets *result to GM_OK or GM_CLOSED; -1 with GM_WOULDBLOCK, GM_TIMEOUT, ... */
int32_t gm_select(const gm_case *cases, int32_t n, int64_t timeout, gm_result *result);

gm_result gm_mutex_lock(gm_mutex *m, int64_t timeout); /* (any) Go's sync.Mutex, starvation mode included */
bool gm_mutex_trylock(gm_mutex *m);                    /* (any) */
bool gm_mutex_unlock(gm_mutex *m);                     /* (any) false: it was not locked */
gm_result gm_sema_acquire(gm_sema *s, int64_t timeout); /* (any) */
void gm_sema_release(gm_sema *s, uint32_t n);           /* (any) */

/* read, write and accept on pollable descriptors: the goroutine parks while the descriptor is not ready.
 * The descriptor is made non-blocking. -1 and errno as the system calls. (native goroutines) */
ssize_t gm_read(int fd, void *buf, size_t n);
ssize_t gm_write(int fd, const void *buf, size_t n);
int gm_accept(int fd, int flags);
/* close(2) for what was given to the three above: whoever waits for it gets EBADF. (any) */
int gm_close(int fd);

/* Around anything else that blocks: others keep running meanwhile. (native goroutines) */
void gm_enter_blocking(void);
void gm_exit_blocking(void);

/* Goroutines that run for long may be preempted anywhere in [start, end), as Go's are.  For code that computes:
 * what lies in the range takes no lock, keeps no address of a thread-local variable (errno!), and calls
 * other code freely, for elsewhere nobody is preempted.  Put such functions into a section of their own:
 *
 *     __attribute__((section("gm_text"), noinline)) static void compute(...) { ... }
 *     extern const char __start_gm_text[], __stop_gm_text[];   // the linker's
 *     gm_preemptible(__start_gm_text, __stop_gm_text);
 *
 * All registers are kept, vector registers too, but for AMX tiles.  GM_NOMEM: there are 256 ranges already. */
gm_result gm_preemptible(const void *start, const void *end);

const struct gm_api *gm_api_table(void);

typedef struct gm_api {
  uint32_t version, size;
  gm_result (*go)(void (*fn)(void *), void *arg);
  void (*yield)(void);
  gm_result (*sleep)(int64_t ns);
  uint64_t (*goid)(void);
  gm_chan *(*chan_make)(size_t elemsize, size_t capacity);
  void (*chan_free)(gm_chan *c);
  gm_result (*chan_send)(gm_chan *c, const void *elem, int64_t timeout);
  gm_result (*chan_recv)(gm_chan *c, void *elem, int64_t timeout);
  gm_result (*chan_close)(gm_chan *c);
  size_t (*chan_len)(gm_chan *c);
  size_t (*chan_cap)(gm_chan *c);
  int32_t (*select)(const gm_case *cases, int32_t n, int64_t timeout, gm_result *result);
  gm_result (*mutex_lock)(gm_mutex *m, int64_t timeout);
  bool (*mutex_trylock)(gm_mutex *m);
  bool (*mutex_unlock)(gm_mutex *m);
  gm_result (*sema_acquire)(gm_sema *s, int64_t timeout);
  void (*sema_release)(gm_sema *s, uint32_t n);
  ssize_t (*read)(int fd, void *buf, size_t n);
  ssize_t (*write)(int fd, const void *buf, size_t n);
  int (*accept)(int fd, int flags);
  int (*close)(int fd);
  void (*enter_blocking)(void);
  void (*exit_blocking)(void);
  gm_result (*preemptible)(const void *start, const void *end);
  gm_result (*chan_send_many)(gm_chan *c, const void *elems, size_t n, size_t *sent, int64_t timeout);
  gm_result (*chan_recv_many)(gm_chan *c, void *elems, size_t n, size_t *got, int64_t timeout);
} gm_api;

#ifdef __cplusplus
}
#endif

#endif
