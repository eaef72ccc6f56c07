/* fault.c - preloaded by test_faults.py: the Nth call of a function of the C library fails.
 *
 *     FAULT=function:N:errno[:count]   calls N, N+1, ... N+count-1 (1; 0: all that follow), counted from
 *                                      when the program sets fault_on
 *
 * The runtime finds the C library's functions by name, so these stand behind its hooks, where the kernel would.
 *
 *     fault_arm(functions, N, count)   the same for a list of functions ("malloc,mmap", "all"), but only calls from
 *                                      the runtime's own code count; N = 0 fails none, count < 0: all that
 *                                      follow, for -count ms
 *     fault_disarm()                   how many were counted
 *     fault_where()                    the call stacks of those that failed, innermost first: object+offset
 *
 * "From the runtime's own code": the caller lies in the extension module.  The interpreter's allocations count as ours
 * where the runtime has asked for them (PyObject_GC_New, PyThreadState_New): on the way up the stack nothing else is
 * met, neither an evaluation loop, nor a call of the program's code, nor another library.  That needs PYTHONMALLOC=malloc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

enum { DEPTH = 8, FAILED = 8 }; /* frames: an allocation farther away is not on our behalf; stacks kept */

atomic_int fault_on;
static char wanted[256];
static long first, count = 1;
static int number; /* 0: what suits the function */
static atomic_long calls;

static struct range {
  uintptr_t lo, hi;
} ours, python, own, loop; /* the runtime's code; the interpreter's; this; the interpreter's evaluation loop */

/* From 3.14 on a loop may be many functions, none with a name: these call the program's code. */
static const char *const calling[] = {"PyObject_Vectorcall", "PyObject_CallOneArg", "PyObject_CallNoArgs", "PyObject_Call"};
static struct range call[sizeof calling / sizeof *calling];

/* ---- which calls ------------------------------------------------------------------------------------------ */

__attribute__((constructor)) static void read_fault(void) {
  const char *spec = getenv("FAULT");
  if (!spec) return;
  const char *colon = strchr(spec, ':');
  if (!colon || (size_t)(colon - spec) >= sizeof wanted) abort();
  memcpy(wanted, spec, (size_t)(colon - spec));
  char *rest;
  first = strtol(colon + 1, &rest, 10);
  number = (int)strtol(rest + 1, &rest, 10);
  if (*rest == ':') count = strtol(rest + 1, NULL, 10);
}

static int is_wanted(const char *name) {
  if (strcmp(wanted, "all") == 0) return 1;
  size_t n = strlen(name);
  for (const char *at = wanted; (at = strstr(at, name)) != NULL; at += n)
    if ((at == wanted || at[-1] == ',') && (at[n] == ',' || at[n] == 0)) return 1;
  return 0;
}

static int lies_in(struct range r, uintptr_t at) { return at >= r.lo && at < r.hi; }

static int runs_program(uintptr_t at) {
  for (size_t i = 0; i < sizeof call / sizeof *call; i++)
    if (lies_in(call[i], at)) return 1;
  return lies_in(loop, at);
}

typedef struct walk {
  uintptr_t at[DEPTH];
  int n;
  int found;
} walk;

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *arg) {
  walk *w = arg;
  uintptr_t ip = _Unwind_GetIP(context);
  if (!ip || w->n == DEPTH || runs_program(ip)) return _URC_END_OF_STACK;
  if (lies_in(own, ip)) return _URC_NO_REASON;
  w->at[w->n++] = ip;
  w->found = lies_in(ours, ip);
  return w->found || !lies_in(python, ip) ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* The stacks of the calls that failed. */
static struct {
  const char *name;
  walk w;
} failed[FAILED];
static atomic_int nfailed;

/* One line; how long it is. */
static size_t describe(char *out, size_t room, const char *name, const walk *w) {
  size_t n = (size_t)snprintf(out, room, "%s", name);
  for (int k = 0; k < w->n && n < room; k++) {
    Dl_info info = {0};
    if (!dladdr((void *)w->at[k], &info) || !info.dli_fname) continue;
    const char *slash = strrchr(info.dli_fname, '/');
    n += (size_t)snprintf(out + n, room - n, " < %s+%#lx", slash ? slash + 1 : info.dli_fname,
                          (unsigned long)(w->at[k] - (uintptr_t)info.dli_fbase));
    if (info.dli_sname && n < room) n += (size_t)snprintf(out + n, room - n, "(%s)", info.dli_sname);
  }
  if (n < room) n += (size_t)snprintf(out + n, room - n, "\n");
  return n;
}

/* The program may not live to ask. */
static void tell(const char *name, const walk *w) {
  char line[1024];
  size_t n = describe(line, sizeof line, name, w);
  if (write(2, "refused: ", 9) < 0 || write(2, line, n < sizeof line ? n : sizeof line) < 0) return;
}

static atomic_long until;

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int fails(const char *name, void *caller) {
  static __thread int inside __attribute__((tls_model("initial-exec")));
  if (!fault_on || inside || !is_wanted(name)) return 0;
  walk w = {.n = 0};
  if (ours.hi) {
    inside = 1;
    uintptr_t at = (uintptr_t)caller;
    w.found = lies_in(ours, at);
    if (w.found) {
      w.at[w.n++] = at;
    } else if (strstr(name, "alloc")) { /* an allocation: the interpreter's, on our behalf? */
      int e = errno;
      _Unwind_Backtrace(step, &w);
      errno = e;
    }
    inside = 0;
    if (!w.found) return 0;
  }
  long n = atomic_fetch_add(&calls, 1) + 1;
  if (first == 0 || n < first || (count > 0 && n >= first + count)) return 0;
  if (count < 0) {
    if (n == first) until = now_ms() - count;
    if (now_ms() >= until) return 0;
  }
  int i = atomic_fetch_add(&nfailed, 1);
  if (i < FAILED) {
    failed[i].w = w;
    failed[i].name = name;
    if (ours.hi) {
      inside = 1;
      tell(name, &w);
      inside = 0;
    }
  }
  return 1;
}

/* ---- asked by the program ----------------------------------------------------------------------------------- */

/* The code of each object that matters. */
static int find_code(struct dl_phdr_info *info, size_t size, void *arg) {
  (void)size;
  (void)arg;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
    if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X)) continue;
    struct range code = {info->dlpi_addr + ph->p_vaddr, info->dlpi_addr + ph->p_vaddr + ph->p_memsz};
    if (lies_in(code, loop.lo)) python = code;
    if (lies_in(code, (uintptr_t)find_code)) own = code;
    if (strstr(info->dlpi_name, "/gmprt/_native.")) ours = code;
  }
  return 0;
}

static struct range function(const char *name) {
  void *at = dlsym(RTLD_DEFAULT, name);
  Dl_info info;
  ElfW(Sym) *sym = NULL;
  if (!at || !dladdr1(at, &info, (void **)&sym, RTLD_DL_SYMENT) || !sym) abort();
  return (struct range){(uintptr_t)at, (uintptr_t)at + sym->st_size};
}

void fault_arm(const char *functions, long n, long howmany) {
  snprintf(wanted, sizeof wanted, "%s", functions);
  loop = function("_PyEval_EvalFrameDefault");
  for (size_t i = 0; i < sizeof call / sizeof *call; i++) call[i] = function(calling[i]);
  dl_iterate_phdr(find_code, NULL);
  if (!ours.hi || !python.hi) abort();
  first = n;
  count = howmany;
  number = 0;
  calls = 0;
  until = LONG_MAX;
  nfailed = 0;
  fault_on = 1;
}

long fault_disarm(void) {
  fault_on = 0;
  return calls;
}

const char *fault_where(void) {
  static char text[8192];
  size_t n = 0;
  text[0] = 0;
  for (int i = 0; i < nfailed && i < FAILED && n < sizeof text; i++)
    n += describe(text + n, sizeof text - n, failed[i].name, &failed[i].w);
  return text;
}

/* ---- the functions ------------------------------------------------------------------------------------------ */

#define FAULT_AS(type, name, failure, e, parameters, arguments) \
  type name parameters { \
    static type(*real) parameters; \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    if (fails(#name, __builtin_return_address(0))) { \
      if (!number) number = (e); \
      errno = number; \
      return failure; \
    } \
    return real arguments; \
  }
#define FAULT(type, name, failure, parameters, arguments) FAULT_AS(type, name, failure, ENOMEM, parameters, arguments)

FAULT(void *, mmap, MAP_FAILED, (void *a, size_t n, int p, int f, int fd, off_t o), (a, n, p, f, fd, o))
FAULT(int, madvise, -1, (void *a, size_t n, int advice), (a, n, advice))
FAULT(int, mprotect, -1, (void *a, size_t n, int p), (a, n, p))
FAULT_AS(int, epoll_create1, -1, EMFILE, (int f), (f))
FAULT(int, epoll_ctl, -1, (int e, int op, int fd, struct epoll_event *ev), (e, op, fd, ev))
FAULT_AS(int, eventfd, -1, EMFILE, (unsigned n, int f), (n, f))
FAULT(int, accept4, -1, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f))
FAULT(ssize_t, recv, -1, (int fd, void *b, size_t n, int f), (fd, b, n, f))
FAULT(ssize_t, sendto, -1, (int fd, const void *b, size_t n, int f, const struct sockaddr *a, socklen_t l),
      (fd, b, n, f, a, l))
FAULT(int, connect, -1, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
FAULT_AS(int, pthread_create, number, EAGAIN,
         (pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg), (t, a, fn, arg))
FAULT(int, pthread_attr_init, number, (pthread_attr_t *a), (a))
FAULT_AS(int, pthread_key_create, number, EAGAIN, (pthread_key_t *k, void (*end)(void *)), (k, end))
/* Only where glibc may need memory: for the first value of a key in a thread. */
int pthread_setspecific(pthread_key_t k, const void *v) {
  static int (*real)(pthread_key_t, const void *);
  static __thread unsigned char had[PTHREAD_KEYS_MAX];
  if (!real) real = (int (*)(pthread_key_t, const void *))dlsym(RTLD_NEXT, "pthread_setspecific");
  if (v && k < PTHREAD_KEYS_MAX && !had[k]) {
    if (fails("pthread_setspecific", __builtin_return_address(0))) return number ? number : ENOMEM;
    had[k] = 1;
  }
  return real(k, v);
}
FAULT(int, sigaltstack, -1, (const stack_t *ss, stack_t *old), (ss, old))
FAULT_AS(pid_t, fork, -1, EAGAIN, (void), ())
FAULT_AS(FILE *, fopen, NULL, EMFILE, (const char *path, const char *mode), (path, mode))

/* These are called before anything can be looked up. */
#define FAULT_ALLOC(name, parameters, call) \
  void *name parameters { \
    if (fails(#name, __builtin_return_address(0))) { \
      errno = ENOMEM; \
      return NULL; \
    } \
    return call; \
  }
FAULT_ALLOC(malloc, (size_t n), __libc_malloc(n))
FAULT_ALLOC(calloc, (size_t n, size_t size), __libc_calloc(n, size))
FAULT_ALLOC(realloc, (void *p, size_t n), __libc_realloc(p, n))

int posix_memalign(void **out, size_t align, size_t n) {
  if (fails("posix_memalign", __builtin_return_address(0))) return ENOMEM;
  void *p = __libc_memalign(align, n);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}
