/* stack.h - where goroutines' stacks come from: stack.c. */
#ifndef GMPRT_MEM_STACK_H
#define GMPRT_MEM_STACK_H

#include "base/base.h"

typedef struct stack {
  char *lo; /* lowest usable byte (above the guard) */
  char *hi; /* T: the C stack starts here; what lies above belongs to the host */
  size_t size; /* of the slot, guard included */
} stack;

/* Two kinds of slots, each with a size of its own. */
typedef enum { STACKS_NATIVE = 0, STACKS_HOSTED } stackclass;

/* host_size: of a hosted slot, bytes.  host_top: what the host uses of it, above the C stack's start. */
void stack_init(size_t host_size, size_t host_top);
bool stack_promise(stackclass kind);
bool stack_alloc(stackclass kind, bool promised, stack *out);
void stack_free(stackclass kind, stack *s, bool unguarded);
bool stacks_empty(stack **list, uint32_t n);
void stack_again(const stack *s, bool unguarded);
void stacks_tidy(void); /* when many were given back: page tables that they have left go, too */
void stack_shrink(const stack *s, const void *sp);
bool stack_alloc_big(size_t size, stack *out);
void stack_free_big(stack *s);
void stack_forklock(bool on);
void stack_afterfork(void);

size_t stack_host_size(void);
size_t stack_host_resize(size_t size);
const char *stack_guard_mode(void);
bool stack_overflowed(uintptr_t addr); /* a fault there is one in a guard */

/* Address space, bytes; slots that were ever used; of these, that have pages.  How many pages is the kernel's secret: a
 * stack grows by faults that nobody here hears of. */
extern _Atomic uint64_t stack_reserved, stack_slots, stacks_committed;
extern _Atomic uint64_t stacks_emptied, stack_shrinks; /* ever: of all their pages, of what lay far below */

extern size_t stack_page; /* the kernel's, of which a guard is one */

#endif
