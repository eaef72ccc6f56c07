/* identity.c - who runs: a goroutine is a thread of its own to Python and to the C library.
 *
 * CPython asks pthread_self() who runs: RLock, the import lock, buffered I/O, sqlite and the check for the main
 * thread go by the answer.  In the interpreter it answers with the goroutine's ident, which is kept in its
 * thread state and stays the same wherever it runs.  (Not in other libraries: they combine it with
 * pthread_*() calls of their own.)
 *
 * Idents are addresses 64 bytes apart in memory that is never written: reading behind one finds
 * zeros, as much as glibc's thread descriptor is long, so a pthread_*() function that is handed one fails
 * cleanly.  Those that Python offers to its users translate: to the thread that runs the goroutine now.
 *
 * The main goroutine of run() keeps the ident of the thread that lends its state: on the main thread it
 * is the main thread to Python, wherever it runs.
 *
 * A thread of the interpreter's that is a goroutine (pythread.c) has an ident of its own, from another mapping.  It is
 * used again when the thread has ended and was joined or detached, as the C library does; whoever comes second, the end
 * or the other, gives it back.  Both may come without the GIL; only who has it takes one. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "py/host/goroutine.h"
#include "py/host/identity.h"

enum { IDENT_STEP = 64, PAGE = 4096, IDENTS = 1 << 16, BLOCKS = 1 << 10 };
#define BLOCK_SIZE ((size_t)IDENT_STEP * IDENTS)

/* Address space for 64 M goroutines, 4 MiB at a time: it may be limited.  Behind a block's idents and a page of zeros
 * there is a word for each. */
static char *blocks[BLOCKS];
static _Atomic uint32_t nblocks;
static uint32_t used;       /* idents that have ever been taken */
static uint32_t first_free; /* number of one that was given back, from 1; its word: of the next; 0: no more */

/* What an ordinary thread answers that stands for another one (a forked child's). */
static __thread unsigned long stands_for __attribute__((tls_model("initial-exec")));

/* The thread whose ident it was does not exist in the child: the C library gives its descriptor to a new one. */
static unsigned long survives;

void identity_stand_for(unsigned long ident) {
  stands_for = ident;
  survives = (pthread_t)ident != pthread_self() ? ident : 0;
}
unsigned long identity_stood_for(void) { return stands_for; }
bool identity_taken(pthread_t t) { return (unsigned long)t == survives; }
bool identity_in_danger(void) { return survives != 0; }

static bool block_map(void) {
  uint32_t n = load_rlx(&nblocks);
  if (n == BLOCKS) return false;
  size_t size = BLOCK_SIZE + PAGE + sizeof(uint32_t) * IDENTS;
  char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  blocks[n] = p;
  store_rel(&nblocks, n + 1);
  return true;
}

static uint32_t *word_of(uint32_t n) { return (uint32_t *)(blocks[n / IDENTS] + BLOCK_SIZE + PAGE) + n % IDENTS; }

/* GIL held. 0: no memory. */
unsigned long identity_new(void) {
  uint32_t n = first_free;
  if (n) {
    first_free = *word_of(--n);
  } else {
    if (used == load_rlx(&nblocks) * IDENTS && !block_map()) return 0;
    n = used++;
  }
  return (unsigned long)(uintptr_t)blocks[n / IDENTS] + IDENT_STEP * (n % IDENTS);
}

/* Nobody has it any more; GIL held. */
void identity_back(unsigned long ident) {
  uint32_t i = 0, blocks_used = load_rlx(&nblocks);
  while (i < blocks_used && ident - (unsigned long)(uintptr_t)blocks[i] >= BLOCK_SIZE) i++;
  if (i == blocks_used) return; /* none of these */
  uint32_t n = i * IDENTS + (uint32_t)((ident - (unsigned long)(uintptr_t)blocks[i]) / IDENT_STEP);
  *word_of(n) = first_free;
  first_free = n + 1;
}

/* ---- threads of the interpreter ------------------------------------------------------------------------------- */

enum { THREADS = 1 << 20, ENDED = 1, RELEASED = 2 };

static struct {
  char *idents;
  _Atomic uint32_t *word; /* of a thread: ENDED, RELEASED; of a free ident: the number of the next one */
  _Atomic uint32_t free;  /* number of the first one that was given back, from 1 */
  uint32_t used;          /* idents that have ever been taken */
} threads;

static bool threads_map(void) {
  size_t idents_size = (size_t)IDENT_STEP * (THREADS + 1), size = idents_size + sizeof(uint32_t) * (THREADS + 1);
  char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  threads.word = (void *)(p + idents_size);
  threads.idents = p;
  return true;
}

static unsigned long thread_ident(uint32_t n) { return (unsigned long)(uintptr_t)threads.idents + IDENT_STEP * n; }
static uint32_t thread_number(unsigned long ident) {
  return (uint32_t)((ident - (unsigned long)(uintptr_t)threads.idents) / IDENT_STEP);
}

/* The first of the list is taken by nobody else meanwhile: who would needs the GIL. */
static uint32_t take_free(void) {
  uint32_t n;
  do n = load_acq(&threads.free);
  while (n && !cas(&threads.free, n, load_rlx(&threads.word[n])));
  return n;
}

unsigned long identity_thread_new(void) {
  if (!threads.idents && !threads_map()) return 0;
  uint32_t n = take_free();
  if (!n && threads.used == THREADS) return 0;
  if (!n) n = ++threads.used;
  store_rlx(&threads.word[n], 0);
  return thread_ident(n);
}

static void happened(unsigned long ident, uint32_t what) {
  uint32_t n = thread_number(ident), first;
  if (!atomic_fetch_or(&threads.word[n], what)) return;
  do store_rlx(&threads.word[n], first = load_rlx(&threads.free));
  while (!cas(&threads.free, first, n));
}

void identity_thread_ended(unsigned long ident) { happened(ident, ENDED); }
void identity_thread_released(unsigned long ident) { happened(ident, RELEASED); }
bool identity_thread_has_ended(unsigned long ident) {
  return load_acq(&threads.word[thread_number(ident)]) & ENDED;
}

bool is_thread_ident(pthread_t t) {
  uintptr_t at = (uintptr_t)t, from = (uintptr_t)threads.idents;
  return from && at >= from && at <= from + (size_t)IDENT_STEP * THREADS;
}

bool is_goroutine(pthread_t t) {
  uint32_t n = load_acq(&nblocks);
  for (uint32_t i = 0; i < n; i++)
    if ((uintptr_t)t - (uintptr_t)blocks[i] < BLOCK_SIZE) return true;
  return is_thread_ident(t);
}

/* By which others know it, also before it has begun; 0: it does not live. */
static unsigned long ident_of(G *gp) {
  PyThreadState *ts = gp->kind == GK_HOST ? ts_of(gp) : NULL;
  const Goroutine *self = gp->handle;
  if (!ts || !self) return 0;
  if (likely(!self->pythread)) return ts->thread_id;
  return self->alike ? self->thread.ident : self->thread.other->thread_id;
}

/* The living goroutine with that ident; NULL: a thread's. GIL held. O(goroutines). */
G *goroutine_of(pthread_t t) {
  if (!is_goroutine(t)) return NULL;
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;)
    if (ident_of(gp) == (unsigned long)t) return gp;
  return NULL;
}
