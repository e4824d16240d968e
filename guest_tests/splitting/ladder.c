// SPDX-License-Identifier: MIT
/* Pieces of every size in every order: the right page frames, the right contents, the right counters. */
#include "hgm.h"

STOCK_CASE(whole_pages, "whole huge pages in any order: page frame head + k at every base page k, the tags through "
	   "both mappings, HugetlbPages +1 page each and VmPTE unchanged [mm/hugetlb.c:hugetlb_mcopy_atomic_pte]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_expect_shape(&area);
	hgm_continue(&area, hgm_huge, hgm_huge);
	hgm_expect_shape(&area);
	hgm_continue(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	/* What is written through one mapping is read through the other. */
	for (size_t i = 0; i < area.length; i += hgm_huge / 8) {
		*(volatile uint64_t *)(area.primary + i + 8) = i;
		EXPECT_EQ(*(volatile uint64_t *)(area.alias + i + 8), i);
	}
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
	hgm_area_close(&area);
}

HGM_CASE(one_piece, "one base page is mapped and nothing beside it: pagemap, contents, holes, HugetlbPages +1 base "
	 "page, VmPTE + the tables below the huge page's entry [RFC v1 patches 20 and 21]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_expect_shape(&area);
	hgm_expect_holes(&area);
}

HGM_CASE(ladder_down, "halves down to one base page: each step maps the largest sizes that are aligned and fit, the "
	 "last base page stays a hole [RFC v1 patch 20]", .deadline_s = 120)
{
	struct hgm_area area;
	size_t offset = 0;

	hgm_area_open(&area, 1, 0);
	for (size_t length = hgm_huge / 2; length >= hgm_base; length /= 2) {
		hgm_continue(&area, offset, length);
		offset += length;
		/* The whole check at each step of a large page takes too long under emulation, the counters do not. */
		hgm_expect_counters(&area);
	}
	hgm_expect_shape(&area);
	hgm_expect_holes(&area);
	EXPECT_EQ(offset, hgm_huge - hgm_base);
	hgm_continue(&area, offset, hgm_base);
	hgm_expect_shape(&area);
}

HGM_CASE(ladder_up, "from one base page up to half a huge page, from the end to the start [RFC v1 patch 20]",
	 .deadline_s = 120)
{
	struct hgm_area area;
	size_t end = hgm_huge;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, end -= hgm_base, hgm_base);
	for (size_t length = hgm_base; length <= hgm_huge / 2; length *= 2) {
		hgm_continue(&area, end -= length, length);
		hgm_expect_counters(&area);
	}
	EXPECT_EQ(end, 0);
	hgm_expect_shape(&area);
}

HGM_CASE(each_size_and_one, "a range of one piece of each size plus one base page is mapped with a leaf of each "
	 "size, as VmPTE shows [RFC v1 patch 20: the largest size that is aligned and fits]")
{
	struct hgm_area area;
	size_t offset = 0, length = 0;

	hgm_area_open(&area, 1, 0);
	for (const size_t *size = hgm_piece_sizes(); *size; size++)
		length += *size;
	hgm_continue(&area, offset, length);
	hgm_expect_shape(&area);
	hgm_expect_holes(&area);
	/* The same size at a place that is only aligned to a base page has no larger leaf in it until alignment allows. */
	offset = hgm_huge / 2 + hgm_base;
	hgm_continue(&area, offset, hgm_huge / 4);
	hgm_expect_shape(&area);
}

HGM_CASE(whole_page_is_one_leaf, "CONTINUE of whole huge pages in a granular mapping makes leaves of the huge page's "
	 "size, with no table below [RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, 0, area.length);
	hgm_expect_shape(&area);
}

HGM_CASE(across_two_pages, "one CONTINUE from the last piece of a huge page to the first of the next maps both "
	 "[RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, hgm_huge - hgm_base, 2 * hgm_base);
	hgm_expect_shape(&area);
	hgm_expect_holes(&area);
}

static void shuffle(unsigned *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		numbers[i] = i;
	for (size_t i = count - 1; i > 0; i--) {
		size_t other = hgm_random(i + 1);
		unsigned held = numbers[i];

		numbers[i] = numbers[other];
		numbers[other] = held;
	}
}

HGM_CASE(random_order_until_full, "every base page of a huge page by itself, in random order, until it is full "
	 "[RFC v1 patch 20]", .deadline_s = 180)
{
	struct hgm_area area;
	size_t pieces = hgm_huge / hgm_base;
	unsigned *order = malloc(pieces * sizeof(*order));

	EXPECT(order);
	shuffle(order, pieces);
	hgm_area_open(&area, 1, 0);
	for (size_t i = 0; i < pieces; i++) {
		hgm_continue(&area, order[i] * hgm_base, hgm_base);
		if (i == pieces / 2)
			hgm_expect_shape(&area);
	}
	hgm_expect_shape(&area);
	hgm_unmap_primary(&area);
	EXPECT_EQ(hgm_status_kb("VmPTE"), area.table_kb);
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), area.hugetlb_kb);
}

HGM_CASE(written_through_pieces, "what is written through a piece is read through the alias at the same place, and the "
	 "other way round [RFC v1 patch 20: the wrong piece inside the right range]")
{
	struct hgm_area area;
	const size_t pieces[] = { 0, 1, 3, hgm_huge / hgm_base / 2, hgm_huge / hgm_base - 1 };

	hgm_area_open(&area, 1, 0);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		volatile uint64_t *near = (void *)(area.primary + pieces[i] * hgm_base + 16);
		volatile uint64_t *far = (void *)(area.alias + pieces[i] * hgm_base + 16);

		hgm_continue(&area, pieces[i] * hgm_base, hgm_base);
		*near = 1000 + i;
		EXPECT_EQ(*far, 1000 + i);
		*far = 2000 + i;
		EXPECT_EQ(*near, 2000 + i);
	}
	hgm_expect_shape(&area);
}
