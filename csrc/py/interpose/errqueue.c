/* errqueue.c - OpenSSL's queue of errors, which belongs to a thread.
 *
 * SSL_get_error() decides by the queue of the calling thread what has become of an SSL_read().  Below that SSL_read
 * a goroutine may park, in the recv() of libcrypto.  Three rules keep each goroutine's errors to itself:
 *
 *   - Who has errors in the queue does not park, its thread waits (errqueue_empty).  Else others would find them, and
 *     it would miss them.  It happens in the middle of a handshake that fails, while the alert is sent.
 *   - Who comes back on another thread has left an empty queue, and finds an empty one (errqueue_clear): what
 *     is in it was left there by a call that has ended.
 *   - A call of _ssl that has raised leaves an empty queue (shim_leave_rare).  _ssl sees to that but for errors of the system
 *     (ERR_LIB_SYS, which OpenSSL 3.2 and later notes): the thread's next call, of another connection, would fail with them.
 *
 * Only the OpenSSL that `_ssl` is linked with, by the names under which it is known.  One that is linked
 * into the interpreter itself cannot be asked.
 *
 * Rejected: taking the errors out and putting them back (their text and position cannot be put back in 1.1.1). */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "py/interpose/homes.h"

typedef unsigned long (*peek_fn)(void);
typedef void (*clear_fn)(void);

static _Atomic(peek_fn) peek; /* NULL: no OpenSSL here */
static clear_fn clear;        /* before peek */

/* After objects were loaded; with the GIL. */
void errqueue_find(void) {
  static const char *const names[] = {"libcrypto.so.3", "libcrypto.so.1.1"};
  for (size_t i = 0; i < nelem(names) && !load_rlx(&peek); i++) {
    void *handle = dlopen(names[i], RTLD_LAZY | RTLD_NOLOAD);
    if (!handle) continue;
    peek_fn fn = (peek_fn)dlsym(handle, "ERR_peek_error");
    clear = (clear_fn)dlsym(handle, "ERR_clear_error");
    if (fn && clear) store_rel(&peek, fn);
    else dlclose(handle);
  }
}

bool errqueue_empty(void) {
  peek_fn fn = load_acq(&peek);
  return likely(!fn) || fn() == 0;
}

void errqueue_clear(void) {
  if (load_acq(&peek)) clear();
}
