// SPDX-License-Identifier: MIT
/* Struct pages under HVO: all but the first page of them are read-only aliases of it. */
#include "hgm.h"

enum { UPTODATE = 3, HUGE = 17, TAIL = 16 }; /* include/uapi/linux/kernel-page-flags.h */

STOCK_CASE(tails_are_tails, "with HVO each base page still says that it belongs to a huge page (include/linux/page-flags.h:page_fixed_fake_head)")
{
	struct hgm_area area;
	const size_t pieces[] = { 1, 63, 64, 65, 100, 128, hgm_huge / hgm_base - 1 };

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_EQ(hgm_kpageflags(area.head) >> HUGE & 1, 1);
	EXPECT_EQ(hgm_kpageflags(area.head) >> TAIL & 1, 0);
	for (size_t number = 0; number < sizeof(pieces) / sizeof(*pieces); number++) {
		EXPECT_EQ(hgm_kpageflags(area.head + pieces[number]) >> HUGE & 1, 1);
		EXPECT_EQ(hgm_kpagecount(area.head + pieces[number]), 1);
	}
	hgm_area_close(&area);
}

HGM_CASE(collapse_far_piece, "COLLAPSE of a page of which only piece 100 was mapped leaves counts right under HVO (RFC v1)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 100 * hgm_base, hgm_base), 0);
	EXPECT_EQ(hgm_kpagecount(area.head), 2);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), 0);
	EXPECT_EQ(hgm_kpagecount(area.head + 100), 2);
	hgm_expect_tags(&area, 0, area.length);
	hgm_area_close(&area);
}
