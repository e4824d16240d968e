// SPDX-License-Identifier: MIT
/* UFFDIO_CONTINUE: what it maps, and what it refuses. */
#include "hgm.h"

STOCK_CASE(misaligned, "CONTINUE of parts of a base page is EINVAL (fs/userfaultfd.c:validate_range)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, hgm_base / 2, hgm_base), EINVAL);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base / 2), EINVAL);
	EXPECT_ERRNO(hgm_continue(&area, 0, 0), EINVAL);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_area_close(&area);
}

STOCK_CASE(whole_page, "CONTINUE of a huge page maps all of it to the right frames, once (mm/hugetlb.c:hugetlb_mcopy_atomic_pte)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), 0);
	EXPECT_EQ(hgm_present(area.primary, area.length), hgm_huge / hgm_base);
	for (size_t piece = 0; piece < hgm_huge / hgm_base; piece += 511)
		EXPECT_EQ(hgm_pfn(area.primary + piece * hgm_base), area.head + piece);
	hgm_expect_tags(&area, 0, area.length);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), EEXIST);
	hgm_area_close(&area);
}

STOCK_CASE(not_in_cache, "CONTINUE of a page that is not in the page cache is EFAULT (mm/hugetlb.c:hugetlb_mcopy_atomic_pte)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	CHECKED(ftruncate(area.fd, 0));
	CHECKED(ftruncate(area.fd, (off_t)area.length));
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), EFAULT);
	hgm_area_close(&area);
}

STOCK_CASE(outside, "CONTINUE behind the registered range is ENOENT (mm/userfaultfd.c:find_dst_vma)")
{
	struct hgm_area area;
	unsigned char *hole;

	hgm_area_open(&area, 1, MAP_SHARED);
	hole = hgm_map(area.fd, area.length, MAP_SHARED);
	CHECKED(munmap(hole, area.length));
	EXPECT_ERRNO(hgm_continue(&area, (size_t)(hole - area.primary), hgm_huge), ENOENT);
	hgm_area_close(&area);
}

STOCK_CASE(private_needs_whole_pages, "in a private mapping CONTINUE takes whole huge pages only, with HGM too (RFC v1 patch 20)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_PRIVATE);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), EINVAL);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), 0);
	hgm_expect_tags(&area, 0, hgm_base);
	hgm_area_close(&area);
}

STOCK_CASE(without_hgm_whole_pages_only, "without HGM, CONTINUE of a base page is EINVAL (mm/userfaultfd.c:__mcopy_atomic_hugetlb)")
{
	struct hgm_area area;

	hgm_only_without_hgm();
	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), EINVAL);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_area_close(&area);
}

HGM_CASE(ladder, "CONTINUE in halves down to one base page maps exactly what was asked for (RFC v1 patch 20)")
{
	struct hgm_area area;
	size_t done = 0;

	hgm_area_open(&area, 1, MAP_SHARED);
	for (size_t step = hgm_huge / 2; step >= hgm_base; step /= 2) {
		EXPECT_ERRNO(hgm_continue(&area, done, step), 0);
		done += step;
		EXPECT_EQ(hgm_present(area.primary, area.length), done / hgm_base);
		EXPECT_EQ(hgm_pfn(area.primary + done - hgm_base), area.head + done / hgm_base - 1);
	}
	hgm_expect_tags(&area, 0, done);
	EXPECT_EQ(hgm_sigbus(area.primary + done), true);
	hgm_area_close(&area);
}

HGM_CASE(one_piece, "one base page is mapped, to its own frame, and its neighbours stay holes (RFC v1 patch 20)")
{
	struct hgm_area area;
	const size_t at = 5 * hgm_base;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, at, hgm_base), 0);
	EXPECT_EQ(hgm_present(area.primary, area.length), 1);
	EXPECT_EQ(hgm_pfn(area.primary + at), area.head + 5);
	hgm_expect_tags(&area, at, hgm_base);
	EXPECT_EQ(hgm_sigbus(area.primary + at - hgm_base), true);
	EXPECT_EQ(hgm_sigbus(area.primary + at + hgm_base), true);
	hgm_area_close(&area);
}

HGM_CASE(twice, "a piece that is mapped, alone or inside a larger leaf, is EEXIST and stays as it is (RFC v1 patch 20)")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), 0);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), EEXIST);
	EXPECT_ERRNO(hgm_continue(&area, hgm_huge, hgm_huge), 0);
	EXPECT_ERRNO(hgm_continue(&area, hgm_huge + 3 * hgm_base, hgm_base), EEXIST);
	EXPECT_EQ(hgm_present(area.primary, area.length), 1 + hgm_huge / hgm_base);
	hgm_area_close(&area);
}
