/* preempt_test.c - native goroutines that never yield are made to: nothing of theirs is lost. */
#include "test.h"

#include <signal.h>

#define PREEMPTIBLE __attribute__((section("gm_text"))) noinline
extern const char __start_gm_text[], __stop_gm_text[];

/* The linker knows the bounds of a section that has something in it. */
PREEMPTIBLE void something(void);
void something(void) {}

static void preempt_start(void) {
  runtime_start();
  CHECK_EQ(gm_preemptible(__start_gm_text, __stop_gm_text), GM_OK);
}

static _Atomic long ran;

#if defined(__x86_64__) && !defined(GM_TSAN)

static _Atomic bool stop;

/* Calls nothing, takes no lock. */
PREEMPTIBLE static void hog(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) ran++;
}

static void notes_time(void *arg) { store_rlx((_Atomic int64_t *)arg, nanotime()); }

TEST(a_hog_gives_way, .procs = "1") {
  preempt_start();
  group g = {0};
  group_go(&g, hog, NULL);
  while (load_rlx(&ran) == 0) os_usleep(100);
  for (int i = 0; i < 5; i++) {
    _Atomic int64_t at = 0;
    int64_t begun = nanotime();
    group h = {0};
    group_go(&h, notes_time, (void *)&at);
    group_wait(&h);
    CHECK(load_rlx(&at) - begun < 1000 * MS); /* 10 ms, on a quiet machine */
  }
  CHECK(load_rlx(&counts.preemptions) >= 5);
  store_rlx(&stop, true);
  group_wait(&g);
}

TEST(hogs_share_by_slices, .procs = "12") {
  preempt_start();
  group g = {0};
  enum { HOGS = 5 };
  for (int i = 0; i < HOGS; i++) group_go(&g, hog, NULL);
  while (load_rlx(&counts.preemptions) < 20) os_usleep(1000);
  store_rlx(&stop, true);
  group_wait(&g);
}

TEST(the_world_stops_beside_hogs, .procs = "24") {
  preempt_start();
  group g = {0};
  for (int i = 0; i < 4; i++) group_go(&g, hog, NULL);
  while (load_rlx(&ran) == 0) os_usleep(100);
  int32_t n = sched.gomaxprocs;
  for (int i = 0; i < 20; i++) {
    gomaxprocs_set(i % 2 ? n : n - 1);
    CHECK_EQ(sched.gomaxprocs, i % 2 ? n : n - 1);
  }
  store_rlx(&stop, true);
  group_wait(&g);
}

/* ---- what the interrupted code had in its registers ------------------------------------------------------ */

/* Asks all Ms again and again. */
static void pester(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) {
    for (uint32_t i = 1; i <= sched.nextmid; i++) preemptone(sched.allm[i]);
    os_usleep(20);
  }
}

static _Atomic int wrong;

/* All general registers, the flags and the red zone hold a value of this round; it must be there at the end. */
PREEMPTIBLE static void general(void *arg) {
  uint64_t seed = (uint64_t)(uintptr_t)arg;
  while (!load_rlx(&stop)) {
    seed = seed * 6364136223846793005u + 1;
    uint64_t bad = 0;
    __asm__ volatile(
        "movq %[s], %%rax; leaq 1(%%rax), %%rcx; leaq 2(%%rax), %%rdx; leaq 3(%%rax), %%rsi\n\t"
        "leaq 4(%%rax), %%rdi; leaq 5(%%rax), %%r8; leaq 6(%%rax), %%r9; leaq 7(%%rax), %%r10\n\t"
        "leaq 8(%%rax), %%r11; leaq 9(%%rax), %%r12; leaq 10(%%rax), %%r13; leaq 11(%%rax), %%r14\n\t"
        "movq %%rax, -80(%%rsp); movq %%r14, -120(%%rsp)\n\t"
        "movq $3000, %%rbx\n"
        "1: stc; decq %%rbx; jnc 3f; jnz 1b\n\t" /* dec keeps the carry */
        "movq %[s], %%rbx\n\t"
        "cmpq %%rax, %%rbx; jne 3f; incq %%rbx; cmpq %%rcx, %%rbx; jne 3f; incq %%rbx; cmpq %%rdx, %%rbx; jne 3f\n\t"
        "incq %%rbx; cmpq %%rsi, %%rbx; jne 3f; incq %%rbx; cmpq %%rdi, %%rbx; jne 3f\n\t"
        "incq %%rbx; cmpq %%r8, %%rbx; jne 3f; incq %%rbx; cmpq %%r9, %%rbx; jne 3f\n\t"
        "incq %%rbx; cmpq %%r10, %%rbx; jne 3f; incq %%rbx; cmpq %%r11, %%rbx; jne 3f\n\t"
        "incq %%rbx; cmpq %%r12, %%rbx; jne 3f; incq %%rbx; cmpq %%r13, %%rbx; jne 3f\n\t"
        "incq %%rbx; cmpq %%r14, %%rbx; jne 3f\n\t"
        "cmpq %%rax, -80(%%rsp); jne 3f; cmpq %%r14, -120(%%rsp); jne 3f; jmp 4f\n"
        "3: movq $1, %[bad]\n"
        "4:\n"
        : [bad] "+m"(bad)
        : [s] "m"(seed)
        : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "cc", "memory");
    if (bad) xadd(&wrong, 1);
  }
}

/* x87, SSE and AVX registers. */
__attribute__((target("avx2"))) PREEMPTIBLE static void avx2(void *arg) {
  uint64_t lanes[4], out[16][4];
  long double x87 = 3.25L + (long)(intptr_t)arg, back;
  for (uint64_t seed = (uint64_t)(uintptr_t)arg; !load_rlx(&stop); seed++) {
    for (int i = 0; i < 4; i++) lanes[i] = seed * 0x9e3779b97f4a7c15u + (uint64_t)i;
    __asm__ volatile(
        "fldt %[x]; vmovdqu %[l], %%ymm0\n\t"
        "vpaddq %%ymm0, %%ymm0, %%ymm1; vpaddq %%ymm0, %%ymm1, %%ymm2; vpaddq %%ymm0, %%ymm2, %%ymm3\n\t"
        "vpaddq %%ymm0, %%ymm3, %%ymm4; vpaddq %%ymm0, %%ymm4, %%ymm5; vpaddq %%ymm0, %%ymm5, %%ymm6\n\t"
        "vpaddq %%ymm0, %%ymm6, %%ymm7; vpaddq %%ymm0, %%ymm7, %%ymm8; vpaddq %%ymm0, %%ymm8, %%ymm15\n\t"
        "movq $3000, %%rcx\n"
        "1: decq %%rcx; jnz 1b\n\t"
        "vmovdqu %%ymm0, %[o0]; vmovdqu %%ymm5, %[o5]; vmovdqu %%ymm8, %[o8]; vmovdqu %%ymm15, %[o15]\n\t"
        "fstpt %[b]; vzeroupper\n"
        : [o0] "=m"(out[0]), [o5] "=m"(out[5]), [o8] "=m"(out[8]), [o15] "=m"(out[15]), [b] "=m"(back)
        : [l] "m"(lanes), [x] "m"(x87)
        : "rcx", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm15", "cc", "memory");
    for (int i = 0; i < 4; i++)
      if (out[0][i] != lanes[i] || out[5][i] != 6 * lanes[i] || out[8][i] != 9 * lanes[i] ||
          out[15][i] != 10 * lanes[i] || back != x87)
        xadd(&wrong, 1);
  }
}

/* The upper halves, the sixteen registers above, and the masks. */
__attribute__((target("avx512f"))) PREEMPTIBLE static void avx512(void *arg) {
  uint64_t lanes[8], low[8], high[8], mask;
  for (uint64_t seed = (uint64_t)(uintptr_t)arg; !load_rlx(&stop); seed++) {
    for (int i = 0; i < 8; i++) lanes[i] = seed * 0x9e3779b97f4a7c15u + (uint64_t)i;
    uint64_t want = seed & 0xffff;
    __asm__ volatile(
        "vmovdqu64 %[l], %%zmm1; vpaddq %%zmm1, %%zmm1, %%zmm31; kmovw %k[w], %%k5\n\t"
        "movq $3000, %%rcx\n"
        "1: decq %%rcx; jnz 1b\n\t"
        "vmovdqu64 %%zmm1, %[a]; vmovdqu64 %%zmm31, %[b]; kmovw %%k5, %k[m]; vzeroupper\n"
        : [a] "=m"(low), [b] "=m"(high), [m] "=r"(mask)
        : [l] "m"(lanes), [w] "r"(want)
        : "rcx", "xmm1", "xmm31", "k5", "cc", "memory");
    for (int i = 0; i < 8; i++)
      if (low[i] != lanes[i] || high[i] != 2 * lanes[i] || (mask & 0xffff) != want) xadd(&wrong, 1);
  }
}

static void survives(void (*fn)(void *)) {
  preempt_start();
  group g = {0};
  for (intptr_t i = 1; i <= 3; i++) group_go(&g, fn, (void *)i);
  group_thread(&g, pester, NULL);
  long n = rounds(10000);
  for (int i = 0; load_rlx(&counts.preemptions) < (uint64_t)n && i < 50000; i++) os_usleep(1000);
  store_rlx(&stop, true);
  group_wait(&g);
  CHECK(load_rlx(&counts.preemptions) >= (uint64_t)n);
  CHECK_EQ(load_rlx(&wrong), 0);
}

TEST(general_registers_survive, .procs = "12", .seconds = 60) { survives(general); }
TEST(avx2_registers_survive, .procs = "12", .seconds = 60) {
  if (__builtin_cpu_supports("avx2")) survives(avx2);
}
TEST(avx512_registers_survive, .procs = "12", .seconds = 60) {
  if (__builtin_cpu_supports("avx512f")) survives(avx512);
}

#ifndef GM_ASAN /* whose fake stacks say nothing of the room */
/* Deep in its stack a goroutine is left alone. */
PREEMPTIBLE static void at_the_end(void *arg) {
  (void)arg;
  char *lo = load_rlx(&getm()->curg)->stk.lo, *here = __builtin_frame_address(0);
  char *room = __builtin_alloca((size_t)(here - lo) - 2048);
  for (volatile long i = 0; !load_rlx(&stop); i++) room[0] = (char)i;
}

TEST(no_room_no_preemption, .procs = "1") {
  preempt_start();
  group g = {0};
  group_go(&g, at_the_end, NULL);
  group_thread(&g, pester, NULL);
  os_usleep(100000);
  store_rlx(&stop, true);
  group_wait(&g);
  CHECK_EQ(load_rlx(&counts.preemptions), 0);
}
#endif

#endif

/* ---- what was not registered ------------------------------------------------------------------------------ */

noinline static void unregistered(void *arg) {
  for (int64_t end = nanotime() + 60 * MS; nanotime() < end;) ran++;
  (void)arg;
}

TEST(other_code_is_left_alone, .procs = "1") {
  preempt_start();
  group g = {0};
  group_go(&g, unregistered, NULL);
  group_go(&g, unregistered, NULL);
  group_wait(&g);
  CHECK_EQ(load_rlx(&counts.preemptions), 0);
}

TEST(bad_ranges) {
  CHECK_EQ(gm_preemptible(NULL, (void *)4096), GM_INVALID);
  CHECK_EQ(gm_preemptible((void *)4096, (void *)4096), GM_INVALID);
  CHECK_EQ(gm_preemptible((void *)8192, (void *)4096), GM_INVALID);
  for (int i = 0; i < 256; i++) CHECK_EQ(gm_preemptible((void *)16, (void *)17), GM_OK);
  CHECK_EQ(gm_preemptible((void *)16, (void *)17), GM_NOMEM);
}

/* ---- the signal is the program's, too ---------------------------------------------------------------------- */

static _Atomic int urgent;
static void on_urgent(int sig) {
  CHECK_EQ(sig, SIGURG);
  xadd(&urgent, 1);
}

TEST(the_programs_own_handler) {
  signal(SIGURG, on_urgent);
  runtime_start();
  raise(SIGURG); /* sent to this thread, which is none of ours */
  CHECK_EQ(load_rlx(&urgent), 1);
}
