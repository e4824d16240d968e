// SPDX-License-Identifier: MIT
/* Calls that know nothing of pieces, on huge pages that are mapped whole or in pieces. */
#include "hgm.h"

#include <fcntl.h>

STOCK_CASE(dontneed_alignment, "MADV_DONTNEED wants a huge page's start and rounds the end down (mm/madvise.c:madvise_dontneed_free_valid_vma)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), 0);
	EXPECT_EQ(madvise(area.primary + hgm_base, hgm_huge - hgm_base, MADV_DONTNEED), -1);
	EXPECT_ERRNO(errno, EINVAL);
	CHECKED(madvise(area.primary, hgm_huge - hgm_base, MADV_DONTNEED));
	EXPECT_EQ(hgm_present(area.primary, area.length), hgm_huge / hgm_base);
	CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED));
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_area_close(&area);
}

HGM_CASE(dontneed_pieces, "MADV_DONTNEED of a page in pieces unmaps them all (RFC v1 patch 15)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 2 * hgm_base, hgm_base), 0);
	EXPECT_ERRNO(hgm_continue(&area, hgm_huge / 2, hgm_base), 0);
	CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED));
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	EXPECT_EQ(hgm_sigbus(area.primary + 2 * hgm_base), true);
	hgm_area_close(&area);
}

HGM_CASE(punch_later_piece, "a hole punched under a page of which only piece 5 is mapped leaves no stale data (PATCH v2 review)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 5 * hgm_base, hgm_base), 0);
	CHECKED(fallocate(area.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)hgm_huge));
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	EXPECT_EQ(hgm_kpagecount(area.head), 0);
	EXPECT_EQ(*(volatile uint64_t *)(area.alias + 5 * hgm_base), 0);
	hgm_area_close(&area);
}

HGM_CASE(truncate_later_piece, "truncating under a page of which only piece 5 is mapped unmaps it (PATCH v2 review)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 5 * hgm_base, hgm_base), 0);
	CHECKED(ftruncate(area.fd, 0));
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	EXPECT_EQ(hgm_sigbus(area.primary + 5 * hgm_base), true);
	hgm_area_close(&area);
}
