/* hibernate.c - which goroutines may sleep without their stack (sched/hibernate.c), and what is seen of them meanwhile.
 *
 * A Python goroutine's stack may go if nothing but the goroutine refers to it:
 *   - no C code of others has frames there.  The interpreter and the modules of the standard library keep no address of
 *     their stacks anywhere, but for who waits for a lock (LOCKS_ON_STACK).  An extension module may: pybind11 has a list
 *     of its frames;
 *   - it does not collect garbage, and waits in a finalizer: the collector's lists of objects begin on its stack, and who
 *     frees one of those objects meanwhile writes there.  Whose collection it is is not to be seen, so while there is one
 *     nobody falls asleep;
 *   - nobody holds one of its frames: a generator's lies elsewhere and refers to its caller's, a traceback's or a
 *     debugger's has an object;
 *   - its frames lie in the chunk above its C stack, and its thread's state is its own: not lent, not a thread's.
 *
 * While it sleeps its state shows no frames: the collector does not look at frames that have no objects, and who looks
 * from outside the process, or in a crash, finds none.  Who asks the handle (stack(), frame(), dumps) rouses it, who
 * asks for all frames rouses all (shim.c); where that is not replaced, nobody sleeps. */
#include "py/host/above.h"
#include "py/host/hibernate.h"
#include "py/host/host.h"

static bool own_state(const Goroutine *self) {
  return self && self->started && !self->done && !self->lent && !self->pythread && !self->greenlets && !has_homes(self);
}

static bool waits_for_lock(G *gp) { return load_rlx(&gp->reason) == waitReasonSemacquire && gp->sg.root; }

char *host_drowsy(G *gp) {
  const Goroutine *self = gp->handle;
  if (interposed.nothing || collecting() || !own_state(self) || (LOCKS_ON_STACK && waits_for_lock(gp))) return NULL;
  PyThreadState *ts = ts_of(gp);
  char *end = tstate_chunk_end(ts, gp);
  if (!end || entered_below(gp) || !frames_private(ts, gp->sp, end)) return NULL;
  return above.private_stack(gp->sp, gp->stk.hi) ? end : NULL;
}

void *host_hide(G *gp) { return frames_hide(ts_of(gp)); }
void host_show(G *gp, void *hidden) { frames_show(ts_of(gp), hidden); }
