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
 * Guard: MADV_GUARD_INSTALL where the kernel has it (6.13): no mapping is split.  Elsewhere, or if it is
 * refused for this one page (memory that is locked), mprotect, which costs two mappings.  Of these the
 * process may have 65530 (vm.max_map_count), and at the limit the program's own mmap and pthread_create
 * fail; so guards are made only while the process, whatever it has them for, has less than half of them, and slots
 * beyond have none.  To count them takes the kernel 0.3 us each: some guards are granted at a time.
 * A guard needs a page-table page, 4 KiB, and so does the top of a stack; they share one if both lie in the
 * same 2 MiB.  A slot larger than that therefore begins one page below a 2 MiB boundary: its guard shares
 * the page with the top of the slot below, which was in use before it.  A guard stays where it is while the
 * slot has pages.  Rejected: a soft guard in the topmost 2 MiB, moved to the bottom by the handler of its first fault.
 * A system call that meets it, in a buffer that no instruction has touched, faults not: it fails with
 * EFAULT, or is cut short and loses what it has read.
 *
 * The stack of a native goroutine has its line coloured only: its slot is small.
 *
 * A page of the kernel's is not 4 KiB everywhere: 16 or 64 KiB on some arm64.  Guards, boundaries and what is given back
 * are in its pages (stack_page), else the kernel refuses them, or takes more than was meant; colours are the cache's, in steps
 * of 4 KiB.  Where it is larger the slot of a native goroutine has one page more, for of 64 KiB a guard would leave nothing.
 *
 * A free slot stays with a dead G, hottest first, and is never unmapped.  When the process has been idle for long its
 * pages are given back, and the slot comes here (gtrim_some in sched/g.c): a touched page costs 1.5 us to get again, and
 * madvise while other threads run 20 us.  A chunk of which all slots have come here keeps page tables, 8 KiB and some for
 * each slot whose neighbours went at another time: when a crowd is gone it is mapped anew (stacks_tidy).  Rejected: one
 * mapping per stack (32 000 at most), growth by a fault handler (3.4 us per page), copying stacks (impossible in C). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"
#include "base/lockrank.h"
#include "base/number.h"
#include "base/tunables.h"
#include "mem/stack.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { SMALL_PAGE = 4096, ALIGN = 2 << 20, LIMITED_SLOT = 1 << 20, MAX_CHUNKS = 1 << 14 };
enum { FEW = 64, RECOUNT = 4096 }; /* guards: granted at least; refused before mappings are counted again */

size_t stack_page = SMALL_PAGE;

#define UNGUARDED ((uintptr_t)1)

typedef struct slotclass {
  size_t size;    /* of a slot */
  size_t top;     /* bytes above T, colours included */
  char *next, *end;  /* slots of chunk `at` that were never used */
  uint32_t at;       /* the chunk they are in */
  uint32_t left;     /* slots never used, later chunks included */
  uint32_t promised; /* of them, to goroutines that have not started */
  uint32_t colour;
  uintptr_t *freed; /* slots given back, | UNGUARDED */
  uint32_t nfreed, capfreed;
  bool lent; /* those that were given back are being looked at */
} slotclass;

static struct {
  mutex tidying; /* held while `lent` */
  mutex lock;    /* guards the rest */
  slotclass cls[2];
  struct {
    char *lo, *hi;
    size_t slot;
    slotclass *cls;
  } chunk[MAX_CHUNKS];
  _Atomic uint32_t nchunks;
  size_t host_top;          /* bytes above T that are the host's */
  uint32_t mappings;        /* the process may have */
  _Atomic uint32_t granted; /* guards that may be mappings of their own */
  _Atomic uint32_t nsplit;  /* guards that are */
  _Atomic uint32_t refused; /* ... that were not granted since there was no room; 0: there was */
  _Atomic bool marked;      /* there are others */
} depot = {.tidying = {.rank = rank_tidying}, .lock = {.rank = rank_stack}};

_Atomic uint64_t stack_reserved, stack_slots, stacks_committed, stacks_emptied, stack_shrinks;

/* How much address space the process may have (RLIMIT_AS). */
static size_t address_space(void) {
  struct rlimit rl;
  return getrlimit(RLIMIT_AS, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY ? (size_t)rl.rlim_cur : SIZE_MAX;
}

static bool reserved_counts; /* as if it were used: overcommit mode 2 */

static bool reserving_counts(void) {
  FILE *f = fopen("/proc/sys/vm/overcommit_memory", "re");
  int mode = f ? fgetc(f) : '0';
  if (f) fclose(f);
  return mode == '2';
}

/* vm.max_map_count */
static uint32_t mappings_allowed(void) {
  FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
  char line[32];
  const char *at = f ? fgets(line, sizeof line, f) : NULL;
  if (f) fclose(f);
  uint64_t n;
  return at && number_read(&at, &n) && n <= UINT32_MAX ? (uint32_t)n : 65530;
}

size_t stack_host_size(void) { return depot.cls[STACKS_HOSTED].size; }

/* Where address space is scarce: room for a few thousand, as long as a megabyte is left to each. */
static size_t affordable(size_t size) {
  size_t most = reserved_counts ? LIMITED_SLOT : address_space() / 4096, least = LIMITED_SLOT;
  if (size <= most) return size;
  while (2 * least <= most) least *= 2;
  return least < size ? least : size;
}

void stack_init(size_t host_size, size_t host_top) {
  reserved_counts = reserving_counts();
  stack_page = (size_t)sysconf(_SC_PAGESIZE);
  depot.mappings = mappings_allowed();
  slotclass *h = &depot.cls[STACKS_HOSTED], *n = &depot.cls[STACKS_NATIVE];
  depot.host_top = host_top;
  h->size = affordable(host_size);
  h->top = host_top + (size_t)(h->size < host_size ? 1 : STACK_COLOURS) * SMALL_PAGE;
  n->size = STACK_NATIVE + (stack_page > SMALL_PAGE ? stack_page : 0);
  n->top = SMALL_PAGE;
#if defined(GM_TSAN) || defined(GM_ASAN)
  n->size *= 4;
#endif
}

const char *stack_guard_mode(void) {
  bool split = load_rlx(&depot.nsplit) > 0;
  if (load_rlx(&depot.marked)) return split ? "MADV_GUARD_INSTALL, mprotect" : "MADV_GUARD_INSTALL";
  return split ? "mprotect" : "none yet";
}

/* How many the process has; what is known of them where it may not look. */
static uint32_t mappings(void) {
  char text[512];
  long fd = cpu_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0, 0, 0), n;
  if (fd < 0) return 2 * load_rlx(&depot.nsplit);
  uint32_t lines = 0;
  while ((n = cpu_syscall(SYS_read, fd, (long)text, sizeof text, 0, 0, 0)) > 0)
    for (long i = 0; i < n; i++) lines += text[i] == '\n';
  cpu_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
  return lines;
}

/* depot.lock held. */
static bool split_grant(void) {
  if (load_rlx(&depot.nsplit) < load_rlx(&depot.granted)) return true; /* by somebody else, a moment ago */
  uint32_t most = depot.mappings / 2, have = mappings(), room = have < most ? (most - have) / 4 : 0;
  uint32_t more = have / 8 > FEW ? have / 8 : FEW;
  if (more > room) more = room >= FEW ? room : 0;
  store_rlx(&depot.refused, more == 0);
  store_rlx(&depot.granted, load_rlx(&depot.nsplit) + more);
  return more > 0;
}

/* May one more be made?  Some are granted at a time, the more the longer it takes to count, and never more than half of
 * the room; when there is none it is looked for seldom.  What the program maps meanwhile is seen at the next count. */
static bool split_granted(void) {
  if (load_rlx(&depot.nsplit) < load_rlx(&depot.granted)) return true;
  if (load_rlx(&depot.refused) > 0 && xadd(&depot.refused, 1) % RECOUNT != 0) return false;
  lock(&depot.lock);
  bool granted = split_grant();
  unlock(&depot.lock);
  return granted;
}

/* false: none to be had, see the head of the file.  errno is left alone. */
static bool guard_install(char *page) {
  if (cpu_syscall(SYS_madvise, (long)page, (long)stack_page, MADV_GUARD_INSTALL, 0, 0, 0) == 0) {
    store_rlx(&depot.marked, true);
    return true;
  }
  if (!split_granted() || cpu_syscall(SYS_mprotect, (long)page, (long)stack_page, PROT_NONE, 0, 0, 0) != 0) return false;
  xadd(&depot.nsplit, 1);
  return true;
}

static void chunk_advise(char *lo, size_t size) {
  madvise(lo, size, MADV_NOHUGEPAGE);
  madvise(lo, size, MADV_DONTDUMP);
}

/* Address space for so many slots.  NULL: there is none. */
static char *slots_map(size_t size, uint32_t slots) {
  size_t want = size * slots, extra = size % ALIGN == 0 || ALIGN % size == 0 ? ALIGN : 0;
  char *p = mmap(NULL, want + extra, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return NULL;
  char *lo = p;
  if (extra) { /* slots and page-table pages share their boundaries, but for the guards of large slots */
    uintptr_t before = size > ALIGN ? stack_page : 0;
    lo = (char *)((((uintptr_t)p + before + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1)) - before);
    if (lo > p) munmap(p, (size_t)(lo - p));
    char *end = p + want + extra;
    if (end > lo + want) munmap(lo + want, (size_t)(end - (lo + want)));
  }
  chunk_advise(lo, want);
  return lo;
}

/* Few where address space is limited, also since a while ago: it is the program's as well. */
static uint32_t slots_at_once(const slotclass *c) {
  if (c->size < LIMITED_SLOT) return (uint32_t)((16 << 20) / c->size);
  return address_space() != SIZE_MAX || reserved_counts ? 16 : STACK_CHUNK_SLOTS;
}

/* depot.lock held.  Where it is scarce what is left of address space may not be in one piece. */
static bool chunk_reserve(slotclass *c) {
  uint32_t n = load_rlx(&depot.nchunks), slots = slots_at_once(c);
  if (n == MAX_CHUNKS) return false;
  char *lo = NULL;
  while (!(lo = slots_map(c->size, slots)) && slots > 1) slots /= 2;
  if (!lo) return false;
  size_t want = c->size * slots;
  depot.chunk[n].lo = lo;
  depot.chunk[n].hi = lo + want;
  depot.chunk[n].slot = c->size;
  depot.chunk[n].cls = c;
  store_rel(&depot.nchunks, n + 1);
  c->left += slots;
  xadd(&stack_reserved, want);
  return true;
}

/* Slots made from now on have this size, rounded up to 2 MiB from there on; returns the old size. */
size_t stack_host_resize(size_t size) {
  size_t unit = size > ALIGN ? ALIGN : 256 << 10;
  lock(&depot.lock);
  size_t old = depot.cls[STACKS_HOSTED].size;
  depot.cls[STACKS_HOSTED].size = (size + unit - 1) & ~(unit - 1);
  slotclass *c = &depot.cls[STACKS_HOSTED]; /* the rest of its chunks has the old size: given up */
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
static char *colour_top(slotclass *c, stackclass kind, char *end) {
  uint32_t n = c->colour++;
  size_t line = 1024 + (size_t)(n % 4) * 512;
  if (kind == STACKS_NATIVE) return end - (n % 4) * 512;
  size_t pages = c->top - depot.host_top;
  return end - depot.host_top - (size_t)(n / 4 * SMALL_PAGE) % pages - line;
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
  xadd(&stack_slots, 1);
  return slot;
}

/* Sees to it that one more stack_alloc(kind, promised) will succeed. false: no address space. */
bool stack_promise(stackclass kind) {
  slotclass *c = &depot.cls[kind];
  lock(&depot.lock);
  while (c->lent && c->left + c->nfreed <= c->promised) { /* there are some */
    unlock(&depot.lock);
    lock(&depot.tidying);
    unlock(&depot.tidying);
    lock(&depot.lock);
  }
  bool ok = c->left + c->nfreed > c->promised || chunk_reserve(c);
  if (ok) c->promised++;
  unlock(&depot.lock);
  return ok;
}

bool stack_alloc(stackclass kind, bool promised, stack *out) {
  slotclass *c = &depot.cls[kind];
  lock(&depot.lock);
  char *slot = NULL;
  bool fresh = false;
  if (promised) c->promised--;
  if (c->nfreed > 0) {
    uintptr_t freed = c->freed[--c->nfreed];
    slot = (char *)(freed & ~UNGUARDED);
    fresh = freed & UNGUARDED;
  } else if (c->left > c->promised || chunk_reserve(c)) {
    slot = slot_take(c);
    fresh = true;
  }
  if (slot) {
    out->lo = slot + stack_page;
    out->hi = colour_top(c, kind, slot + c->size);
    out->size = c->size;
  }
  unlock(&depot.lock);
  if (!slot) return false;
  stack_again(out, fresh);
  return true;
}

/* depot.lock held. */
static void freed_push(slotclass *c, uintptr_t slot) {
  if (c->nfreed == c->capfreed) {
    uint32_t cap = c->capfreed ? 2 * c->capfreed : 64;
    uintptr_t *more = realloc(c->freed, cap * sizeof *more);
    if (more) {
      c->freed = more;
      c->capfreed = cap;
    }
  }
  if (c->nfreed < c->capfreed) c->freed[c->nfreed++] = slot; /* else: a slot is lost, no more */
}

/* Of a slot that has no pages, see stacks_empty. */
void stack_free(stackclass kind, stack *s, bool unguarded) {
  slotclass *c = &depot.cls[kind];
  lock(&depot.lock);
  /* Made before a resize: given up, its address space is all it costs. */
  if (s->size == c->size) freed_push(c, (uintptr_t)(s->lo - stack_page) | unguarded);
  unlock(&depot.lock);
}

static int by_address(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)(*(stack *const *)a)->lo, y = (uintptr_t)(*(stack *const *)b)->lo;
  return (x > y) - (x < y);
}

/* Their pages go to the kernel, and the guards, for each keeps a page-table page (true: the slot is to get one before it
 * is used again).  A kernel that can gives the page-table pages back of which one call empties all (6.14), so neighbours
 * go together. */
bool stacks_empty(stack **list, uint32_t n) {
  qsort(list, n, sizeof *list, by_address);
  bool unguard = load_rlx(&depot.marked) && load_rlx(&depot.nsplit) == 0;
  for (uint32_t i = 0; i < n && unguard; i++) madvise(list[i]->lo - stack_page, stack_page, MADV_GUARD_REMOVE);
  for (uint32_t i = 0, next; i < n; i = next) {
    char *lo = list[i]->lo - stack_page, *hi = lo + list[i]->size;
    for (next = i + 1; next < n && list[next]->lo - stack_page == hi; next++) hi += list[next]->size;
    madvise(lo, (size_t)(hi - lo), MADV_DONTNEED);
  }
  xadd(&stacks_emptied, n);
  xadd(&stacks_committed, -(uint64_t)n);
  return unguard;
}

/* Its pages are about to be touched: for the first time, or since they were given back. */
void stack_again(const stack *s, bool unguarded) {
  if (unguarded) guard_install(s->lo - stack_page);
  xadd(&stacks_committed, 1);
}

static int by_number(const void *a, const void *b) {
  uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
  return (x > y) - (x < y);
}

static uintptr_t slot_of(uintptr_t freed) { return freed & ~UNGUARDED; }

/* Where in the sorted list is that slot, or the next one? */
static uint32_t slot_find(const uintptr_t *list, uint32_t n, uintptr_t slot) {
  uint32_t lo = 0;
  while (n > lo) {
    uint32_t mid = lo + (n - lo) / 2;
    if (slot_of(list[mid]) < slot)
      lo = mid + 1;
    else
      n = mid;
  }
  return lo;
}

/* Chunks of which all slots are in the sorted list get new mappings, without a page table. */
static void chunks_renew(const slotclass *c, uintptr_t *list, uint32_t n, size_t slot) {
  for (uint32_t k = 0, chunks = load_acq(&depot.nchunks); k < chunks; k++) {
    char *lo = depot.chunk[k].lo;
    size_t size = (size_t)(depot.chunk[k].hi - lo);
    uint32_t i = slot_find(list, n, (uintptr_t)lo), slots = (uint32_t)(size / slot);
    if (depot.chunk[k].cls != c || depot.chunk[k].slot != slot || slots > n - i) continue;
    if (slot_of(list[i]) != (uintptr_t)lo || slot_of(list[i + slots - 1]) != (uintptr_t)lo + size - slot) continue;
    bool renewed = mmap(lo, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == lo;
    if (renewed) chunk_advise(lo, size);
    for (; slots > 0; slots--, i++) list[i] = renewed ? list[i] | UNGUARDED : 0; /* else: what is there is not known */
  }
}

/* Takes milliseconds for each 10 000 slots, which are nobody's meanwhile.  For who needs one of them the depot's lock is
 * free, for who needs them all the other is not. */
void stacks_tidy(void) {
  slotclass *c = &depot.cls[STACKS_HOSTED];
  lock(&depot.tidying);
  lock(&depot.lock);
  bool may = c->left >= c->promised && load_rlx(&depot.nsplit) == 0; /* else somebody counts on one, or has split it */
  uintptr_t *list = may ? c->freed : NULL;
  uint32_t n = c->nfreed;
  size_t slot = c->size;
  if (list) {
    c->freed = NULL;
    c->nfreed = c->capfreed = 0;
    c->lent = true;
  }
  unlock(&depot.lock);
  if (list) {
    qsort(list, n, sizeof *list, by_number);
    chunks_renew(c, list, n, slot);
  }
  lock(&depot.lock);
  c->lent = false;
  for (uint32_t i = 0; list && i < n && c->size == slot; i++)
    if (list[i]) freed_push(c, list[i]);
  unlock(&depot.lock);
  unlock(&depot.tidying);
  free(list);
}

/* Nobody runs on it, and sp is where it was left: what lies far below was needed once, for a deep recursion, and goes to
 * the kernel.  Nothing if sp lies elsewhere: C code may have coroutines of its own. */
void stack_shrink(const stack *s, const void *sp) {
  if ((const char *)sp < s->lo || (const char *)sp >= s->hi) return;
  char *end = (char *)(((uintptr_t)sp & ~(uintptr_t)(stack_page - 1)) - STACK_SLACK);
  unsigned char touched = 0;
  if (end <= s->lo || mincore(end - stack_page, stack_page, &touched) != 0 || !(touched & 1)) return;
  madvise(s->lo, (size_t)(end - s->lo), MADV_DONTNEED);
  xadd(&stack_shrinks, 1);
}

/* One stack of a size of its own: the main goroutine of run(), as deep as the thread's it stands for. */
bool stack_alloc_big(size_t size, stack *out) {
  char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (p == MAP_FAILED) return false;
  madvise(p, size, MADV_NOHUGEPAGE);
  mprotect(p, stack_page, PROT_NONE);
  out->lo = p + stack_page;
  out->hi = p + size;
  out->size = size;
  return true;
}

void stack_free_big(stack *s) { munmap(s->lo - stack_page, s->size); }

/* In the handler of SIGSEGV. */
bool stack_overflowed(uintptr_t addr) {
  uint32_t n = load_acq(&depot.nchunks);
  for (uint32_t i = 0; i < n; i++) {
    uintptr_t lo = (uintptr_t)depot.chunk[i].lo;
    if (addr < lo || addr >= (uintptr_t)depot.chunk[i].hi) continue;
    size_t offset = (addr - lo) % depot.chunk[i].slot;
    return offset < stack_page;
  }
  return false;
}

/* Around fork: see fork.c. */
void stack_forklock(bool on) {
  if (on)
    lock(&depot.lock);
  else
    unlock(&depot.lock);
}

/* Half changed: what is left of the chunks is given up, its address space is all it costs. */
void stack_afterfork(void) {
  if (lock_anew(&depot.tidying)) depot.cls[STACKS_HOSTED].lent = false; /* lost */
  if (!lock_anew(&depot.lock)) return;
  for (int i = 0; i < 2; i++) {
    slotclass *c = &depot.cls[i];
    c->next = c->end = NULL;
    c->at = load_rlx(&depot.nchunks);
    c->left = c->promised = 0;
    c->freed = NULL;
    c->nfreed = c->capfreed = 0;
  }
}
