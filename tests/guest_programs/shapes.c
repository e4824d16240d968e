// SPDX-License-Identifier: MIT
/* What the harness sees of page tables from outside, asked for by programs that know the answer. */
#include "hgm.h"

static void map_whole_page(struct hgm_area *area)
{
	hgm_area_open(area, 2, HGM_PLAIN);
	hgm_expect_tag(area->primary, 0);
	hgm_now_faulted(area, 0);
}

STOCK_CASE(seen, "a huge page and a hole, as the hardware has them", .deadline_s = 10)
{
	struct hgm_area area;
	const char *shape;
	char expected[128];

	map_whole_page(&area);
	snprintf(expected, sizeof(expected), "tables 0; 2M: 2M\u00d71@%llx; 2M: hole\u00d7512@0",
		 (unsigned long long)area.head[0] * hgm_base);
	shape = hgm_shape(area.primary, area.length);
	if (!shape || strcmp(shape, expected))
		HGM_FAIL("expected %s, saw %s", expected, shape);
}

STOCK_CASE(misjudged, "pagemap is as expected, and the hardware's leaf is of another size", .deadline_s = 10)
{
	struct hgm_area area;

	map_whole_page(&area);
	for (size_t i = 0; i < hgm_huge / hgm_base; i++)
		area.leaf[i] = hgm_base;
	hgm_expect_pieces(&area);
}

STOCK_CASE(asks_often, "a thousand questions, and the clock goes on as it should", .deadline_s = 60)
{
	const int count = 1000;
	struct timespec begin, end;
	struct hgm_area area;

	map_whole_page(&area);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (int i = 0; i < count; i++)
		if (!hgm_shape_again(area.primary, area.length))
			HGM_FAIL("question %d had no answer", i);
	clock_gettime(CLOCK_MONOTONIC, &end);
	hgm_note("%d questions took %ld ms", count,
		 (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000);
}
