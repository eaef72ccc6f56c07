/* locate.c - where the interpreter keeps the thread states of a thread: the current one, and what PyGILState_* finds.
 *
 * From 3.12 on the current one is in a private thread-local (the slot), from 3.15 on the other, too.  They are found
 * once, at import, among the thread-locals of the object that holds the interpreter: a word is believed if public
 * functions return what is written there.  Before 3.15 what PyGILState_* finds is the value of a key, the TSS entry.
 * It lies elsewhere in each thread, so each M looks for its own. */
#define _GNU_SOURCE

#include "base/elf.h"
#include "py/cpython/follow.h"
#include "py/cpython/tstate.h"

#ifdef HAVE_TLS_CURRENT
typedef struct {
  unsigned long module, offset;
} tls_index;
void *__tls_get_addr(tls_index *);

/* A word of each thread's, among the thread-locals of the interpreter. */
typedef struct word {
  PyThreadState *(*get)(void);
  uint32_t found;
  tls_index at;
} word;

static PyThreadState **slot_at(tls_index at) { return __tls_get_addr(&at); }

/* Does `get` return what is written there? */
static bool believed(tls_index at, PyThreadState *(*get)(void)) {
  static PyThreadState probe;
  PyThreadState *ts = PyThreadState_Get(), **slot = slot_at(at);
  *slot = &probe;
  bool so = get() == &probe;
  *slot = ts;
  return so && get() == ts;
}

static PyThreadState *get_current(void) { return CURRENT_UNCHECKED(); }
static word current = {.get = get_current}; /* the current state */
#ifdef HAVE_TLS_GILSTATE
static word gilstate = {.get = PyGILState_GetThisThreadState}; /* what PyGILState_* finds */
static word *const words[] = {&current, &gilstate};
#else
static word *const words[] = {&current};
#endif

/* The words may hold the same, so each is asked for. */
static void look_at(tls_index at) {
  for (size_t i = 0; i < nelem(words); i++) {
    if (!believed(at, words[i]->get)) continue;
    words[i]->found++;
    words[i]->at = at;
  }
}

/* Its TLS block of this thread is searched for the current state.  Others' are not: a library may well keep the state
 * of its thread in a thread-local of its own. */
static int scan_object(struct dl_phdr_info *info, size_t size, void *arg) {
  (void)size;
  bool *shared = arg;
  if (!object_holds(info, (uintptr_t)&_PyRuntime)) return 0;
  *shared = info->dlpi_name[0] != 0;
  for (int i = 0; i < info->dlpi_phnum && info->dlpi_tls_data; i++) {
    if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
    void **block = info->dlpi_tls_data;
    follow_learn(block, info->dlpi_phdr[i].p_memsz);
    for (size_t w = 0; w < info->dlpi_phdr[i].p_memsz / sizeof *block; w++)
      if (block[w] == PyThreadState_Get()) look_at((tls_index){info->dlpi_tls_modid, w * sizeof *block});
  }
  return 1;
}

PyThreadState **slot_of_this_thread(void) { return slot_at(current.at); }

/* For each of them there must be one that is believed, and only one. */
bool find_slot(void) {
  bool shared = false, all = true;
  for (size_t i = 0; i < nelem(words); i++) words[i]->found = 0;
  dl_iterate_phdr(scan_object, &shared);
  if (tls_addresses_kept(Py_GetCompiler(), shared, PY_VERSION_HEX)) {
    PyErr_Format(PyExc_ImportError,
                 "gmprt cannot run on a shared libpython that was built by Clang (%s): such code keeps the addresses "
                 "of thread-locals while its thread changes; use a Python built by GCC, or one whose executable "
                 "contains the interpreter",
                 Py_GetCompiler());
    return false;
  }
  if (!follow_can()) {
    PyErr_SetString(PyExc_ImportError,
                    "gmprt cannot run on a libpython that was loaded by a running program on this CPU: compiled code keeps "
                    "the addresses of thread-locals while its thread changes");
    return false;
  }
  for (size_t i = 0; i < nelem(words); i++) all = all && words[i]->found == 1;
  if (!all) PyErr_SetString(PyExc_ImportError, "gmprt cannot find where this interpreter keeps its current thread state");
  return all;
}
#endif

/* Clang computes the address of a thread-local of a shared object once in a function, and keeps it over calls: in
 * functools.reduce, gen_close, subtype_dealloc and some 70 others, whose callees may park and come back on another
 * thread.  Then the state that is current on the old thread is taken for one's own.  GCC's functions that do so
 * (11 in 3.12, 14 in 3.13) run no Python meanwhile.  In an executable the address is relative to the thread's own
 * register, of which arm64's code keeps copies (follow.c); in 3.11 it is no thread-local.  To keep each goroutine on
 * the thread where it began would be possible only at the price of a thread for each: so the interpreter is refused. */
bool tls_addresses_kept(const char *compiler, bool shared, int version) {
  return shared && version >= 0x030c0000 && strstr(compiler, "Clang") != NULL;
}

#ifdef HAVE_TLS_GILSTATE
bool tss_reserve(void) { return true; } /* a thread has its thread-locals from the start */
void **tss_of_this_thread(void) { return (void **)slot_at(gilstate.at); }
void gilstate_set(PyThreadState *ts) { *tss_of_this_thread() = ts; }
#else
/* The first value of a key that is no low one needs memory in each thread (glibc: 16 bytes for each of 32 keys), the next
 * ones do not.  The interpreter aborts where it is refused; so it is had here, where that can be told. */
bool tss_reserve(void) {
  static PyThreadState none;
  if (pthread_getspecific(AUTO_TSS_KEY)) return true;
  return pthread_setspecific(AUTO_TSS_KEY, &none) == 0 && pthread_setspecific(AUTO_TSS_KEY, NULL) == 0;
}

/* Where this thread's value of the key lies, NULL if not where glibc has it: among the first words of what
 * pthread_self() points to.  (The descriptor is longer than that on every glibc.) */
void **tss_of_this_thread(void) {
  enum { WORDS = 1536 / sizeof(void *) };
  static PyThreadState probe[2]; /* never looked into: a state to whoever comes across it */
  void *own = pthread_getspecific(AUTO_TSS_KEY), **self = (void **)pthread_self(), **at = NULL;
  if (pthread_setspecific(AUTO_TSS_KEY, &probe[0]) != 0) return NULL;
  int hits = 0;
  for (int i = 0; i < WORDS; i++) {
    if (self[i] != &probe[0]) continue;
    at = &self[i];
    hits++;
  }
  bool sure = hits == 1;
  if (sure) {
    *at = &probe[1];
    sure = pthread_getspecific(AUTO_TSS_KEY) == &probe[1];
  }
  pthread_setspecific(AUTO_TSS_KEY, own);
  return sure && *at == own ? at : NULL;
}
#endif
