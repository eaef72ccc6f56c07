/* test.h - what every C test of the runtime uses.
 *
 * A test is a function, TEST(name, options...) { ... }, in a file named like the runtime file that it
 * attacks.  Each runs in a process of its own (a fresh runtime), once for every number of Ps that its
 * options name, and with .chaos once more under GMPRT_CHAOS.  CHECK() prints file and line and lets the
 * test go on; the process then counts as failed.  A test that takes too long is killed by its watchdog,
 * which prints what the runtime was doing.
 *
 *   prog              all tests; the last line is "N passed, N failed"
 *   prog word ...     those whose name contains a word
 *
 * CRASH(name) { ... } is a function that is meant to kill its process: crash() runs it in one and hands
 * back what it printed. */
#ifndef GMPRT_TEST_H
#define GMPRT_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <unistd.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "base/ownfd.h"
#include "gmprt.h"
#include "sched/chaos.h"
#include "sched/netpoll.h"
#include "sched/park.h"
#include "sched/sched.h"
#include "sync/chan.h"
#include "sync/sema.h"

/* Tests call these as an interface does: chaos comes first. */
#define chansend(c, elem, block, deadline, attached) \
  (chaos_point(attached), (chansend)(c, elem, block, deadline, attached))
#define chanrecv(c, elem, block, deadline, attached) \
  (chaos_point(attached), (chanrecv)(c, elem, block, deadline, attached))
#define selectgo(cases, n, block, deadline, hosted, result) \
  (chaos_point(hosted), (selectgo)(cases, n, block, deadline, hosted, result))
#define semacquire(s, why, block, deadline) (chaos_point((s)->hosted), (semacquire)(s, why, block, deadline))
#define gomutex_lock(m, block, deadline) (chaos_point((m)->hosted), (gomutex_lock)(m, block, deadline))

typedef struct test {
  const char *name;
  void (*fn)(void);
  const char *procs; /* GOMAXPROCS, one digit for each run; NULL: "2" */
  bool chaos;        /* once more with GMPRT_CHAOS */
  int seconds;       /* watchdog; 0: 30 */
  bool crash;
  struct test *next;
} test;

void test_register(test *t);

#define TEST(fname, ...) TEST_ENTRY(fname, __VA_ARGS__)
#define CRASH(fname) TEST_ENTRY(fname, .crash = true)
#define TEST_ENTRY(fname, ...) \
  static void fname(void); \
  static test fname##_test = {.name = #fname, .fn = fname, __VA_ARGS__}; \
  __attribute__((constructor)) static void fname##_register(void) { test_register(&fname##_test); } \
  static void fname(void)

/* Any thread, any goroutine. */
void check_failed(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, "%s", #cond))
#define CHECK_EQ(a, b) \
  do { \
    long long a_ = (long long)(a), b_ = (long long)(b); \
    if (a_ != b_) check_failed(__FILE__, __LINE__, "%s is %lld, not %s = %lld", #a, a_, #b, b_); \
  } while (0)
/* The test makes no sense without it: ends the process. */
#define NEED(cond) \
  do { \
    if (!(cond)) { \
      check_failed(__FILE__, __LINE__, "%s", #cond); \
      _exit(1); \
    } \
  } while (0)

/* n rounds in the plain build, fewer in those that are slow. */
int rounds(int n);
/* Bounds on elapsed time hold on a quiet machine; sanitizers and a loaded one get more. */
int64_t patient(int64_t ns);
enum { MS = 1000000 };

/* Thread sanitizer has room for about 8000 goroutines. */
#ifdef GM_TSAN
enum { MANY = 500 };
#else
enum { MANY = 5000 };
#endif

/* Random numbers of a thread or goroutine: give each a state of its own. */
typedef uint64_t rng;
rng rng_new(void);
static inline uint32_t below(rng *r, uint32_t n) { return fastrandn(r, n); }

/* Occupies the processor for about that long. */
void spin_ns(int64_t ns);

/* Goroutines and threads that are started together and waited for. */
typedef struct group {
  gm_sema ended;
  int n, nthreads;
  pthread_t thread[32];
} group;
void group_go(group *g, void (*fn)(void *), void *arg);     /* native goroutine */
void group_thread(group *g, void (*fn)(void *), void *arg); /* ordinary thread */
void group_wait(group *g);
/* fn(arg) in one native goroutine, waited for. */
void in_goroutine(void (*fn)(void *), void *arg);

/* Runs fn(arg) instruction by instruction, and each(n) after the n-th, on another thread, which is so quick.  each
 * returns false when it wants no more.  It must not wait for a lock that fn may hold.  false: this build cannot
 * (x86-64 only, and thread sanitizer hands signals on later). */
bool stepwise(void (*fn)(void *), void *arg, bool (*each)(int n));

/* The process gets so much time from now on. */
void watched(int seconds);

/* Counts its calls, for whoever wants to know how many have been: tallied(n) waits for n. */
extern _Atomic long tally;
void tallies(void *unused);
void tallied(long n);

/* Blocks its thread, announced, until n have come: so there are that many threads.  crew_inside is how many have. */
extern _Atomic intptr_t crew_inside;
void blocks_with_crew(void *n);

void runtime_start(void); /* without a host */
uint32_t count_ms(void);
static inline G *self(void) { return load_rlx(&getm()->curg); }

/* Runs a CRASH function; its standard error goes to out.  Returns the wait status. */
int crash(const char *name, char *out, size_t size);

/* What the runtime is doing, on standard error. */
void runtime_dump(void);

#endif
