/* hibernate.h - goroutines that sleep without their stack: hibernate.c. */
#ifndef GMPRT_PY_HOST_HIBERNATE_H
#define GMPRT_PY_HOST_HIBERNATE_H

#include "sched/g.h"

bool host_still(void);
char *host_drowsy(G *gp);
void *host_hide(G *gp);
void host_show(G *gp, void *hidden);

#endif
