/* stack.c - stack slots: reserved address space, committed page by page as it is touched.
 *
 * C frames cannot move, so a goroutine grows in place: its slot is as large as its deepest recursion may
 * need, and costs only the pages that it has touched.  Slots are carved from large MAP_NORESERVE
 * mappings, so that the number of VMAs does not grow with the goroutines.
 *
 *     lo                                          hi = T                 end
 *     | guard | ......... C stack, grows down ---> T | host chunk ---> ... |
 *
 * T lies inside a page, with some of it on either side: a shallow goroutine touches one page for its C
 * stack and for what the host keeps above (a chunk of Python frames).  T is coloured by page and by line,
 * for equal offsets in all slots would alias in the cache: over 1000 slots a chain of switches costs
 * 101 ns per hop uncoloured, 12 ns coloured.
 *
 * Guard: MADV_GUARD_INSTALL where the kernel has it (6.13): no VMA is split.  Elsewhere mprotect, until
 * the kernel's limit of mappings refuses: then slots have no guard.
 * A guard needs a page-table page, 4 KiB, and so does the stack; they share one as long as both lie in the
 * same 2 MiB.  A larger slot therefore starts with a soft guard at the bottom of its topmost 2 MiB; the
 * first fault there moves it to the bottom of the slot (stack_fault), and the goroutine goes on.
 *
 * The stack of a native goroutine has its line coloured only: its slot is small.
 *
 * Free slots are kept, hottest first, and never unmapped; their pages are given back when the process has
 * been idle for long (gtrim_drop): a touched page costs 1.5 us to get again, and
 * madvise while other threads run 20 us.  Rejected: one mapping per stack (32 000 at most), growth by a
 * fault handler (3.4 us per page), copying stacks (impossible in C). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime2.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#ifndef MADV_GUARD_REMOVE
#define MADV_GUARD_REMOVE 103
#endif

enum { PAGE = 4096, ALIGN = 2 << 20, LIMITED_SLOT = 1 << 20, MAX_CHUNKS = 1 << 14 };

typedef struct slotclass {
  size_t size;    /* of a slot */
  size_t top;     /* bytes above T, colours included */
  char *next, *end;  /* slots of chunk `at` that were never used */
  uint32_t at;       /* the chunk they are in */
  uint32_t left;     /* slots never used, later chunks included */
  uint32_t promised; /* of them, to goroutines that have not started */
  uint32_t colour;
  char **freed;   /* slots given back without a G (errors, big tests) */
  uint32_t nfreed, capfreed;
} slotclass;

static struct {
  mutex lock; /* guards all of it */
  slotclass cls[2];
  struct {
    char *lo, *hi;
    size_t slot;
    slotclass *cls;
  } chunk[MAX_CHUNKS];
  _Atomic uint32_t nchunks;
  size_t native_size;
} depot = {.lock = {.rank = rank_stack}, .native_size = STACK_NATIVE};

static bool limited; /* address space is scarce: see address_space_limited */
static _Atomic int guard_mode = -1; /* 1: madvise, 0: mprotect */

/* Address space is limited (RLIMIT_AS) or reserved memory is counted (overcommit mode 2). */
static bool address_space_limited(void) {
  struct rlimit rl;
  if (getrlimit(RLIMIT_AS, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY) return true;
  FILE *f = fopen("/proc/sys/vm/overcommit_memory", "re");
  int mode = f ? fgetc(f) : '0';
  if (f) fclose(f);
  return mode == '2';
}

size_t stack_host_size(void) { return depot.cls[GK_HOST].size; }

void stack_init(void) {
  limited = address_space_limited();
  size_t colours = (size_t)STACK_COLOURS * PAGE;
  slotclass *h = &depot.cls[GK_HOST], *n = &depot.cls[GK_NATIVE];
  h->size = limited ? LIMITED_SLOT : host->stack_size;
  h->top = host->stack_top + (limited ? PAGE : colours);
  n->size = depot.native_size;
  n->top = PAGE;
#if defined(GM_TSAN) || defined(GM_ASAN)
  n->size *= 4;
#endif
}

const char *stack_guard_mode(void) {
  int mode = load_rlx(&guard_mode);
  return mode == 1 ? "MADV_GUARD_INSTALL" : mode == 0 ? "mprotect" : "none yet";
}

/* Where the guard of a fresh slot stands. */
static char *first_guard(char *slot, size_t size) { return size > ALIGN ? slot + size - ALIGN : slot; }

static bool guard_install(char *page) {
  if (load_rlx(&guard_mode) != 0 && madvise(page, PAGE, MADV_GUARD_INSTALL) == 0) {
    store_rlx(&guard_mode, 1);
    return true;
  }
  store_rlx(&guard_mode, 0);
  return mprotect(page, PAGE, PROT_NONE) == 0;
}

/* depot.lock held. */
static bool chunk_reserve(slotclass *c) {
  uint32_t n = load_rlx(&depot.nchunks);
  if (n == MAX_CHUNKS) return false;
  uint32_t slots = STACK_CHUNK_SLOTS;
  if (c->size < LIMITED_SLOT) slots = (16 << 20) / c->size;
  if (limited) slots = 16;
  size_t want = c->size * slots, extra = c->size % ALIGN == 0 || ALIGN % c->size == 0 ? ALIGN : 0;
  char *p = mmap(NULL, want + extra, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  char *lo = p;
  if (extra) { /* 2 MiB alignment: whole page-table pages can be given back */
    lo = (char *)(((uintptr_t)p + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
    if (lo > p) munmap(p, (size_t)(lo - p));
    char *end = p + want + extra;
    if (end > lo + want) munmap(lo + want, (size_t)(end - (lo + want)));
  }
  madvise(lo, want, MADV_NOHUGEPAGE);
  madvise(lo, want, MADV_DONTDUMP);
  depot.chunk[n].lo = lo;
  depot.chunk[n].hi = lo + want;
  depot.chunk[n].slot = c->size;
  depot.chunk[n].cls = c;
  store_rel(&depot.nchunks, n + 1);
  c->left += slots;
  xadd(&counts.stack_reserved, want);
  return true;
}

/* Slots made from now on have this size, rounded up to 2 MiB from there on; returns the old size. */
size_t stack_host_resize(size_t size) {
  size_t unit = size > ALIGN ? ALIGN : 256 << 10;
  lock(&depot.lock);
  size_t old = depot.cls[GK_HOST].size;
  depot.cls[GK_HOST].size = (size + unit - 1) & ~(unit - 1);
  slotclass *c = &depot.cls[GK_HOST]; /* the rest of its chunks has the old size: given up */
  c->next = c->end = NULL;
  c->at = load_rlx(&depot.nchunks);
  c->left = c->nfreed = 0;
  while (c->left < c->promised && chunk_reserve(c)) {
  }
  unlock(&depot.lock);
  return old;
}

/* T of the slot that ends at `end`: page colour, then one of four lines of 512 bytes.  The C stack gets
 * between 1.5 and 3 KiB of T's page, the host's chunk the rest. */
static char *colour_top(slotclass *c, gkind kind, char *end) {
  uint32_t n = c->colour++;
  size_t line = 1024 + (size_t)(n % 4) * 512;
  if (kind == GK_NATIVE) return end - (n % 4) * 512;
  size_t pages = c->top - host->stack_top;
  return end - host->stack_top - (size_t)(n / 4 * PAGE) % pages - line;
}

/* depot.lock held, c->left > 0: the next slot that was never used. */
static char *slot_take(slotclass *c) {
  while (c->next == c->end) {
    uint32_t i = c->at++;
    if (depot.chunk[i].cls != c || depot.chunk[i].slot != c->size) continue;
    c->next = depot.chunk[i].lo;
    c->end = depot.chunk[i].hi;
  }
  char *slot = c->next;
  c->next += c->size;
  c->left--;
  xadd(&counts.stack_slots, 1);
  return slot;
}

/* Sees to it that one more stack_alloc(kind, promised) will succeed. false: no address space. */
bool stack_promise(gkind kind) {
  slotclass *c = &depot.cls[kind];
  lock(&depot.lock);
  bool ok = c->left + c->nfreed > c->promised || chunk_reserve(c);
  if (ok) c->promised++;
  unlock(&depot.lock);
  return ok;
}

bool stack_alloc(gkind kind, bool promised, stack *out) {
  slotclass *c = &depot.cls[kind];
  lock(&depot.lock);
  char *slot = NULL, *guard = NULL;
  bool fresh = false;
  if (promised) c->promised--;
  if (c->nfreed > 0) {
    slot = c->freed[--c->nfreed];
  } else if (c->left > c->promised || chunk_reserve(c)) {
    slot = slot_take(c);
    fresh = true;
  }
  if (slot) {
    out->lo = slot + PAGE;
    out->hi = colour_top(c, kind, slot + c->size);
    if (fresh) guard = first_guard(slot, c->size);
  }
  unlock(&depot.lock);
  if (guard) guard_install(guard); /* none to be had: see the head of the file */
  return slot != NULL;
}

/* The size of the slot that s lies in; 0: not one of ours. */
static size_t slot_size(const stack *s) {
  uint32_t n = load_acq(&depot.nchunks);
  for (uint32_t i = 0; i < n; i++)
    if (s->lo > depot.chunk[i].lo && s->lo < depot.chunk[i].hi) return depot.chunk[i].slot;
  return 0;
}

void stack_free(gkind kind, stack *s) {
  slotclass *c = &depot.cls[kind];
  size_t size = slot_size(s);
  lock(&depot.lock);
  if (size != c->size) { /* made before a resize: given up, its address space is all it costs */
    unlock(&depot.lock);
    return;
  }
  if (c->nfreed == c->capfreed) {
    uint32_t cap = c->capfreed ? 2 * c->capfreed : 64;
    char **more = realloc(c->freed, cap * sizeof *more);
    if (more) {
      c->freed = more;
      c->capfreed = cap;
    }
  }
  if (c->nfreed < c->capfreed) c->freed[c->nfreed++] = s->lo - PAGE; /* else: a slot is lost, no more */
  unlock(&depot.lock);
}

/* Back to the depot, its pages to the kernel. The guard stays. */
void stack_drop(stack *s, gkind kind) {
  size_t size = slot_size(s);
  if (size) madvise(s->lo - PAGE, size, MADV_DONTNEED);
  stack_free(kind, s);
}

/* One stack of a size of its own: the main goroutine of run(), as deep as the thread's it stands for. */
bool stack_alloc_big(size_t size, stack *out) {
  char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (p == MAP_FAILED) return false;
  madvise(p, size, MADV_NOHUGEPAGE);
  mprotect(p, PAGE, PROT_NONE);
  out->lo = p + PAGE;
  out->hi = p + size;
  return true;
}

void stack_free_big(stack *s) { munmap(s->lo - PAGE, (size_t)(s->hi - s->lo) + PAGE); }

/* In the handler of SIGSEGV: what does a fault at addr mean? */
stack_verdict stack_fault(uintptr_t addr) {
  uint32_t n = load_acq(&depot.nchunks);
  for (uint32_t i = 0; i < n; i++) {
    uintptr_t lo = (uintptr_t)depot.chunk[i].lo;
    if (addr < lo || addr >= (uintptr_t)depot.chunk[i].hi) continue;
    size_t size = depot.chunk[i].slot, offset = (addr - lo) % size;
    char *slot = (char *)(addr - offset), *soft = first_guard(slot, size);
    if (soft > slot && addr - (uintptr_t)soft < PAGE) {
      if (load_rlx(&guard_mode) == 1)
        madvise(soft, PAGE, MADV_GUARD_REMOVE);
      else
        mprotect(soft, PAGE, PROT_READ | PROT_WRITE);
      guard_install(slot);
      return STACK_GROWN;
    }
    return offset < PAGE ? STACK_OVERFLOW : STACK_NOT;
  }
  return STACK_NOT;
}

/* Around fork: see fork.c. */
void stack_forklock(bool on) {
  if (on)
    lock(&depot.lock);
  else
    unlock(&depot.lock);
}
