/* pending.h - for selfcheck.c: what makes an evaluation loop look up. */
#ifndef GMPRT_PY_CPYTHON_PENDING_H
#define GMPRT_PY_CPYTHON_PENDING_H

#include "py/cpython/field.h"

bool breaker_looks_sound(check *c); /* c->fresh is gone */
bool pending_looks_sound(check *c);

#endif
