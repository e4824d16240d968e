// SPDX-License-Identifier: MIT
/* What kpagecount shows of a huge page, as pieces of it are mapped and unmapped. */
#include "hgm.h"

static void expect_count(const struct hgm_area *area, long long expected)
{
	/* The count is the head page's; every base page shows it (fs/proc/page.c:kpagecount_read). */
	EXPECT_EQ(hgm_kpagecount(area->head), expected);
	EXPECT_EQ(hgm_kpagecount(area->head + 1), expected);
	EXPECT_EQ(hgm_kpagecount(area->head + hgm_huge / hgm_base - 1), expected);
}

STOCK_CASE(mappings_count, "each mapping of a shared huge page counts once, and no more when it is gone (mm/rmap.c:page_dup_file_rmap)")
{
	struct hgm_area area;
	unsigned char *third;

	hgm_area_open(&area, 1, MAP_SHARED);
	expect_count(&area, 1);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), 0);
	expect_count(&area, 2);
	third = hgm_map(area.fd, area.length, MAP_SHARED);
	expect_count(&area, 2);
	EXPECT_EQ(*(volatile uint64_t *)third, hgm_tag(0));
	expect_count(&area, 3);
	CHECKED(munmap(third, area.length));
	expect_count(&area, 2);
	CHECKED(madvise(area.primary, area.length, MADV_DONTNEED));
	expect_count(&area, 1);
	hgm_area_close(&area);
}

HGM_CASE(pieces_count_once, "one, two, all pieces of a page count as one mapping (RFC v1: once per VMA)")
{
	struct hgm_area area;
	const size_t last = hgm_huge - hgm_base;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), 0);
	expect_count(&area, 2);
	EXPECT_ERRNO(hgm_continue(&area, last, hgm_base), 0);
	expect_count(&area, 2);
	EXPECT_ERRNO(hgm_continue(&area, hgm_base, last - hgm_base), 0);
	expect_count(&area, 2);
	hgm_area_close(&area);
}

HGM_CASE(later_piece_only, "a page of which only a later piece is mapped counts, and no more after munmap (RFC v1)")
{
	const size_t pieces = hgm_huge / hgm_base;
	const size_t some[] = { 1, 3, pieces / 2, pieces - 1 };
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	for (size_t number = 0; number < sizeof(some) / sizeof(*some); number++) {
		EXPECT_ERRNO(hgm_continue(&area, some[number] * hgm_base, hgm_base), 0);
		expect_count(&area, 2);
		CHECKED(madvise(area.primary, area.length, MADV_DONTNEED));
		expect_count(&area, 1);
	}
	hgm_area_close(&area);
}

HGM_CASE(two_processes, "two processes that map different pieces count as two (RFC v1)")
{
	struct hgm_area area;
	pid_t child;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), 0);
	expect_count(&area, 2);
	if (hgm_fork(&child)) {
		unsigned char *own = hgm_map(area.fd, area.length, MAP_SHARED);
		struct hgm_area mine = area;

		mine.primary = own;
		mine.uffd = hgm_uffd(UFFD_FEATURE_MINOR_HUGETLBFS | UFFD_FEATURE_SIGBUS);
		EXPECT_ERRNO(-hgm_register(mine.uffd, own, area.length, UFFDIO_REGISTER_MODE_MINOR), 0);
		EXPECT_ERRNO(hgm_continue(&mine, 7 * hgm_base, hgm_base), 0);
		expect_count(&area, 3);
		hgm_child_done();
	}
	hgm_join(child);
	expect_count(&area, 2);
	hgm_area_close(&area);
}
