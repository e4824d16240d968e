// SPDX-License-Identifier: MIT
/* MADV_COLLAPSE of huge pages that are mapped in pieces, and where it is refused. */
#include "hgm.h"

STOCK_CASE(private_refused, "MADV_COLLAPSE of a private hugetlb mapping is EINVAL, with HGM too (mm/khugepaged.c:madvise_collapse)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_PRIVATE);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), EINVAL);
	hgm_area_close(&area);
}

STOCK_CASE(without_hgm_refused, "without HGM, MADV_COLLAPSE of hugetlb memory is EINVAL (mm/huge_memory.c:hugepage_vma_check)")
{
	struct hgm_area area;

	hgm_only_without_hgm();
	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_huge), 0);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), EINVAL);
	hgm_expect_tags(&area, 0, hgm_huge);
	hgm_area_close(&area);
}

HGM_CASE(fills_holes, "COLLAPSE of one piece and holes maps the whole page, tables go, the data stays (RFC v1)")
{
	struct hgm_area area;
	long tables;

	hgm_area_open(&area, 1, MAP_SHARED);
	tables = hgm_status_kb("VmPTE");
	EXPECT_ERRNO(hgm_continue(&area, 3 * hgm_base, hgm_base), 0);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), 0);
	EXPECT_EQ(hgm_present(area.primary, area.length), hgm_huge / hgm_base);
	EXPECT_EQ(hgm_status_kb("VmPTE"), tables);
	hgm_expect_tags(&area, 0, area.length);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), EEXIST);
	hgm_area_close(&area);
}

HGM_CASE(keeps_mapcount, "COLLAPSE never changes the mapcount (RFC v1)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, hgm_base, hgm_base), 0);
	EXPECT_EQ(hgm_kpagecount(area.head), 2);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), 0);
	EXPECT_EQ(hgm_kpagecount(area.head), 2);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), 0);
	EXPECT_EQ(hgm_kpagecount(area.head), 2);
	hgm_area_close(&area);
}

HGM_CASE(of_nothing, "COLLAPSE of a page of which nothing is mapped succeeds and maps nothing (RFC v1)")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_collapse(&area, 0, hgm_huge), 0);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	EXPECT_EQ(hgm_kpagecount(area.head), 1);
	hgm_area_close(&area);
}

HGM_CASE(part_of_a_page, "COLLAPSE of the first 2M of a 1G page leaves the rest in pieces (RFC v1)", .sizes = "1G")
{
	struct hgm_area area;
	const size_t part = 2 << 20;

	hgm_area_open(&area, 1, MAP_SHARED);
	EXPECT_ERRNO(hgm_continue(&area, 0, hgm_base), 0);
	EXPECT_ERRNO(hgm_continue(&area, part, hgm_base), 0);
	EXPECT_ERRNO(hgm_collapse(&area, 0, part), 0);
	EXPECT_EQ(hgm_present(area.primary, part), part / hgm_base);
	EXPECT_EQ(hgm_present(area.primary + part, area.length - part), 1);
	hgm_expect_tags(&area, 0, part);
	hgm_area_close(&area);
}
