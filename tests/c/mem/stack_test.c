/* stack_test.c - slots: apart from each other, guarded below, deep enough, and used again. */
#include "stubhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { N = 700, PAGE = 4096 };
static stack slots[N];

static int by_lo(const void *a, const void *b) {
  const stack *x = a, *y = b;
  return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* No two overlap, and between two lies a guard. */
static void check_apart(int n) {
  qsort(slots, (size_t)n, sizeof slots[0], by_lo);
  for (int i = 0; i < n; i++) {
    CHECK(slots[i].lo < slots[i].hi);
    if (i > 0) CHECK(slots[i].lo - stack_page >= slots[i - 1].hi);
  }
}

static void writable(stack *s) {
  s->hi[-1] = 1;
  s->hi[-8 * 1024] = 1;
}

TEST(native_slots_are_apart) {
  stub_start();
  for (int i = 0; i < N; i++) {
    NEED(stack_alloc(STACKS_NATIVE, false, &slots[i]));
    CHECK((size_t)(slots[i].hi - slots[i].lo) >= STACK_NATIVE - 2 * PAGE);
    writable(&slots[i]);
  }
  check_apart(N);
}

TEST(hosted_slots_are_apart_coloured_and_leave_room_above) {
  stub_start();
  uint64_t colours[4] = {0};
  for (int i = 0; i < N; i++) {
    NEED(stack_alloc(STACKS_HOSTED, false, &slots[i]));
    uintptr_t top = (uintptr_t)slots[i].hi;
    colours[top / 512 % 4] |= (uint64_t)1 << (top / PAGE % 64);
    writable(&slots[i]);
    memset(slots[i].hi, 1, host->stack_top); /* the host's */
    CHECK((size_t)(slots[i].hi - slots[i].lo) >= stack_host_size() - (1 << 20));
  }
  check_apart(N);
  int pages = 0, lines = 0;
  for (int i = 0; i < 4; i++) {
    lines += colours[i] != 0;
    pages += __builtin_popcountll(colours[i]);
  }
  CHECK_EQ(lines, 4);
  CHECK(pages >= 4 * 32);
}

TEST(a_slot_given_back_is_used_again) {
  stub_start();
  stack a, b;
  NEED(stack_alloc(STACKS_HOSTED, false, &a));
  stack_free(STACKS_HOSTED, &a, false);
  NEED(stack_alloc(STACKS_HOSTED, false, &b));
  CHECK(a.lo == b.lo);
  stack *list[] = {&b};
  stack_free(STACKS_HOSTED, &b, stacks_empty(list, 1));
  NEED(stack_alloc(STACKS_HOSTED, false, &a));
  CHECK(a.lo == b.lo);
  CHECK_EQ(a.hi[-1], 0); /* its pages went to the kernel */
}

static bool guarded(const stack *s) {
  pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    s->lo[-1] = 1;
    _exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status);
}

static char *mark(const stack *s) { return s->lo + (1 << 20); } /* hi is another one each time */

/* Three chunks: of the first some slots are in use, and of the last some never were. */
TEST(chunks_that_nobody_uses_are_new) {
  stub_start();
  for (int i = 0; i < N; i++) {
    NEED(stack_alloc(STACKS_HOSTED, false, &slots[i]));
    *mark(&slots[i]) = 1;
  }
  uint64_t reserved = load_rlx(&stack_reserved);
  int n = N - 10, kept = 0;
  for (int i = 0; i < n; i++) stack_free(STACKS_HOSTED, &slots[10 + i], false);
  for (int i = 0; i < 100; i++) NEED(stack_promise(STACKS_HOSTED)); /* more than are new: nobody touches the free ones */
  stacks_tidy();
  for (int i = 0; i < n; i++) {
    NEED(stack_alloc(STACKS_HOSTED, i < 100, &slots[10 + i]));
    CHECK_EQ(*mark(&slots[10 + i]), 1);
  }
  for (int i = 0; i < n; i++) stack_free(STACKS_HOSTED, &slots[10 + i], false);
  NEED(stack_promise(STACKS_HOSTED)); /* for this one there is a new one */
  stacks_tidy();
  for (int i = 0; i < n; i++) {
    NEED(stack_alloc(STACKS_HOSTED, i == 0, &slots[10 + i]));
    kept += *mark(&slots[10 + i]);
    if (i % 10 == 0) CHECK(guarded(&slots[10 + i]));
  }
  CHECK_EQ(kept, n - STACK_CHUNK_SLOTS);
  for (int i = 0; i < 10; i++) CHECK_EQ(*mark(&slots[i]), 1);
  check_apart(N);
  CHECK_EQ(load_rlx(&stack_reserved), reserved);
}

static _Atomic bool tidied;
static void *tidy_on_and_on(void *arg) {
  while (!load_acq(&tidied)) stacks_tidy();
  return arg;
}

/* Who needs all of them meanwhile waits, and takes no more address space. */
TEST(chunks_are_looked_at_while_others_need_them) {
  stub_start();
  uint64_t reserved = 0;
  pthread_t t;
  NEED(pthread_create(&t, NULL, tidy_on_and_on, NULL) == 0);
  for (int round = 0; round < 200; round++) {
    for (int i = 0; i < N; i++) {
      NEED(stack_promise(STACKS_HOSTED));
      NEED(stack_alloc(STACKS_HOSTED, true, &slots[i]));
    }
    if (round == 0) reserved = load_rlx(&stack_reserved);
    for (int i = 0; i < N; i++) stack_free(STACKS_HOSTED, &slots[i], false);
  }
  store_rel(&tidied, true);
  pthread_join(t, NULL);
  CHECK_EQ(load_rlx(&stack_reserved), reserved);
}

TEST(stacks_that_have_pages_are_counted) {
  stub_start();
  uint64_t before = load_rlx(&stacks_committed), emptied = load_rlx(&stacks_emptied);
  stack a, b, *list[] = {&a, &b};
  NEED(stack_alloc(STACKS_HOSTED, false, &a));
  NEED(stack_alloc(STACKS_HOSTED, false, &b));
  CHECK_EQ(load_rlx(&stacks_committed), before + 2);
  bool unguarded = stacks_empty(list, 2);
  CHECK_EQ(load_rlx(&stacks_committed), before);
  CHECK_EQ(load_rlx(&stacks_emptied), emptied + 2);
  stack_again(&a, unguarded); /* as if it had slept */
  stack_free(STACKS_HOSTED, &b, unguarded);
  NEED(stack_alloc(STACKS_HOSTED, false, &b));
  CHECK_EQ(load_rlx(&stacks_committed), before + 2);
}

TEST(promised_slots_are_kept) {
  stub_start();
  for (int i = 0; i < N; i++) NEED(stack_promise(STACKS_HOSTED));
  for (int i = 0; i < 100; i++) NEED(stack_alloc(STACKS_HOSTED, false, &slots[i]));
  for (int i = 100; i < N; i++) NEED(stack_alloc(STACKS_HOSTED, true, &slots[i]));
  check_apart(N);
}

TEST(a_resize_concerns_new_slots) {
  stub_start();
  for (int i = 0; i < 10; i++) NEED(stack_alloc(STACKS_HOSTED, false, &slots[i]));
  size_t old = stack_host_resize(8 << 20);
  CHECK_EQ(old, 4 << 20);
  CHECK_EQ(stack_host_size(), 8 << 20);
  for (int i = 10; i < 20; i++) {
    NEED(stack_alloc(STACKS_HOSTED, false, &slots[i]));
    CHECK((size_t)(slots[i].hi - slots[i].lo) > (7 << 20));
  }
  check_apart(20);
  CHECK_EQ(stack_host_resize(300 << 10), 8 << 20);
  CHECK_EQ(stack_host_size(), 512 << 10);
}

TEST(an_old_slot_given_back_after_a_resize_stays_its_size) {
  stub_start();
  for (int i = 0; i < 10; i++) NEED(stack_alloc(STACKS_HOSTED, false, &slots[i]));
  stack old = slots[5];
  stack_host_resize(16 << 20);
  stack_free(STACKS_HOSTED, &old, false);
  NEED(stack_alloc(STACKS_HOSTED, false, &slots[5]));
  for (int i = 6; i < 10; i++) NEED(stack_alloc(STACKS_HOSTED, false, &slots[4 + i]));
  CHECK((size_t)(slots[5].hi - slots[5].lo) > (15 << 20));
  check_apart(10);
}

/* A system call does not fault: what it meets must be there. */
TEST(the_kernel_writes_where_nobody_has_been) {
  stub_start();
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  NEED(fd >= 0);
  for (int kind = 0; kind < 2; kind++) {
    for (int i = 0; i < 3; i++) NEED(stack_alloc((stackclass)kind, false, &slots[i]));
    for (int i = 0; i < 3; i++) {
      size_t size = (size_t)(slots[i].hi - slots[i].lo);
      CHECK_EQ(read(fd, slots[i].lo, size), (ssize_t)size);
    }
  }
  close(fd);
}

TEST(a_big_stack_is_one_mapping) {
  stack s;
  NEED(stack_alloc_big(16 << 20, &s));
  CHECK_EQ(s.hi - s.lo, (16 << 20) - (ptrdiff_t)stack_page);
  s.hi[-1] = s.lo[0] = 1;
  stack_free_big(&s);
}

static bool resident(char *page) {
  unsigned char in = 0;
  NEED(mincore(page, PAGE, &in) == 0);
  return in & 1;
}

TEST(what_a_deep_recursion_left_is_given_back) {
  stub_start();
  stack s;
  NEED(stack_alloc(STACKS_HOSTED, false, &s));
  char *sp = s.hi - 1000, *page = (char *)((uintptr_t)sp & ~(uintptr_t)(PAGE - 1));
  for (char *p = page; p > s.hi - (1 << 20); p -= PAGE) *p = 1;
  uint64_t before = load_rlx(&stack_shrinks);
  stack_shrink(&s, sp);
  CHECK(resident(page) && *page == 1);
  CHECK(resident(page - STACK_SLACK));
  CHECK(!resident(page - STACK_SLACK - PAGE));
  CHECK(!resident(page - (512 << 10)));
  stack_shrink(&s, sp); /* nothing to do */
  stack_shrink(&s, s.lo + 10);
  CHECK(*page == 1);
  CHECK_EQ(load_rlx(&stack_shrinks), before + 1);
}

/* ---- depth ------------------------------------------------------------------------------------------------- */

static noinline long recurse(long bytes) {
  char frame[1000];
  __asm__ volatile("" : : "r"(frame) : "memory");
  long n = bytes > 0 ? recurse(bytes - (long)sizeof frame) + 1 : 1;
  __asm__ volatile("" : : "r"(frame) : "memory"); /* or it would become a loop */
  return n;
}

static void deep(void *arg) { CHECK(recurse(*(long *)arg) > 0); }

TEST(a_native_goroutine_is_as_deep_as_its_slot) {
  runtime_start();
  long bytes = 45000;
  group g = {0};
  for (int i = 0; i < 100; i++) group_go(&g, deep, &bytes);
  group_wait(&g);
}

#if !defined(GM_ASAN) && !defined(GM_TSAN) /* they have handlers of their own for a fault */

static void hosted_deep(void *arg) {
  deep(arg);
  gosched();
  deep(arg);
}

/* 3 MiB: more than one page-table page maps. */
TEST(a_large_slot_is_as_deep_as_it_is_large) {
  stub_start();
  long bytes = 2900000;
  host_take();
  job *j[10];
  for (int i = 0; i < 10; i++) j[i] = hosted_go(hosted_deep, &bytes);
  for (int i = 0; i < 10; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

/* From now on the process gets no guard by madvise. */
static void refuse_markers(uint32_t error) {
  enum { NR = 0, THIRD = 32 }; /* in struct seccomp_data; the low half of an argument, little-endian */
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, THIRD),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {nelem(code), code};
  NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  NEED(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0);
}

static _Atomic bool refused;
static void hosted_deep_then(void *arg) {
  while (!load_acq(&refused)) gosched();
  deep(arg);
}

/* Guards of both kinds: each slot is as deep as before. */
TEST(a_guard_refused_changes_no_other) {
  stub_start();
  long bytes = 2900000;
  host_take();
  job *j[20];
  for (int i = 0; i < 10; i++) j[i] = hosted_go(hosted_deep_then, &bytes);
  host_drop();
  while (load_rlx(&stack_slots) < 10) usleep(1000);
  refuse_markers(ENOMEM);
  store_rel(&refused, true);
  host_take();
  for (int i = 10; i < 20; i++) j[i] = hosted_go(hosted_deep_then, &bytes);
  for (int i = 0; i < 20; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

static long number_in(const char *path) {
  long n = -1;
  FILE *f = fopen(path, "re");
  if (f && fscanf(f, "%ld", &n) != 1) n = -1;
  if (f) fclose(f);
  return n;
}

static long mappings(void) {
  long n = 0;
  FILE *f = fopen("/proc/self/maps", "re");
  NEED(f);
  for (int c; (c = fgetc(f)) != EOF;) n += c == '\n';
  fclose(f);
  return n;
}

TEST(guards_leave_mappings_to_the_program) {
  stub_start();
  refuse_markers(EINVAL);
  long most = number_in("/proc/sys/vm/max_map_count");
  NEED(most > 0);
  stack s, first;
  NEED(stack_alloc(STACKS_NATIVE, false, &first));
  for (long i = 0; i < most * 5 / 8; i++) {
    NEED(stack_alloc(STACKS_NATIVE, false, &s));
    if (i % 2) s.hi[-1] = 1;
  }
  CHECK(mappings() < most * 5 / 8);
  CHECK(mappings() > most / 4);
  for (int i = 0; i < 1000; i++) { /* neighbours of different kinds are not merged */
    int rights = i % 2 ? PROT_READ : PROT_READ | PROT_WRITE;
    NEED(mmap(NULL, PAGE, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  }
  CHECK(stack_overflowed((uintptr_t)first.lo - 1));
  CHECK(strcmp(stack_guard_mode(), "mprotect") == 0);
}

/* What is left is the program's: two mappings at most for each of the guards that were granted at first. */
TEST(guards_take_nothing_of_a_program_that_has_many_mappings) {
  stub_start();
  refuse_markers(EINVAL);
  long most = number_in("/proc/sys/vm/max_map_count"), many = most * 5 / 8;
  NEED(most > 0);
  stack s;
  NEED(stack_alloc(STACKS_NATIVE, false, &s));
  char *at = mmap(NULL, (size_t)many * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  NEED(at != MAP_FAILED);
  for (long i = 0; i < many; i += 2) NEED(mprotect(at + i * PAGE, PAGE, PROT_READ) == 0);
  long before = mappings();
  CHECK(before > most / 2);
  for (int i = 0; i < 5000; i++) NEED(stack_alloc(STACKS_NATIVE, false, &s));
  CHECK(mappings() < before + 200);
  munmap(at, (size_t)many * PAGE);
  before = mappings();
  for (int i = 0; i < 5000; i++) NEED(stack_alloc(STACKS_NATIVE, false, &s));
  CHECK(mappings() > before + 1000); /* there is room again */
}

CRASH(native_overflow) {
  runtime_start();
  long bytes = 1000000;
  in_goroutine(deep, &bytes);
}

CRASH(hosted_overflow) {
  stub_start();
  long bytes = 100000000;
  host_take();
  hosted_join(hosted_go(hosted_deep, &bytes));
}

static void wild(void *arg) { *(volatile int *)arg = 1; }
CRASH(wild_pointer) {
  runtime_start();
  in_goroutine(wild, (void *)8);
}

static volatile sig_atomic_t handled;
static void own_handler(int sig) {
  (void)sig;
  if (write(2, "own handler\n", 12) > 0) handled = 1;
  _exit(3);
}
CRASH(wild_pointer_with_a_handler) {
  signal(SIGSEGV, own_handler);
  runtime_start();
  in_goroutine(wild, (void *)8);
}

TEST(overflow_of_a_stack_says_so) {
  char out[4096];
  int status = crash("native_overflow", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  CHECK(strstr(out, "fatal: goroutine stack overflow\n\tgoroutine 1\n"));
  status = crash("hosted_overflow", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  CHECK(strstr(out, "fatal: goroutine stack overflow\n\tgoroutine 1\n"));
}

TEST(another_fault_goes_where_it_went_before) {
  char out[4096];
  int status = crash("wild_pointer", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  CHECK(!strstr(out, "overflow"));
  status = crash("wild_pointer_with_a_handler", out, sizeof out);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
  CHECK(strstr(out, "own handler\n"));
}

TEST(a_fault_is_known_by_its_address) {
  stub_start();
  stack s;
  NEED(stack_alloc(STACKS_NATIVE, false, &s));
  CHECK(stack_overflowed((uintptr_t)s.lo - 1));
  CHECK(stack_overflowed((uintptr_t)s.lo - stack_page));
  CHECK(!stack_overflowed((uintptr_t)s.lo));
  CHECK(!stack_overflowed((uintptr_t)&s));
  CHECK(!stack_overflowed(0));
  CHECK(strcmp(stack_guard_mode(), "none yet") != 0);
}
#endif
