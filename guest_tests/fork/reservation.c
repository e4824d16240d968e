// SPDX-License-Identifier: MIT
/* fork and the ends of processes, in different orders, with HGM mappings of one page. */
#include "hgm.h"

STOCK_CASE(child_outlives_mapping, "a page stays while a child maps it, and goes when the last mapping goes (mm/hugetlb.c:__unmap_hugepage_range)")
{
	struct hgm_area area;
	pid_t child;

	hgm_area_open(&area, 1, MAP_SHARED);
	if (hgm_fork(&child)) {
		EXPECT_EQ(*(volatile uint64_t *)area.alias, hgm_tag(0));
		EXPECT_EQ(hgm_kpagecount(area.head), 2);
		CHECKED(munmap(area.alias, area.length));
		EXPECT_EQ(hgm_kpagecount(area.head), 1);
		hgm_child_done();
	}
	hgm_join(child);
	EXPECT_EQ(hgm_kpagecount(area.head), 1);
	hgm_area_close(&area);
}

HGM_CASE(chain_over_pieces, "forks over a page in pieces leave its count as it was (RFC v1)")
{
	struct hgm_area area;
	pid_t child;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 9 * hgm_base, hgm_base), 0);
	for (int round = 0; round < 3; round++) {
		if (hgm_fork(&child)) {
			EXPECT_EQ(*(volatile uint64_t *)(area.primary + 9 * hgm_base), hgm_tag(9));
			EXPECT_EQ(hgm_kpagecount(area.head), 3);
			hgm_child_done();
		}
		hgm_join(child);
		EXPECT_EQ(hgm_kpagecount(area.head), 2);
	}
	EXPECT_EQ(hgm_present(area.primary, area.length), 1);
	hgm_area_close(&area);
}
