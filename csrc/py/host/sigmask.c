/* sigmask.c - the signal mask belongs to the goroutine.
 *
 * The runtime's threads block nearly all signals (base/os_linux.c), so that Python's handlers run on the program's own
 * threads.  That must not be seen: a goroutine has a mask of its own, inherited at go(); pthread_sigmask reads and
 * changes it (interpose/hooks/signal.c).  Most have the program's, and nothing is kept for them. */
#include <pthread.h>

#include "py/host/above.h"
#include "py/host/lender.h"
#include "py/host/sigmask.h"

/* The mask of an ordinary thread, as far as it is known: asked once, then kept by the hook. */
static __thread struct {
  bool known;
  uint64_t bits;
} thread_mask __attribute__((tls_model("initial-exec")));

/* Signals are numbered from 1; the first word of a sigset_t has them all. */
uint64_t to_bits(const sigset_t *s) {
  uint64_t b;
  memcpy(&b, s, sizeof b);
  return b;
}
void from_bits(sigset_t *s, uint64_t b) {
  sigemptyset(s);
  memcpy(s, &b, sizeof b);
}

static uint64_t mask_of_thread(void) {
  if (!thread_mask.known) {
    sigset_t s;
    pthread_sigmask(SIG_SETMASK, NULL, &s);
    thread_mask.bits = to_bits(&s);
    thread_mask.known = true;
  }
  return thread_mask.bits;
}

void mask_of_thread_changed(void) { thread_mask.known = false; }

static uint64_t mask_of_handle(Goroutine *self) {
  return self->masked ? self->more->sigmask : os_program_bits();
}
uint64_t mask_of(G *gp) { return mask_of_handle(handle_of(gp)); }

/* false: no memory. */
bool mask_set(G *gp, uint64_t bits) {
  Goroutine *self = handle_of(gp);
  if (self->masked || bits != os_program_bits()) {
    if (!extras_raw(self)) return false;
    self->more->sigmask = bits;
    self->masked = true;
  }
  if (self->lent) lender_set_mask(gp, bits); /* the lending thread adopts it before we return */
  return true;
}

/* At go(), by the spawner: self has its mask.  false: exception set. */
bool mask_inherit(Goroutine *self, Goroutine *parent) {
  if (likely(parent && !parent->masked)) return true;
  uint64_t bits = parent ? parent->more->sigmask : mask_of_thread();
  if (likely(bits == os_program_bits()) || interposed.nothing) return true;
  if (!extras_of(self)) return false;
  self->more->sigmask = bits;
  self->masked = true;
  return true;
}
