/* base.h - what every file may use: atomics, branch hints, throw(), fatal().
 *
 * Memory orders are spelled in the name at each use (load_acq, store_rel, ...), so that the argument
 * for an order can be read where it matters.  Plain CAS and xchg are sequentially consistent.
 *
 * fence() is the store-load fence of the wake protocol (sched/wake.c).  Thread sanitizer does not model
 * fences, so its builds use a read-modify-write of one global word, which orders the same and is seen. */
#ifndef GMPRT_BASE_H
#define GMPRT_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define noinline __attribute__((noinline))
#define force_inline inline __attribute__((always_inline))
/* Reads memory as it lies there: stacks with what the sanitizer puts between variables. */
#define reads_raw __attribute__((no_sanitize_address))
#define nelem(a) (sizeof(a) / sizeof((a)[0]))
#define containerof(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#if defined(__SANITIZE_THREAD__)
#define GM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define GM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GM_ASAN 1
#endif
#endif

#define load_rlx(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acq(p) atomic_load_explicit((p), memory_order_acquire)
#define store_rlx(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_rel(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define xadd(p, v) atomic_fetch_add((p), (v))
#define xchg(p, v) atomic_exchange((p), (v))
#define cas(p, old, new) \
  ({ __typeof__(load_rlx(p)) old_ = (old); atomic_compare_exchange_strong((p), &old_, (new)); })
/* For counters of one writer that others read: no lock prefix. */
#define inc_rlx(p) store_rlx((p), load_rlx(p) + 1)

#ifdef GM_TSAN
extern _Atomic uint32_t tsan_fence_word;
#define fence() ((void)xadd(&tsan_fence_word, 0))
#else
#define fence() atomic_thread_fence(memory_order_seq_cst)
#endif

/* A broken invariant: prints file, line, goroutine, thread and the sentence, then aborts. */
_Noreturn void throw_at(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
extern void (*throw_describe)(char *out, size_t size); /* who runs here; fatal.c */
#define throw(...) throw_at(__FILE__, __LINE__, __VA_ARGS__)
#define gm_assert(cond) \
  do { \
    if (unlikely(!(cond))) throw("assertion failed: %s", #cond); \
  } while (0)
/* No broken invariant, but there is no going on and nobody to tell: a forked child that is refused what its only
 * goroutine needs.  Prints the sentence and ends the process with FATAL_STATUS, without exit handlers. */
enum { FATAL_STATUS = 2 }; /* Go's, for a runtime that cannot go on */
_Noreturn void fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Checks that cost something on the fast paths: debug and sanitizer builds only. */
#ifdef GM_DEBUG
#define gm_debug_assert(cond) gm_assert(cond)
#else
#define gm_debug_assert(cond) ((void)0)
#endif

/* xorshift: random choices of the scheduler, never of anything that must be unpredictable. */
static inline uint32_t fastrand(uint64_t *state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  *state = x;
  return (uint32_t)(x >> 32);
}
/* Uniform in [0, n): the high half of the product, no division. */
static inline uint32_t fastrandn(uint64_t *state, uint32_t n) {
  return (uint32_t)(((uint64_t)fastrand(state) * n) >> 32);
}

#endif
