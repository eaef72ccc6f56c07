/* ownfd.h - descriptors of the runtime's own, among those of the program: ownfd.c. */
#ifndef GMPRT_BASE_OWNFD_H
#define GMPRT_BASE_OWNFD_H

#include <stdbool.h>

typedef struct ownfd ownfd;
ownfd *ownfd_new(int fd);
void ownfd_free(ownfd *o);
void ownfd_forget(ownfd *o);
int ownfd_number(const ownfd *o);
bool ownfd_post(ownfd *o);
bool ownfd_drain(ownfd *o);
bool ownfd_intact(ownfd *o);
unsigned ownfd_from(unsigned fd);
bool ownfd_is(int fd);
void ownfd_taken(int fd);
int ownfd_move(int fd);
void ownfd_afterfork(void);

#endif
