// SPDX-License-Identifier: MIT
/*
 * What guest tests in C stand on: a frame that runs cases and prints KTAP, expectations that end a case at once, and
 * the kernel interfaces around shared huge pages.
 *
 * A case is declared at top level, all arguments literals, since the harness reads them without compiling:
 *
 *	HGM_CASE(counts_once, "one piece raises the mapcount by one (RFC v1)", .deadline_s = 30)
 *	{
 *		...
 *	}
 *
 * HGM_CASE needs a kernel with high-granularity mapping and is skipped on others; STOCK_CASE holds on both kinds.
 */
#ifndef HGM_H
#define HGM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

/* Newer than the headers of some hosts, or only in the posted series. */
#ifndef UFFD_FEATURE_EXACT_ADDRESS
#define UFFD_FEATURE_EXACT_ADDRESS (1 << 11)
#endif
#define HGM_MADV_COLLAPSE 25
#define HGM_MADV_SPLIT 26 /* PATCH v1 patch 9, v2 */

struct hgm_case {
	const char *name;
	const char *claim; /* what it shows and the fact it stands on */
	bool needs_hgm;
	void (*run)(void);
	int deadline_s; /* this and what follows is for the harness; nothing in here looks at it */
	const char *sizes;
	const char *arch;
	struct hgm_case *next;
};

#define HGM_DECLARE_CASE(id, hgm, what, ...)                                                                           \
	static void hgm_case_##id(void);                                                                               \
	static struct hgm_case hgm_declared_##id = {                                                                   \
		.name = #id, .claim = what, .needs_hgm = hgm, .run = hgm_case_##id, ##__VA_ARGS__                      \
	};                                                                                                             \
	__attribute__((constructor)) static void hgm_declare_##id(void)                                                \
	{                                                                                                              \
		hgm_declare(&hgm_declared_##id);                                                                       \
	}                                                                                                              \
	static void hgm_case_##id(void)

#define HGM_CASE(id, what, ...) HGM_DECLARE_CASE(id, true, what, ##__VA_ARGS__)
#define STOCK_CASE(id, what, ...) HGM_DECLARE_CASE(id, false, what, ##__VA_ARGS__)

void hgm_declare(struct hgm_case *declared);

extern size_t hgm_base; /* size of a base page */
extern size_t hgm_huge; /* size of the huge pages the case runs at */

/* Each of these ends the case; in a forked child they end the child, which fails the case that waits for it. */
_Noreturn void hgm_fail_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void hgm_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hgm_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hgm_expect_eq_at(const char *file, int line, const char *what, long long seen, long long expected);
void hgm_expect_errno_at(const char *file, int line, const char *what, int seen, int expected);

#define HGM_FAIL(...) hgm_fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define EXPECT_EQ(seen, expected)                                                                                      \
	hgm_expect_eq_at(__FILE__, __LINE__, #seen, (long long)(seen), (long long)(expected))
/* For calls that return 0 or an errno. */
#define EXPECT_ERRNO(seen, expected) hgm_expect_errno_at(__FILE__, __LINE__, #seen, (seen), (expected))
/* For system calls that must work; the value is the call's. */
#define CHECKED(call)                                                                                                  \
	({                                                                                                             \
		__typeof__(call) checked_value = (call);                                                               \
		if ((intptr_t)checked_value == -1)                                                                     \
			hgm_fail_at(__FILE__, __LINE__, "%s: %s", #call, strerror(errno));                             \
		checked_value;                                                                                         \
	})

/* Whether the kernel has HGM, asked once. Fails the case if its answers are those of no posted version. */
bool hgm_present_in_kernel(void);
/* Ends a case about kernels without HGM as not applicable where there is HGM. */
void hgm_only_without_hgm(void);

/*
 * A memfd of huge pages, mapped twice. The alias is written and maps whole pages; the primary is registered for minor
 * faults, starts empty, and is what cases map in pieces. A fault on a hole of the primary raises SIGBUS.
 */
struct hgm_area {
	int fd;
	int uffd;
	size_t length; /* bytes */
	unsigned char *alias;
	unsigned char *primary;
	uint64_t head; /* page frame of the first huge page's first base page */
};

/* Opens an area of `pages` huge pages with a tag in each base page; `flags` are mmap's for the primary. */
void hgm_area_open(struct hgm_area *area, size_t pages, int flags);
void hgm_area_close(struct hgm_area *area);
uint64_t hgm_tag(size_t base_page);
/* The primary reads, at each base page of this range, what the alias has written there. */
void hgm_expect_tags(const struct hgm_area *area, size_t offset, size_t length);
/* UFFDIO_CONTINUE and MADV_COLLAPSE of a part of the primary: 0 or errno. */
int hgm_continue(const struct hgm_area *area, size_t offset, size_t length);
int hgm_collapse(const struct hgm_area *area, size_t offset, size_t length);
/* Whether reading a byte raises SIGBUS. */
bool hgm_sigbus(const void *at);

/* A userfaultfd with these features, and the registration of a range with it; both 0 (or a descriptor) or -errno. */
int hgm_uffd(uint64_t features);
int hgm_register(int uffd, void *at, size_t length, uint64_t mode);

/* Forks: true in the child, which ends with hgm_child_done. hgm_join fails the case if the child has failed. */
bool hgm_fork(pid_t *child);
_Noreturn void hgm_child_done(void);
void hgm_join(pid_t child);

/* How many base pages of a range are mapped, by pagemap; and the page frame at an address, which must be mapped. */
size_t hgm_present(const void *at, size_t length);
uint64_t hgm_pfn(const void *at);
uint64_t hgm_kpagecount(uint64_t pfn);
uint64_t hgm_kpageflags(uint64_t pfn);
/* A field of /proc/self/status in kB, such as "VmPTE". */
long hgm_status_kb(const char *field);
int hgm_memfd(size_t pages);
void *hgm_map(int fd, size_t length, int flags);

#endif
