/* bucket.h - waits for the locks that the parking lot has for itself: bucket.c. */
#ifndef GMPRT_PY_CPYTHON_BUCKET_H
#define GMPRT_PY_CPYTHON_BUCKET_H

#include "py/cpython/version.h"

#include "base/base.h"

#ifdef HAVE_PARKING_LOT
typedef struct bucket_call {
  size_t at;               /* how many words above the frame of sem_wait the return address lies ... */
  _Atomic uintptr_t after; /* ... and what it is; 0: not known */
} bucket_call;
extern bucket_call bucket_call_site;

void bucket_learn(void); /* at activation, the hooks in place */
bool bucket_heard(void **frame, void *sem);

/* Does who has called sem_wait wait for a bucket?  `frame`: __builtin_dwarf_cfa() in the hook.  An arm64 signs return
 * addresses, in the upper bits. */
static inline reads_raw bool waits_for_bucket(void **frame, void *sem) {
  uintptr_t after = load_acq(&bucket_call_site.after);
  if (unlikely(!after)) return bucket_heard(frame, sem);
  return ((uintptr_t)frame[bucket_call_site.at] ^ after) << 16 == 0;
}
#else
static inline void bucket_learn(void) {}
static inline bool waits_for_bucket(void **frame, void *sem) {
  (void)frame, (void)sem;
  return false;
}
#endif

#endif
