// SPDX-License-Identifier: MIT
/* What the files of the library know of each other, and guest tests do not. */
#ifndef HGM_INSIDE_H
#define HGM_INSIDE_H

#include "hgm.h"

#include <signal.h>

/* ---- frame.c ---- */

enum { PASS = 0, FAIL = 1, USAGE = 2, SKIP = 4 }; /* exit status */

/* The case that runs, and its number in KTAP. */
extern const struct hgm_case *hgm_current;
extern int hgm_current_number;

/* ---- verdicts.c ---- */

/* Ends the case with its result line; `reason` is that of a skip. */
_Noreturn void hgm_finish(int status, const char *reason);
/* A failure found in here is told at the line of the case that called, and then where it was. */
_Noreturn void hgm_fail_inside(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define FAIL_HERE(...) hgm_fail_inside(__FILE__, __LINE__, __VA_ARGS__)
const char *hgm_error_name(int error);

/* ---- tasks.c ---- */

/* How long a thread or a message may take. Far above what an emulated machine needs, below a case's deadline. */
#define PATIENCE_S hgm_patience(40)

extern bool hgm_in_child;

/* ---- sizes.c ---- */

/* Base pages of a huge page. */
#define PIECES (hgm_huge / hgm_base)

/* "2M", until the next call in this thread. */
const char *hgm_size_name(size_t size);
/* Every huge page size the kernel has, largest first, then the base page, then 0. */
const size_t *hgm_all_sizes(void);

/* What one entry of a page table of the middle level (PMD) maps, and one of the level above (PUD). */
static inline size_t hgm_pmd_size(void)
{
	return hgm_base * (hgm_base / 8);
}

static inline size_t hgm_pud_size(void)
{
	return hgm_pmd_size() * (hgm_base / 8);
}

/* ---- proc.c ---- */

/* Entries of pagemap, kpagecount and the like read at a time. */
#define BATCH 4096

/* pagemap is that of the process that opens it, so a child must not use its parent's descriptor. */
void hgm_read_entries(const char *path, uint64_t first, size_t count, uint64_t *entries);

/* ---- uffd.c ---- */

/* A memfd of huge pages, whatever the pool has left. */
int hgm_huge_file(size_t pages);
/* UFFDIO_CONTINUE: 0 or errno. */
int hgm_uffd_continue(int uffd, const void *at, size_t length, long long *mapped);

/* ---- area.c ---- */

/* The largest size that the model has in a part of the primary; 0 if all of it is a hole. */
size_t hgm_largest_leaf(const struct hgm_area *area, size_t offset, size_t length);
/* kB of page tables below the level that maps whole huge pages: a table is there where a smaller leaf is. */
long hgm_table_kb(const struct hgm_area *area);

/* ---- outside.c ---- */

#define ELSEWHERE 1 /* of area->outside: a leaf that is not where the first one of its huge page puts it */

/* What an answer tells of the primary; where it lies goes to area->outside. */
struct outside {
	const char *text; /* NULL: nobody can tell */
	long tables, mapped_kb;
};

/* The virtio-serial port of the harness. By hand, on a machine of one's own, there is none. */
void hgm_open_shape_port(void);
struct outside hgm_look(const struct hgm_area *area);
/* What the harness must see of the primary, in its words (harness/pagetable/shape.py). */
const char *hgm_expected_shape(const struct hgm_area *area);

/* ---- expect.c ---- */

/* pagemap is what the model says, and, if area->outside was `told`, what the hardware has. */
void hgm_expect_pagemap(const struct hgm_area *area, bool told);

/* ---- faults.c ---- */

/* The handler of a SIGBUS that no probe waits for: it fails the case. */
void hgm_on_sigbus(int number, siginfo_t *info, void *context);

#endif
