/* identity.c - who runs: a goroutine is a thread of its own to Python and to the C library.
 *
 * CPython asks pthread_self() who runs: RLock, the import lock, buffered I/O, sqlite and the check for the main
 * thread go by the answer.  In the interpreter it answers with the goroutine's ident, which is kept in its
 * thread state and stays the same wherever it runs.  (Not in other libraries: they combine it with
 * pthread_*() calls of their own.)
 *
 * Idents are addresses 64 bytes apart in one mapping that is never written: reading behind one finds
 * zeros, as much as glibc's thread descriptor is long, so a pthread_*() function that is handed one fails
 * cleanly.  Those that Python offers to its users translate: to the thread that runs the goroutine now.
 *
 * The main goroutine of run() keeps the ident of the thread that lends its state: on the main thread it
 * is the main thread to Python, wherever it runs. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "py/host/identity.h"

enum { IDENT_STEP = 64, PAGE = 4096 };
#define IDENT_SPACE ((size_t)4 << 30) /* address space for 64 M goroutines, never touched */

static char *idents;
static size_t next_ident;

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

/* 0: no memory. */
unsigned long identity_new(void) {
  if (!idents) {
    char *p = mmap(NULL, IDENT_SPACE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) /* address space is limited: any small, distinct, readable place */
      p = mmap(NULL, PAGE * 256, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 0;
    idents = p;
  }
  return (unsigned long)(uintptr_t)idents + IDENT_STEP * next_ident++;
}

bool is_goroutine(pthread_t t) {
  uintptr_t at = (uintptr_t)t;
  return idents && at >= (uintptr_t)idents && at < (uintptr_t)idents + IDENT_STEP * next_ident;
}

/* The living goroutine with that ident; NULL: a thread's. GIL held. O(goroutines). */
G *goroutine_of(pthread_t t) {
  if (!is_goroutine(t)) return NULL;
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    PyThreadState *ts = gp->kind == GK_HOST ? ts_of(gp) : NULL;
    if (ts && ts->thread_id == (unsigned long)t && gp->handle) return gp;
  }
  return NULL;
}
