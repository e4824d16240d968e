// SPDX-License-Identifier: MIT
/*
 * What the guest tests stand on: a frame that runs cases and prints KTAP, expectations that end a case at once, and an
 * area of huge pages that is mapped twice and knows what its first mapping must look like.
 *
 * A case is declared at top level, all arguments literals, since the harness reads them without compiling:
 *
 *	HGM_CASE(counts_once, "one piece raises the mapcount by one [RFC v1 cover]", .deadline_s = 30)
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
#include <pthread.h>
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
#define HGM_FEATURE_MINOR_HUGETLBFS_HGM (1ULL << 13) /* RFC v1 patch 23, RFC v2 */
#define HGM_MADV_COLLAPSE 25
#define HGM_MADV_SPLIT 26 /* PATCH v1 patch 9, v2 */

/* ---- cases ---- */

struct hgm_case {
	const char *name;
	const char *claim; /* what it shows and the fact it stands on */
	bool needs_hgm;
	void (*run)(void);
	int deadline_s; /* for the harness; nothing in here looks at it */
	const char *sizes; /* huge page sizes it is about, such as "2M 1G"; NULL: all */
	const char *arch; /* the one architecture it is about; NULL: all */
	int spoils; /* takes huge pages for good (poison), so no other case follows in this guest; compares pools itself */
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

/* ---- verdicts: each of these ends the case, from any thread or child ---- */

/* The line of the case that called into the library, for the messages of what fails inside. */
extern __thread const char *hgm_here_file;
extern __thread int hgm_here_line;
#define HGM_HERE (hgm_here_file = __FILE__, hgm_here_line = __LINE__)

_Noreturn void hgm_fail_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void hgm_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hgm_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What a case that goes on for long is at, such as its round: told along with what fails. */
void hgm_at(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hgm_expect_eq_at(const char *file, int line, const char *what, long long seen, long long expected);
void hgm_expect_errno_at(const char *file, int line, const char *what, int seen, int expected);

#define HGM_FAIL(...) hgm_fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define EXPECT(condition)                                                                                              \
	((condition) ? (void)0 : hgm_fail_at(__FILE__, __LINE__, "%s: expected true, saw false", #condition))
#define EXPECT_EQ(seen, expected)                                                                                      \
	(HGM_HERE, hgm_expect_eq_at(__FILE__, __LINE__, #seen, (long long)(seen), (long long)(expected)))
/* For calls that return 0 or an errno. */
#define EXPECT_ERRNO(seen, expected)                                                                                   \
	(HGM_HERE, hgm_expect_errno_at(__FILE__, __LINE__, #seen, (seen), (expected)))
/* For system calls that must work; the value is the call's. */
#define CHECKED(call)                                                                                                  \
	({                                                                                                             \
		__typeof__(call) checked_value = (call);                                                               \
		if ((intptr_t)checked_value == -1)                                                                     \
			hgm_fail_at(__FILE__, __LINE__, "%s: %s", #call, strerror(errno));                             \
		checked_value;                                                                                         \
	})

/* ---- the kernel's dialect ---- */

/* How high-granularity mapping is switched on, and what the mapcount must be, differ between the posted versions. */
enum hgm_dialect {
	HGM_NONE, /* the kernel has no high-granularity mapping */
	HGM_RFC1, /* always on in shared mappings; mapcount: one for each VMA that maps any piece */
	HGM_RFC2, /* feature bit 13; mapcount: one for each page table entry that maps any piece */
	HGM_V1, /* MADV_SPLIT; mapcount as RFC2 */
	HGM_V2, /* MADV_SPLIT; mapcount: whole mappings, plus those of the piece at hand */
};

/* Asks the kernel, once. Fails the case if the kernel's answers are those of no version. */
enum hgm_dialect hgm_dialect(void);
/* Ends a case about kernels without HGM as not applicable where there is HGM. */
void hgm_only_without_hgm(void);

/* ---- an area of huge pages ---- */

/* Flags of hgm_area_open. */
enum {
	HGM_MESSAGES = 1, /* a fault on a hole waits and sends a message; else it raises SIGBUS */
	HGM_ROUNDED = 2, /* do not ask for UFFD_FEATURE_EXACT_ADDRESS */
	HGM_PRIVATE = 4, /* the primary mapping is MAP_PRIVATE */
	HGM_PLAIN = 8, /* no userfaultfd: faults are filled from the page cache */
};

/*
 * A memfd of huge pages, mapped twice. The alias mapping is written and maps whole pages; the primary mapping is
 * registered for minor faults, starts empty, and is what cases map in pieces. `leaf` says what the primary must look
 * like: for each of its base pages 0 for a hole, else the size of the page table leaf that maps it. The calls below keep
 * it up to date, and the hgm_expect_ calls compare the kernel with it.
 */
struct hgm_area {
	int fd;
	int uffd; /* -1 with HGM_PLAIN */
	unsigned flags;
	size_t pages; /* huge pages */
	size_t length; /* bytes */
	unsigned char *alias;
	unsigned char *primary;
	uint64_t *head; /* page frame of each huge page's first base page */
	size_t *leaf;
	uint64_t *outside; /* the library's: where the hardware was last seen to map each base page; 0: nowhere */
	long hugetlb_kb; /* HugetlbPages and VmPTE of the process while the primary is empty */
	long table_kb;
};

/*
 * Opens an area of `pages` huge pages with tags in it. Both mappings lie in one page table of the level that maps
 * whole huge pages, and the alias has populated it, so VmPTE grows by what is below that level and nothing else. Behind
 * the primary lies address space of the length of both, for the case to use with MAP_FIXED.
 */
void hgm_area_open_(struct hgm_area *area, size_t pages, unsigned flags);
/* Maps the primary again where it was, empty and registered as before, once it has been unmapped. */
void hgm_area_remap_(struct hgm_area *area);
/* Unmaps the primary; then the rest. */
void hgm_unmap_primary_(struct hgm_area *area);
void hgm_area_close_(struct hgm_area *area);

/* The tag of a base page of an area, by its number; never 0 and never that of a neighbour. */
uint64_t hgm_tag(size_t base_page);
/* Expects both words that carry the tag of the base page of this number at `at`. */
void hgm_expect_tag_(const void *at, size_t base_page);

/* UFFDIO_CONTINUE of a part of the primary: 0 or errno; `mapped`, if given, is what the kernel says it has mapped. */
int hgm_try_continue(const struct hgm_area *area, size_t offset, size_t length, long long *mapped);
/* The same where it must work; the largest size that is aligned and fits is used at each step. */
void hgm_continue_(struct hgm_area *area, size_t offset, size_t length);
/*
 * A leaf of each size between base page and huge page, in one huge page of the primary, at an offset of its own size: its
 * base pages 0 to 7 and its second half stay as they are.
 */
void hgm_continue_each_size_(struct hgm_area *area, size_t page);
/* MADV_COLLAPSE of a part of the primary: 0 or errno. */
int hgm_try_collapse(const struct hgm_area *area, size_t offset, size_t length);
/* The same where it must work: entries with pieces below become leaves, holes and all; empty ones stay empty. */
void hgm_collapse_(struct hgm_area *area, size_t offset, size_t length);
/* Notes that a part of the primary is mapped no more. */
void hgm_now_empty(struct hgm_area *area, size_t offset, size_t length);
/* Notes that a fault without a pager has filled the hole at `offset`, with the size of the entry that was empty. */
void hgm_now_faulted(struct hgm_area *area, size_t offset);
/* The largest size that the kernel may use for a leaf at `offset` with `length` left to map. */
size_t hgm_step(size_t offset, size_t length);

/* The sizes smaller than the huge page that the kernel can map, largest first, ended by 0; the base page is the last. */
const size_t *hgm_piece_sizes(void);

/*
 * How the hardware's page tables map this range, as the harness sees it from outside: "tables 1; 2M: 4K×1 hole×511@..."
 * (tables below the entry of the huge page; leaves of each huge page; its physical address). NULL where nobody can tell.
 */
const char *hgm_shape_(const void *at, size_t length);
#define hgm_shape(...) (HGM_HERE, hgm_shape_(__VA_ARGS__))
/* The same, however often: each question stops the machine for some milliseconds, so of hgm_shape only a few are asked. */
const char *hgm_shape_again_(const void *at, size_t length);
#define hgm_shape_again(...) (HGM_HERE, hgm_shape_again_(__VA_ARGS__))

/*
 * Exactly the mapped pieces are present in pagemap, at the right page frames, and read right through both mappings; and
 * the hardware's page tables hold leaves of exactly these sizes, at these frames. Where the hardware can be asked, pagemap
 * is also compared with it, and if they differ the case fails with "the kernel's story differs".
 */
void hgm_expect_pieces_(const struct hgm_area *area);
/* Of these only the hardware's page tables; nothing is touched. */
void hgm_expect_tables_(const struct hgm_area *area);
/* The hardware maps the huge page at an address, of whatever file, by a leaf of its own size; or by nothing at all. */
void hgm_expect_one_entry_(const void *at, bool leaf);
/* HugetlbPages and VmPTE are right to the byte. Not for cases with threads or allocations, which have tables too. */
void hgm_expect_counters_(const struct hgm_area *area);
/* kpagecount of every base page: `others` for mappings of the whole page elsewhere, plus what the primary counts for. */
void hgm_expect_mapcount_(const struct hgm_area *area, unsigned others);
/*
 * Pieces, counters and mapcount, with the alias as the only other mapping; and what HugetlbPages, VmPTE and smaps say is
 * what the hardware has.
 */
void hgm_expect_shape_(const struct hgm_area *area);
/* What a mapping of one huge page of so many base pages, which looks like `leaf`, adds to the mapcount of one of them. */
unsigned hgm_mapcount_rule(enum hgm_dialect dialect, const size_t *leaf, size_t pieces, size_t piece);
/* The same for the primary's huge page `page`, in the kernel's own dialect. */
unsigned hgm_mapcount_share(const struct hgm_area *area, size_t page, size_t piece);

#define hgm_area_open(...) (HGM_HERE, hgm_area_open_(__VA_ARGS__))
#define hgm_area_remap(...) (HGM_HERE, hgm_area_remap_(__VA_ARGS__))
#define hgm_unmap_primary(...) (HGM_HERE, hgm_unmap_primary_(__VA_ARGS__))
#define hgm_area_close(...) (HGM_HERE, hgm_area_close_(__VA_ARGS__))
#define hgm_expect_tag(...) (HGM_HERE, hgm_expect_tag_(__VA_ARGS__))
#define hgm_continue(...) (HGM_HERE, hgm_continue_(__VA_ARGS__))
#define hgm_continue_each_size(...) (HGM_HERE, hgm_continue_each_size_(__VA_ARGS__))
#define hgm_collapse(...) (HGM_HERE, hgm_collapse_(__VA_ARGS__))
#define hgm_expect_pieces(...) (HGM_HERE, hgm_expect_pieces_(__VA_ARGS__))
#define hgm_expect_tables(...) (HGM_HERE, hgm_expect_tables_(__VA_ARGS__))
#define hgm_expect_one_entry(...) (HGM_HERE, hgm_expect_one_entry_(__VA_ARGS__))
#define hgm_expect_counters(...) (HGM_HERE, hgm_expect_counters_(__VA_ARGS__))
#define hgm_expect_mapcount(...) (HGM_HERE, hgm_expect_mapcount_(__VA_ARGS__))
#define hgm_expect_shape(...) (HGM_HERE, hgm_expect_shape_(__VA_ARGS__))

/* ---- faults ---- */

/* Reads a byte: true if that raised SIGBUS; `code` and `address` as siginfo has them. */
bool hgm_sigbus(const void *at, int *code, void **address);
/* Writes to a byte what is in it: true if that raised SIGSEGV. */
bool hgm_write_refused_(void *at);
/* si_addr_lsb of the last SIGBUS of this thread: the shift of what is lost, for a memory error. */
int hgm_sigbus_shift(void);
/* Expects that every hole of the primary raises SIGBUS (or, if there are many, a sample with both ends of each). */
void hgm_expect_holes_(const struct hgm_area *area);
/* Waits for the next message of the area's userfaultfd; fails if none comes. */
struct uffd_msg hgm_message_(const struct hgm_area *area);
/* Expects that no message is waiting. */
void hgm_expect_no_message_(const struct hgm_area *area);

/* A thread that reads the word at an address, as a fault that may take its time. */
struct hgm_reader {
	pthread_t thread;
	const volatile uint64_t *at;
	uint64_t value;
};
void hgm_reader_start_(struct hgm_reader *reader, const void *at);
/* Waits for the reader, fails if it does not end, and returns what it read. */
uint64_t hgm_reader_join_(struct hgm_reader *reader);
/* pthread_create and pthread_join that fail the case; a thread that does not end is one left asleep. */
void hgm_thread_start_(pthread_t *thread, void *(*body)(void *), void *argument);
void hgm_thread_join_(pthread_t thread);
/* How long to wait for what takes at most so many seconds: HGM_SLOWNESS stretches it, as it does the harness's deadlines. */
int hgm_patience(int seconds);

#define hgm_write_refused(...) (HGM_HERE, hgm_write_refused_(__VA_ARGS__))
#define hgm_expect_holes(...) (HGM_HERE, hgm_expect_holes_(__VA_ARGS__))
#define hgm_message(...) (HGM_HERE, hgm_message_(__VA_ARGS__))
#define hgm_expect_no_message(...) (HGM_HERE, hgm_expect_no_message_(__VA_ARGS__))
#define hgm_reader_start(...) (HGM_HERE, hgm_reader_start_(__VA_ARGS__))
#define hgm_reader_join(...) (HGM_HERE, hgm_reader_join_(__VA_ARGS__))
#define hgm_thread_start(...) (HGM_HERE, hgm_thread_start_(__VA_ARGS__))
#define hgm_thread_join(...) (HGM_HERE, hgm_thread_join_(__VA_ARGS__))

/* ---- children ---- */

/* A forked process. What it expects in vain fails the case: it ends with a status, and hgm_join sees it. */
struct hgm_child {
	pid_t pid;
	int channel;
};

/* True in the child, which must end with hgm_child_done. It dies with its parent. */
bool hgm_fork_(struct hgm_child *child);
_Noreturn void hgm_child_done(void);
/* Steps in turn: one side tells, the other waits. Waiting for one that has ended fails the case. */
void hgm_tell_(const struct hgm_child *child);
void hgm_wait_(const struct hgm_child *child);
void hgm_join_(struct hgm_child *child);

#define hgm_fork(...) (HGM_HERE, hgm_fork_(__VA_ARGS__))
#define hgm_tell(...) (HGM_HERE, hgm_tell_(__VA_ARGS__))
#define hgm_wait(...) (HGM_HERE, hgm_wait_(__VA_ARGS__))
#define hgm_join(...) (HGM_HERE, hgm_join_(__VA_ARGS__))

/* ---- what the kernel shows ---- */

#define HGM_PM_PRESENT (1ULL << 63)
#define HGM_PM_PFN ((1ULL << 55) - 1)
enum { HGM_KPF_UPTODATE = 3, HGM_KPF_MMAP = 11, HGM_KPF_HEAD = 15, HGM_KPF_TAIL = 16, HGM_KPF_HUGE = 17 };

/* pagemap of this process for `count` base pages from `at`; one entry; or how many of them are present. */
void hgm_pagemap_range(const void *at, size_t count, uint64_t *entries);
uint64_t hgm_pagemap(const void *at);
size_t hgm_present(const void *at, size_t length);
/* Page frame that is mapped at an address; fails if none is. */
uint64_t hgm_pfn_(const void *at);
uint64_t hgm_kpagecount(uint64_t pfn);
uint64_t hgm_kpageflags(uint64_t pfn);
/* Expects that each base page of a huge page is counted so often. */
void hgm_expect_count_(uint64_t head, unsigned count);
/* The same for `count` page frames from `pfn`. */
void hgm_kpageflags_range(uint64_t pfn, size_t count, uint64_t *flags);
/* A field of /proc/self/status in kB, such as "VmPTE"; fails if it is not there. */
long hgm_status_kb(const char *field);
/* kB of huge pages that smaps shows in a range. */
long hgm_smaps_kb(const void *at, size_t length);
/* A counter of the pool of the case's huge page size: "nr", "free", "resv", "surplus". */
long hgm_pool(const char *counter);
void hgm_need_pages_(size_t pages);
/* A number in a file of /proc or /sys. */
long hgm_read_number(const char *path);
void hgm_write_number(const char *path, long value);

#define hgm_pfn(...) (HGM_HERE, hgm_pfn_(__VA_ARGS__))
#define hgm_expect_count(...) (HGM_HERE, hgm_expect_count_(__VA_ARGS__))
#define hgm_need_pages(...) (HGM_HERE, hgm_need_pages_(__VA_ARGS__))

/* ---- small things ---- */

/* A memfd of huge pages, and a shared or private mapping of it. */
int hgm_memfd_(size_t pages);
void *hgm_map_(int fd, size_t offset, size_t length, int flags);
/* Every feature that the kernel's userfaultfd has. */
uint64_t hgm_uffd_features(void);
/* A userfaultfd with these features, or -errno. */
int hgm_uffd(uint64_t features);
int hgm_try_register(int uffd, void *at, size_t length, uint64_t mode);
/* A userfaultfd, and a shared mapping registered with it for minor faults, in the dialect's way to get pieces. */
int hgm_uffd_for_pieces_(uint64_t features);
void hgm_register_for_pieces_(int uffd, void *at, size_t length);
/*
 * The kernel copies a word from or to `at`, by the processor's own rules and not by those of the mapping: 0, or EFAULT. What
 * is written is zero.
 */
int hgm_try_load(const void *at);
int hgm_try_store(void *at);
/* A number in 0..bound-1 from a fixed sequence, the same in every run. */
size_t hgm_random(size_t bound);

#define hgm_memfd(...) (HGM_HERE, hgm_memfd_(__VA_ARGS__))
#define hgm_map(...) (HGM_HERE, hgm_map_(__VA_ARGS__))
#define hgm_uffd_for_pieces(...) (HGM_HERE, hgm_uffd_for_pieces_(__VA_ARGS__))
#define hgm_register_for_pieces(...) (HGM_HERE, hgm_register_for_pieces_(__VA_ARGS__))

#endif
