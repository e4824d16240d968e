// SPDX-License-Identifier: MIT
/* What UFFDIO_CONTINUE refuses, and with which errno. A refusal must leave the mapping as it was. */
#include "hgm.h"

STOCK_CASE(part_of_base_page, "CONTINUE of what is no multiple of a base page, or of nothing, is EINVAL "
	   "[fs/userfaultfd.c:validate_range]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	EXPECT_ERRNO(hgm_try_continue(&area, 1, hgm_huge, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base / 2, hgm_base, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_base - 1, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_huge + 8, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, 0, NULL), EINVAL);
	hgm_expect_shape(&area);
}

STOCK_CASE(outside, "CONTINUE of a range that is not within one registered mapping is ENOENT "
	   "[mm/userfaultfd.c:find_dst_vma]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	/* Before the primary lies the alias, which is not registered; behind it lies nothing. */
	EXPECT_ERRNO(hgm_try_continue(&area, -hgm_huge, hgm_huge, NULL), ENOENT);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, 2 * hgm_huge, NULL), ENOENT);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge, hgm_huge, NULL), ENOENT);
	hgm_expect_shape(&area);
}

STOCK_CASE(whole_page_twice, "CONTINUE of a whole huge page maps it; again is EEXIST and changes nothing "
	   "[mm/hugetlb.c:hugetlb_mcopy_atomic_pte]")
{
	struct hgm_area area;
	long long mapped;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_huge, &mapped), EEXIST);
	EXPECT_EQ(mapped, -EEXIST);
	hgm_expect_shape(&area);
}

STOCK_CASE(not_in_cache, "CONTINUE of a page that is not in the page cache is EFAULT "
	   "[mm/hugetlb.c:hugetlb_mcopy_atomic_pte]")
{
	int uffd = hgm_uffd(UFFD_FEATURE_SIGBUS);
	int fd = hgm_memfd(1);
	void *at = hgm_map(fd, 0, hgm_huge, MAP_SHARED);
	struct hgm_area area = { .uffd = uffd, .primary = at, .length = hgm_huge };

	EXPECT(uffd >= 0);
	EXPECT_ERRNO(hgm_try_register(uffd, at, hgm_huge, UFFDIO_REGISTER_MODE_MINOR), 0);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_huge, NULL), EFAULT);
	EXPECT_EQ(hgm_present(at, hgm_huge), 0);
	hgm_expect_one_entry(at, false);
}

STOCK_CASE(stops_half_way, "CONTINUE that meets a mapped page on its way maps what comes before and is EAGAIN, with "
	   "the bytes done in mapped [fs/userfaultfd.c:userfaultfd_continue]")
{
	struct hgm_area area;
	long long mapped;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, hgm_huge, hgm_huge);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, 2 * hgm_huge, &mapped), EAGAIN);
	EXPECT_EQ(mapped, hgm_huge);
	/* The first page is mapped now: the kernel and the model must agree. */
	for (size_t i = 0; i < hgm_huge / hgm_base; i++)
		area.leaf[i] = hgm_huge;
	hgm_expect_shape(&area);
}

STOCK_CASE(private_stays_whole, "a private mapping takes whole huge pages only: part of one is EINVAL, with HGM too "
	   "[mm/userfaultfd.c:__mcopy_atomic_hugetlb; all posted versions need a shared mapping]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, HGM_PRIVATE);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_base, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, hgm_huge - hgm_base, NULL), EINVAL);
	hgm_expect_pieces(&area);
	hgm_continue(&area, 0, hgm_huge);
	hgm_expect_pieces(&area);
}

STOCK_CASE(stock_refuses_pieces, "without HGM CONTINUE of part of a huge page is EINVAL "
	   "[mm/userfaultfd.c:__mcopy_atomic_hugetlb]")
{
	struct hgm_area area;

	hgm_only_without_hgm();
	hgm_area_open(&area, 1, 0);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_base, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, hgm_huge - hgm_base, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge / 2, hgm_huge / 2, NULL), EINVAL);
	hgm_expect_shape(&area);
}

HGM_CASE(misaligned_piece, "CONTINUE in a granular mapping is EINVAL for what is no multiple of a base page "
	 "[RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	EXPECT_ERRNO(hgm_try_continue(&area, 2 * hgm_base + 8, hgm_base, NULL), EINVAL);
	EXPECT_ERRNO(hgm_try_continue(&area, 2 * hgm_base, hgm_base / 2, NULL), EINVAL);
	hgm_expect_shape(&area);
}

HGM_CASE(piece_outside, "CONTINUE of a piece beside or across the end of the mapping is ENOENT "
	 "[mm/userfaultfd.c:find_dst_vma; RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	EXPECT_ERRNO(hgm_try_continue(&area, -hgm_base, hgm_base, NULL), ENOENT);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge - hgm_base, 2 * hgm_base, NULL), ENOENT);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge, hgm_base, NULL), ENOENT);
	hgm_expect_shape(&area);
}

HGM_CASE(piece_twice, "CONTINUE of a piece that is mapped is EEXIST and changes nothing [RFC v1 patch 20]")
{
	struct hgm_area area;
	long long mapped;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge - hgm_base, hgm_base, &mapped), EEXIST);
	EXPECT_EQ(mapped, -EEXIST);
	hgm_expect_shape(&area);
}

HGM_CASE(inside_larger_leaf, "CONTINUE of a piece that a larger leaf covers is EEXIST, for each larger size "
	 "[RFC v1 patch 20; Mike Kravetz on PATCH v2 patch 12]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	/* Each size but the base page: a leaf of it behind those before, then pieces at its start, middle and end. */
	for (const size_t *size = hgm_piece_sizes(); *size > hgm_base; size++) {
		size_t at = *size;

		hgm_continue(&area, at, *size);
		EXPECT_ERRNO(hgm_try_continue(&area, at, hgm_base, NULL), EEXIST);
		EXPECT_ERRNO(hgm_try_continue(&area, at + *size / 2, hgm_base, NULL), EEXIST);
		EXPECT_ERRNO(hgm_try_continue(&area, at + *size - hgm_base, hgm_base, NULL), EEXIST);
		hgm_expect_shape(&area);
	}
	hgm_unmap_primary(&area);
	hgm_area_close(&area);
	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_huge);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, hgm_base, NULL), EEXIST);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge - hgm_base, hgm_base, NULL), EEXIST);
	hgm_expect_shape(&area);
}

HGM_CASE(over_mapped_piece, "CONTINUE of a larger piece of which only the last base page is mapped is EEXIST and changes "
	 "nothing, for each larger size [RFC v1 patch 20; arch/arm64/mm/hugetlbpage.c: a contiguous leaf has many entries]")
{
	struct hgm_area area;
	long long mapped;

	/* What is true of the huge page itself is whole_over_last_piece. */
	if (hgm_piece_sizes()[0] == hgm_base)
		hgm_skip("not applicable: no size lies between such a huge page and its base pages");
	hgm_area_open(&area, 1, 0);
	for (const size_t *size = hgm_piece_sizes(); *size > hgm_base; size++) {
		hgm_continue(&area, 2 * *size - hgm_base, hgm_base);
		EXPECT_ERRNO(hgm_try_continue(&area, *size, *size, &mapped), EEXIST);
		EXPECT_EQ(mapped, -EEXIST);
		hgm_expect_shape(&area);
	}
}

HGM_CASE(whole_over_first_piece, "CONTINUE of a whole huge page whose first piece is mapped is EEXIST "
	 "[RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_base);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_huge, NULL), EEXIST);
	hgm_expect_shape(&area);
}

HGM_CASE(whole_over_last_piece, "CONTINUE of a whole huge page whose last piece is mapped is EEXIST: its entry holds a "
	 "table, which no leaf may replace [RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	EXPECT_ERRNO(hgm_try_continue(&area, 0, hgm_huge, NULL), EEXIST);
	hgm_expect_shape(&area);
}

HGM_CASE(pieces_half_way, "CONTINUE that meets a mapped piece on its way maps what comes before and is EAGAIN, with "
	 "the bytes done in mapped [fs/userfaultfd.c:userfaultfd_continue; RFC v1 patch 20]")
{
	struct hgm_area area;
	long long mapped;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 4 * hgm_base, hgm_base);
	/* Base pages 1 to 5: three fit before the one that is mapped. */
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, 5 * hgm_base, &mapped), EAGAIN);
	EXPECT_EQ(mapped, 3 * hgm_base);
	for (size_t i = 1; i < 4; i++)
		area.leaf[i] = hgm_base;
	hgm_expect_shape(&area);
}

HGM_CASE(piece_not_in_cache, "CONTINUE of a piece whose page is not in the page cache is EFAULT, and works once it is "
	 "[RFC v1 patch 20]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_base);
	/* Both mappings lose the page, and the file with them. */
	EXPECT_EQ(CHECKED(ftruncate(area.fd, 0)), 0);
	EXPECT_EQ(CHECKED(ftruncate(area.fd, area.length)), 0);
	hgm_now_empty(&area, 0, area.length);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, hgm_base, NULL), EFAULT);
	*(volatile uint64_t *)(area.alias + hgm_base) = 4711;
	hgm_continue(&area, hgm_base, hgm_base);
	EXPECT_EQ(*(volatile uint64_t *)(area.primary + hgm_base), 4711);
	EXPECT_EQ(hgm_present(area.primary, area.length), 1);
	area.head[0] = hgm_pfn(area.alias);
	hgm_expect_tables(&area);
}
