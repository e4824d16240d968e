// SPDX-License-Identifier: MIT
/* A huge page with a memory error: all of it is gone, however it was mapped, and the pages beside it are not. */
#include "hgm.h"

#include <signal.h>

#define PAGES 2 /* the first is poisoned, the second is not */

static long free_before, total_before;

static void open_pages(struct hgm_area *area, unsigned flags)
{
	free_before = hgm_pool("free");
	total_before = hgm_pool("nr");
	hgm_area_open(area, PAGES, flags);
}

static volatile sig_atomic_t raised; /* si_code of a SIGBUS while a page was poisoned, or 0 */

static void on_poison(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	raised = info->si_code;
}

/*
 * Poisons the first huge page, by an address in the alias mapping as madvise counts it: from the page's start. Linux 6.12
 * takes that for a use of the page and signals it at once (mm/madvise.c:madvise_inject_error), 6.1 does not.
 */
static void poison(const struct hgm_area *area)
{
	const struct sigaction listen = { .sa_sigaction = on_poison, .sa_flags = SA_SIGINFO };
	struct sigaction before;
	int result, error;

	raised = 0;
	CHECKED(sigaction(SIGBUS, &listen, &before));
	result = madvise(area->alias, hgm_huge, MADV_HWPOISON);
	error = errno;
	CHECKED(sigaction(SIGBUS, &before, NULL));
	EXPECT_ERRNO(result ? error : 0, 0);
	if (raised && raised != BUS_MCEERR_AR)
		HGM_FAIL("SIGBUS of the poisoning itself: expected si_code %d, saw %d", BUS_MCEERR_AR, (int)raised);
}

/* A few places of the first huge page, with HVO's aliases among them, raise SIGBUS for a memory error of that page. */
static void expect_poisoned(const unsigned char *mapping)
{
	const size_t offsets[] = { 0, 3 * hgm_base + 8, 100 * hgm_base, hgm_huge / 2, hgm_huge - 1 };

	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
		const unsigned char *at = mapping + offsets[i] % hgm_huge;
		void *address;
		int code;

		EXPECT(hgm_sigbus(at, &code, &address));
		EXPECT_EQ(code, BUS_MCEERR_AR);
		EXPECT_EQ((uintptr_t)address, (uintptr_t)at);
		EXPECT_EQ(hgm_sigbus_shift(), __builtin_ctzl(hgm_huge));
	}
}

static void expect_second_page_whole(struct hgm_area *area)
{
	for (size_t i = hgm_huge / hgm_base; i < area->length / hgm_base; i++)
		if (area->leaf[i])
			hgm_expect_tag(area->primary + i * hgm_base, i);
	hgm_expect_tag(area->alias + hgm_huge, hgm_huge / hgm_base);
}

/* After everything is unmapped and closed, just the poisoned page is not free; it stays a page of the pool. */
static void expect_one_page_lost(struct hgm_area *area)
{
	hgm_area_close(area);
	EXPECT_EQ(hgm_pool("free"), free_before - 1);
	EXPECT_EQ(hgm_pool("surplus"), 0);
	EXPECT_EQ(hgm_pool("nr"), total_before);
	EXPECT_EQ(hgm_pool("resv"), 0);
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), 0);
}

STOCK_CASE(whole_page, "poison of a huge page raises SIGBUS with the huge page's shift all over it and nowhere else, and "
	   "costs one page [mm/memory-failure.c:try_memory_failure_hugetlb, arch/*/mm/fault.c]", .spoils = 1)
{
	struct hgm_area area;

	open_pages(&area, HGM_PLAIN);
	for (size_t page = 0; page < PAGES; page++) {
		hgm_expect_tag(area.primary + page * hgm_huge, page * hgm_huge / hgm_base);
		hgm_now_faulted(&area, page * hgm_huge);
	}
	poison(&area);
	expect_poisoned(area.alias);
	expect_poisoned(area.primary);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

STOCK_CASE(injected_in_whole_page, "an error at a page frame in the middle, as hardware reports it, takes a huge page "
	   "that is mapped whole [mm/memory-failure.c:try_memory_failure_hugetlb, through debugfs]", .spoils = 1)
{
	struct hgm_area area;

	open_pages(&area, 0);
	hgm_continue(&area, 0, area.length);
	hgm_write_number("/sys/kernel/debug/hwpoison/corrupt-pfn", area.head[0] + hgm_huge / hgm_base / 2 + 1);
	expect_poisoned(area.primary);
	expect_poisoned(area.alias);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

STOCK_CASE(continue_of_poison, "UFFDIO_CONTINUE of a poisoned huge page says EIO and maps nothing; the next page can be "
	   "continued [mm/hugetlb.c:hugetlb_mcopy_atomic_pte]", .spoils = 1)
{
	struct hgm_area area;

	open_pages(&area, 0);
	poison(&area);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_huge, NULL), EIO);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_continue(&area, hgm_huge, hgm_huge);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

HGM_CASE(continue_of_piece, "UFFDIO_CONTINUE of a piece of a poisoned huge page says EIO, whichever piece, and maps "
	 "nothing [RFC v1 patch 20]", .spoils = 1)
{
	struct hgm_area area;
	const size_t offsets[] = { 0, 3 * hgm_base, hgm_huge - hgm_base };

	open_pages(&area, 0);
	poison(&area);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++)
		EXPECT_ERRNO(hgm_try_continue(&area, offsets[i], hgm_base, NULL), EIO);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_continue(&area, hgm_huge + 3 * hgm_base, hgm_base);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

/* Pieces of both pages: near, far, and of each size between. */
static void map_pieces(struct hgm_area *area)
{
	for (size_t page = 0; page < PAGES; page++) {
		hgm_continue(area, page * hgm_huge + 3 * hgm_base, hgm_base);
		hgm_continue_each_size(area, page);
		hgm_continue(area, (page + 1) * hgm_huge - hgm_base, hgm_base);
	}
}

HGM_CASE(pieces, "poison of a huge page that is mapped in pieces takes all of it away, mapped pieces and holes, with the "
	 "huge page's shift; pieces of the next page stay [section 1.2 of the posted versions: the whole page]",
	 .spoils = 1)
{
	struct hgm_area area;

	open_pages(&area, 0);
	map_pieces(&area);
	hgm_expect_shape(&area);
	poison(&area);
	expect_poisoned(area.primary);
	expect_poisoned(area.alias);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

HGM_CASE(injected_in_a_piece, "an error at a page frame in the middle, as hardware reports it, does the same to a page in "
	 "pieces [mm/memory-failure.c:memory_failure, through debugfs]", .spoils = 1)
{
	struct hgm_area area;

	open_pages(&area, 0);
	map_pieces(&area);
	hgm_write_number("/sys/kernel/debug/hwpoison/corrupt-pfn", area.head[0] + 3);
	expect_poisoned(area.primary);
	expect_poisoned(area.alias);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

HGM_CASE(collapse_after_poison, "a collapse over a poisoned page and its healthy neighbour makes nothing readable again, "
	 "and folds the neighbour [table of MADV_COLLAPSE in the posted versions]", .spoils = 1)
{
	struct hgm_area area;
	int error;

	open_pages(&area, 0);
	map_pieces(&area);
	poison(&area);
	/* RFC v2 and PATCH v1 may say EHWPOISON; all go on with the rest. */
	error = hgm_try_collapse(&area, 0, area.length);
	if (error && (hgm_dialect() == HGM_RFC1 || hgm_dialect() == HGM_V2 || error != EHWPOISON))
		HGM_FAIL("MADV_COLLAPSE: expected success, saw %s", strerror(error));
	expect_poisoned(area.primary);
	hgm_now_empty(&area, 0, hgm_huge);
	for (size_t offset = hgm_huge; offset < area.length; offset += hgm_base)
		area.leaf[offset / hgm_base] = hgm_huge;
	EXPECT_EQ(hgm_present(area.primary + hgm_huge, hgm_huge), hgm_huge / hgm_base);
	hgm_expect_one_entry(area.primary + hgm_huge, true);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

HGM_CASE(through_a_piece, "MADV_HWPOISON of a hole that only a pager could fill is EFAULT and poisons nothing; of one "
	 "mapped piece it takes the whole page, pieces and holes [mm/madvise.c:madvise_inject_error]", .spoils = 1)
{
	struct hgm_area area;

	open_pages(&area, 0);
	map_pieces(&area);
	EXPECT_EQ(madvise(area.primary + 2 * hgm_base, hgm_base, MADV_HWPOISON), -1);
	EXPECT_EQ(errno, EFAULT);
	hgm_expect_shape(&area);
	CHECKED(madvise(area.primary + 3 * hgm_base, hgm_base, MADV_HWPOISON));
	expect_poisoned(area.primary);
	expect_poisoned(area.alias);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}

HGM_CASE(in_each_process, "poison of a page in pieces takes it from a process that maps it whole as well, and that "
	 "process can still exit [mm/memory-failure.c:hwpoison_user_mappings]", .spoils = 1)
{
	struct hgm_area area;
	struct hgm_child other;

	open_pages(&area, 0);
	map_pieces(&area);
	if (hgm_fork(&other)) {
		hgm_expect_tag(area.alias, 0);
		hgm_expect_tag(area.primary, 0);
		hgm_tell(&other);
		hgm_wait(&other);
		expect_poisoned(area.alias);
		expect_poisoned(area.primary);
		hgm_expect_tag(area.alias + hgm_huge, hgm_huge / hgm_base);
		hgm_child_done();
	}
	hgm_wait(&other);
	poison(&area);
	expect_poisoned(area.primary);
	hgm_tell(&other);
	hgm_join(&other);
	expect_second_page_whole(&area);
	expect_one_page_lost(&area);
}
