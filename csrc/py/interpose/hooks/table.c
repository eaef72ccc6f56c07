/* table.c - the rows of hooks.h, as got.c wants them. */
#include "py/interpose/hooks/hooks.h"

struct real real;

#define ROW(ret, name, params, where) {#name, (void *)hook_##name, (void **)&real.name, where},
#define ROW_OTHER(ret, name, params, ret2, fn, params2, where) {#name, (void *)fn, (void **)&real.name, where},
#define ROW_SAME(symbol, name, fn, where) {symbol, (void *)fn, (void **)&real.name, where},
#define ROW_CHK(symbol, name, ret, fn, params, where) {symbol, (void *)fn, &real.name, where},
#define ROW_ONLY(ret, name, params) {#name, NULL, (void **)&real.name, 0},
hook hooks[] = {HOOKS(ROW, ROW_OTHER, ROW_SAME, ROW_CHK, ROW_ONLY)};
const size_t nhooks = sizeof hooks / sizeof hooks[0];
