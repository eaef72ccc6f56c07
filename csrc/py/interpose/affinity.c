/* affinity.c - C code below Python code that must not change its thread.
 *
 * C code that has called Python finds itself on another thread when the goroutine has parked in there, or was
 * preempted, and went on elsewhere.  To the interpreter and the standard library that makes no difference.  But an
 * extension module may keep something per thread over the call: PyO3, with which all of Rust's modules are
 * made, counts there how often it has been entered; pybind11 keeps a list of its frames; C++ the exceptions that are
 * being handled; a mutex has an owner.  So a goroutine with such code on its stack parks wired (park.c): its
 * thread waits with it, and others run elsewhere.
 *
 * An object is bound to its threads if it has thread-local variables, or calls a function by which it may know
 * its thread (binding).  Others, and those that objects.c trusts, are not: most of what Cython makes moves freely.
 *
 * Whether such code is on the stack is asked at each switch, and must cost little where the answer is no:
 *   1. nothing of the kind is loaded (interposed.binds: this file is not called);
 *   2. no word of the stack is an address in such code.  If the innermost evaluation loop is the only one on the
 *      stack, and nothing but ours lies before it, what lies between here and there is enough;
 *   3. a word may be left over from a call that has returned: the unwinder knows (some 20 us).
 *
 * Most words are not looked up: they are out of all ranges, or a bit (one for each 64 KiB of addresses, modulo
 * 4 GiB) says no.  All is only added to (objects that are unloaded stay) and guarded by the GIL.
 *
 * Rejected: swapping the thread-locals of modules with the goroutine (others keep their addresses), wiring below
 * any C code (each `with` statement is), asking for PyGILState (code that was called with the GIL takes no notice). */
#define _GNU_SOURCE
#include <link.h>
#include <unwind.h>

#include "py/host/above.h"
#include "py/interpose/homes.h"
#include "py/interpose/objects.h"

enum { RANGES = 4096, GRAIN = 16, BITS = 1 << 16 };

typedef struct range {
  uintptr_t lo, hi;
} range;

/* Code, by where it is loaded. */
typedef struct ranges {
  uint32_t n;
  range all; /* from the first to the last */
  range at[RANGES];
  uint64_t bits[BITS / 64];
} ranges;

static ranges bound;   /* of objects that are bound to their threads */
static ranges foreign; /* of all that are neither ours nor the interpreter's */

/* ---- what is loaded ----------------------------------------------------------------------------------------- */

/* Functions of which a module that calls them may keep something per thread. */
static const char *const binding[] = {
    "__tls_get_addr",    "pthread_getspecific", "pthread_setspecific", "pthread_self",
    "PyThread_tss_get",  "PyThread_tss_set",    "pthread_mutex_lock",  "pthread_rwlock_wrlock",
    "__cxa_begin_catch", "__cxa_get_globals",
};

static bool binds(const char *name) {
  for (size_t i = 0; i < nelem(binding); i++)
    if (strcmp(name, binding[i]) == 0) return true;
  return false;
}

static void add_range(ranges *r, uintptr_t lo, uintptr_t hi) {
  for (uint32_t i = 0; i < r->n; i++)
    if (r->at[i].lo == lo && r->at[i].hi == hi) return;
  if (r->n == RANGES) return;
  for (uintptr_t p = lo >> GRAIN; p <= (hi - 1) >> GRAIN; p++) r->bits[p % BITS / 64] |= 1ull << p % 64;
  if (r->n == 0 || lo < r->all.lo) r->all.lo = lo;
  if (hi > r->all.hi) r->all.hi = hi;
  r->at[r->n++] = (range){lo, hi};
}

static void visit(struct dl_phdr_info *info, void *arg) {
  (void)arg;
  if (interpose_knows(info->dlpi_name)) return;
  bool keeps = got_calls(info, binds);
  for (int i = 0; i < info->dlpi_phnum; i++) keeps |= info->dlpi_phdr[i].p_type == PT_TLS;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
    uintptr_t lo = info->dlpi_addr + ph->p_vaddr;
    if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X)) continue;
    add_range(&foreign, lo, lo + ph->p_memsz);
    if (keeps) add_range(&bound, lo, lo + ph->p_memsz);
  }
}

/* After objects were loaded; with the GIL. */
void affinity_find(void) {
  static got_walk walk;
  got_visit(&walk, 1, visit, NULL);
  interposed.binds = bound.n > 0 || interposed.nothing; /* or nobody hears of modules being loaded */
}

static noinline bool is_in(const ranges *r, uintptr_t p) {
  if (likely(!(r->bits[(p >> GRAIN) % BITS / 64] >> (p >> GRAIN) % 64 & 1))) return false;
  for (uint32_t i = 0; i < r->n; i++)
    if (p >= r->at[i].lo && p < r->at[i].hi) return true;
  return false;
}

/* ---- the stack ---------------------------------------------------------------------------------------------- */

typedef struct walk {
  bool found;
  uintptr_t last; /* stack pointer of the caller of the last frame that was seen */
} walk;

static _Unwind_Reason_Code frame(struct _Unwind_Context *context, void *arg) {
  walk *w = arg;
  w->found = is_in(&bound, (uintptr_t)_Unwind_GetIP(context));
  w->last = (uintptr_t)_Unwind_GetCFA(context);
  return w->found ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* Is a word of [p, hi) an address in such code? */
static noinline reads_raw bool mentioned(const ranges *r, const uintptr_t *p, const void *hi) {
  uintptr_t lo = r->all.lo, span = r->all.hi - lo;
  for (; (const void *)p < hi; p++)
    if (unlikely(*p - lo < span) && is_in(r, *p)) return true;
  return false;
}

/* The outermost evaluation loop was entered by the runtime, not by some C function that go() was given. */
static bool begins_in_python(const Goroutine *self) {
  PyObject *fn = self ? self->fn : NULL;
  if (fn && PyMethod_Check(fn)) fn = PyMethod_GET_FUNCTION(fn);
  return fn && PyFunction_Check(fn);
}

/* gp runs here, and C code that must stay on this thread waits for Python code to return.  GIL held. */
bool affinity_below(G *gp) {
  enum { FIRST = 512 }; /* the outermost frames lie within */
  const char *sp = __builtin_frame_address(0), *hi = gp->stk.hi;
  const char *loop = begins_in_python(gp->handle) ? ts_loop(ts_of(gp), sp, hi) : NULL;
  if (sp < gp->stk.lo || sp >= hi) return true; /* whose stack is this? */
  if (interposed.nothing) interpose_refresh();
  if (bound.n == 0) return false;
  if (!mentioned(&bound, (const uintptr_t *)sp, loop ? loop : hi)) return false;
  walk w = {false, 0};
  _Unwind_Backtrace(frame, &w);
  return w.found || w.last < (uintptr_t)hi - FIRST; /* or it did not come to the end */
}

/* A stack that nobody runs on: has no C code frames there but the interpreter's, its modules' and ours?  GIL held. */
bool affinity_private(const void *lo, const void *hi) {
  if (interposed.nothing) interpose_refresh();
  return foreign.n < RANGES && !mentioned(&foreign, lo, hi);
}
