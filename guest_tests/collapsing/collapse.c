// SPDX-License-Identifier: MIT
/* MADV_COLLAPSE: what it makes of pieces and holes, what it leaves alone, and what it refuses. */
#include "hgm.h"

#include <sched.h>

STOCK_CASE(private_is_refused, "MADV_COLLAPSE of a private mapping of huge pages is EINVAL, with HGM too "
	   "[mm/huge_memory.c:hugepage_vma_check; RFC v1]")
{
	int fd = hgm_memfd(1);
	unsigned char *at = hgm_map(fd, 0, hgm_huge, MAP_PRIVATE);
	struct hgm_area area = { .primary = at, .length = hgm_huge };

	EXPECT_ERRNO(hgm_try_collapse(&area, 0, hgm_huge), EINVAL);
	*(volatile uint64_t *)at = 4711;
	EXPECT_ERRNO(hgm_try_collapse(&area, 0, hgm_huge), EINVAL);
	EXPECT_EQ(*(volatile uint64_t *)at, 4711);
	EXPECT_EQ(hgm_present(at, hgm_huge), hgm_huge / hgm_base);
	hgm_expect_one_entry(at, true);
}

STOCK_CASE(shared_is_refused_without_hgm, "without HGM MADV_COLLAPSE of a shared mapping of huge pages is EINVAL and "
	   "changes nothing [mm/khugepaged.c:madvise_collapse, mm/huge_memory.c:hugepage_vma_check]")
{
	struct hgm_area area;

	hgm_only_without_hgm();
	hgm_area_open(&area, 1, 0);
	EXPECT_ERRNO(hgm_try_collapse(&area, 0, hgm_huge), EINVAL);
	hgm_continue(&area, 0, hgm_huge);
	EXPECT_ERRNO(hgm_try_collapse(&area, 0, hgm_huge), EINVAL);
	EXPECT_ERRNO(hgm_try_collapse(&area, hgm_base, hgm_base), EINVAL);
	hgm_expect_shape(&area);
}

STOCK_CASE(unaligned_is_refused, "MADV_COLLAPSE from an address within a base page is EINVAL [mm/madvise.c:do_madvise]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_huge);
	EXPECT_ERRNO(hgm_try_collapse(&area, 8, hgm_huge - 8), EINVAL);
	EXPECT_ERRNO(hgm_try_collapse(&area, hgm_base / 2, hgm_base), EINVAL);
	hgm_expect_shape(&area);
}

HGM_CASE(full, "a huge page mapped by base pages becomes one leaf: contents, HugetlbPages and VmPTE right at once, "
	 "tables freed [RFC v1 patch 18]", .deadline_s = 180)
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	for (size_t i = 0; i < hgm_huge; i += hgm_base)
		hgm_continue(&area, i, hgm_base);
	hgm_expect_counters(&area);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	EXPECT_EQ(hgm_status_kb("VmPTE"), area.table_kb);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, hgm_base, NULL), EEXIST);
}

HGM_CASE(holes_are_filled, "a collapse fills the holes of a page with pieces from the page cache [RFC v2 patch 36]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	hgm_expect_holes(&area);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
}

HGM_CASE(only_the_last_piece, "a collapse of a page of which only the last piece is mapped makes one leaf, counted "
	 "once [RFC v2 patch 36]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(of_nothing, "a huge page with no table below its entry stays unmapped [RFC v2 patch 36]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_collapse(&area, 0, area.length);
	hgm_expect_shape(&area);
	/* The second page has pieces, the first has none: only the second is mapped. */
	hgm_continue(&area, hgm_huge + 2 * hgm_base, hgm_base);
	hgm_collapse(&area, 0, area.length);
	hgm_expect_shape(&area);
	hgm_expect_holes(&area);
}

HGM_CASE(twice, "a second collapse, also of a smaller range inside the leaf, changes nothing and is no error "
	 "[RFC v1 patch 18; RFC v2 and later: EEXIST for the smaller range]")
{
	struct hgm_area area;
	int again;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_base);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	for (const size_t *size = hgm_piece_sizes(); *size; size++) {
		again = hgm_try_collapse(&area, *size, *size);
		EXPECT_ERRNO(again, hgm_dialect() == HGM_RFC1 ? 0 : EEXIST);
	}
	hgm_expect_shape(&area);
}

HGM_CASE(part_of_a_page, "each larger piece of a huge page is collapsed by itself, and what lies beside it stays as "
	 "it is [RFC v2 patch 36: any range, the largest size that fits]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	for (const size_t *size = hgm_piece_sizes(); *size > hgm_base; size++) {
		size_t beside = *size - hgm_base;

		/* A piece before it and some in it. */
		hgm_continue(&area, beside, hgm_base);
		hgm_continue(&area, *size + hgm_base, 2 * hgm_base);
		hgm_expect_shape(&area);
		hgm_collapse(&area, *size, *size);
		hgm_expect_shape(&area);
		hgm_area_close(&area);
		hgm_area_open(&area, 1, 0);
	}
	/* A range of base pages has nothing to collapse: no error, no change. */
	hgm_continue(&area, hgm_base, 3 * hgm_base);
	hgm_collapse(&area, hgm_base, 2 * hgm_base);
	hgm_expect_shape(&area);
}

HGM_CASE(empty_parts, "a collapse of a larger piece in which nothing is mapped, in a page that is granular elsewhere, "
	 "leaves its entry empty and adds no table; it can be mapped as a whole then [RFC v2 patch 36]")
{
	struct hgm_area area;
	size_t offset = hgm_huge / 2;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_base);
	for (const size_t *size = hgm_piece_sizes(); *size > hgm_base; size++) {
		hgm_collapse(&area, offset, *size);
		hgm_expect_shape(&area);
		hgm_continue(&area, offset, *size);
		hgm_expect_shape(&area);
		offset += *size;
	}
	hgm_collapse(&area, hgm_huge - 2 * hgm_base, 2 * hgm_base);
	hgm_expect_shape(&area);
}

HGM_CASE(in_two_steps, "pieces to leaves of the next size, then to the huge page: right at each step, and pieces can "
	 "be mapped again after the page was dropped [RFC v2 patch 36]", .deadline_s = 180)
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	for (int round = 0; round < 2; round++) {
		size_t step = hgm_piece_sizes()[0];

		for (size_t i = 0; i < hgm_huge; i += step)
			hgm_continue(&area, i + step - hgm_base, hgm_base);
		hgm_expect_counters(&area);
		for (size_t i = 0; i < hgm_huge; i += step)
			hgm_collapse(&area, i, step);
		hgm_expect_shape(&area);
		hgm_collapse(&area, 0, hgm_huge);
		hgm_expect_shape(&area);
		EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED)), 0);
		hgm_now_empty(&area, 0, hgm_huge);
		hgm_expect_shape(&area);
	}
}

HGM_CASE(two_pages_at_once, "one collapse over two huge pages makes two leaves, and each goes back to the pool at "
	 "the end [RFC v1 patch 18; a reference taken for each entry would keep it]")
{
	struct hgm_area area;
	long free_before = hgm_pool("free");

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, hgm_base, hgm_huge);
	hgm_expect_shape(&area);
	hgm_collapse(&area, 0, area.length);
	hgm_expect_shape(&area);
	hgm_area_close(&area);
	EXPECT_EQ(hgm_pool("free"), free_before);
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), 0);
}

HGM_CASE(read_only_stays_so, "what a CONTINUE or a collapse maps in a read-only mapping cannot be written to, and can once "
	 "mprotect allows it [mm/hugetlb.c:make_huge_pte]")
{
	struct hgm_area area;
	const size_t offsets[] = { 0, hgm_base, 3 * hgm_base, hgm_huge - hgm_base };

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	CHECKED(mprotect(area.primary, hgm_huge, PROT_READ));
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	EXPECT_ERRNO(hgm_try_store(area.primary + 3 * hgm_base + 16), EFAULT);
	hgm_collapse(&area, 0, hgm_huge);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++)
		EXPECT_ERRNO(hgm_try_store(area.primary + offsets[i] + 16), EFAULT);
	hgm_expect_shape(&area);
	CHECKED(mprotect(area.primary, hgm_huge, PROT_READ | PROT_WRITE));
	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++)
		EXPECT_ERRNO(hgm_try_store(area.primary + offsets[i] + 16), 0);
	hgm_expect_shape(&area);
}

/* Page tables of all processes, in pages; what each processor has not yet added included. */
static long table_pages(void)
{
	char name[64];
	long value;
	FILE *file;

	hgm_write_number("/proc/sys/vm/stat_refresh", 1);
	file = fopen("/proc/vmstat", "r");
	EXPECT(file);
	while (fscanf(file, "%63s %ld", name, &value) == 2) {
		if (!strcmp(name, "nr_page_table_pages")) {
			fclose(file);
			return value;
		}
	}
	HGM_FAIL("/proc/vmstat has no nr_page_table_pages");
}

HGM_CASE(tables_are_given_back, "every page table below a collapsed or unmapped huge page goes back to the system: a "
	 "thousand of them leave nr_page_table_pages as it was [mm/memory.c:free_pte_range]", .deadline_s = 120)
{
	struct hgm_area area;
	size_t reach = hgm_base / 8 * hgm_base, tables = hgm_huge / reach;
	long before, grown;

	if (!tables)
		hgm_skip("not applicable: a huge page that is part of a table has none of its own");
	hgm_area_open(&area, 1, 0);
	before = table_pages();
	/* First many at once, then few again and again: tables of the upper levels, too, come to hundreds. */
	for (size_t made = 0, round = 0; round < 1024; round++) {
		size_t count = made < 1024 ? tables : 1;

		made += count;
		/* Without the area's model, which is slow where it is large: at the end of each round it is right. */
		for (size_t i = 0; i < count; i++)
			EXPECT_ERRNO(hgm_try_continue(&area, i * reach + hgm_base, hgm_base, NULL), 0);
		if (round % 2)
			EXPECT_ERRNO(hgm_try_collapse(&area, 0, hgm_huge), 0);
		CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED));
	}
	grown = table_pages() - before;
	/* Other processes come and go, but not by hundreds of tables. */
	if (grown >= 128)
		HGM_FAIL("nr_page_table_pages: expected to be what it was, saw %ld more", grown);
	hgm_expect_shape(&area);
}

struct looker {
	struct hgm_area *area;
	volatile bool done;
	volatile unsigned long looks;
};

static void *look(void *argument)
{
	struct looker *looker = argument;
	size_t pieces = looker->area->length / hgm_base;

	while (!looker->done) {
		size_t piece = looker->looks % pieces;

		if (*(volatile uint64_t *)(looker->area->primary + piece * hgm_base) != hgm_tag(piece))
			HGM_FAIL("base page %zu has not its tag while it is being collapsed", piece);
		looker->looks++;
	}
	return NULL;
}

HGM_CASE(readers_meanwhile, "readers of mapped pieces see nothing of collapses that run, nor of the mapping in pieces "
	 "before [PATCH v2 patch 34]", .deadline_s = 180)
{
	struct hgm_area area;
	struct looker looker = { .area = &area };
	size_t step = hgm_piece_sizes()[0], pages = 1;
	pthread_t thread;

	/* Where nothing lies between, only whole pages are collapsed, and so there are several. */
	if (step == hgm_base) {
		step = hgm_huge;
		pages = 16;
	}
	hgm_area_open(&area, pages, 0);
	for (size_t i = 0; i < area.length; i += hgm_base)
		hgm_continue(&area, i, hgm_base);
	hgm_thread_start(&thread, look, &looker);
	for (size_t i = 0; i < area.length; i += step) {
		unsigned long looks = looker.looks;

		hgm_collapse(&area, i, step);
		while (looker.looks == looks && i < 16 * step)
			sched_yield();
	}
	hgm_collapse(&area, 0, area.length);
	looker.done = true;
	hgm_thread_join(thread);
	EXPECT(looker.looks > 0);
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(reaches_former_pieces, "what is done to a huge page after a collapse reaches all that were pieces and in use: "
	 "mprotect takes the right to write, MADV_DONTNEED unmaps them [PATCH v2 patch 34: the TLB is flushed of the "
	 "pieces]")
{
	const size_t used[] = { hgm_base, 2 * hgm_base, 3 * hgm_base, hgm_huge - hgm_base };
	const size_t count = sizeof(used) / sizeof(*used);
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	/* Again and again: a translation that was left may go by chance, with that of another process. */
	for (int round = 0; round < 16; round++) {
		hgm_continue(&area, hgm_base, 3 * hgm_base);
		hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
		for (size_t i = 0; i < count; i++)
			EXPECT(!hgm_write_refused(area.primary + used[i]));
		hgm_collapse(&area, 0, hgm_huge);
		if (round % 2) {
			CHECKED(mprotect(area.primary, hgm_huge, PROT_READ));
			for (size_t i = 0; i < count; i++)
				if (!hgm_write_refused(area.primary + used[i]))
					HGM_FAIL("round %d: base page %zu, once a piece, was written to after mprotect had taken "
						 "the right", round, used[i] / hgm_base);
			CHECKED(mprotect(area.primary, hgm_huge, PROT_READ | PROT_WRITE));
		}
		CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED));
		hgm_now_empty(&area, 0, hgm_huge);
		for (size_t i = 0; i < count; i++)
			if (!hgm_sigbus(area.primary + used[i], NULL, NULL))
				HGM_FAIL("round %d: base page %zu, once a piece, was read after it had been unmapped", round,
					 used[i] / hgm_base);
	}
	hgm_expect_shape(&area);
}

HGM_CASE(beyond_the_mapping, "a collapse over a range that begins where nothing is mapped says ENOMEM and yet folds what "
	 "is there, as madvise does for every advice [mm/madvise.c:madvise_walk_vmas]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	/* The alias lies right before the primary. All of it goes: a part would split it, which lockdep warns of on 6.1. */
	EXPECT_EQ(CHECKED(munmap(area.alias, area.length)), 0);
	EXPECT_EQ(madvise(area.alias, 2 * area.length, HGM_MADV_COLLAPSE), -1);
	EXPECT_EQ(errno, ENOMEM);
	CHECKED(mmap(area.alias, area.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, area.fd, 0));
	hgm_expect_tag(area.alias, 0);
	for (size_t i = 0; i < hgm_huge / hgm_base; i++)
		area.leaf[i] = hgm_huge;
	hgm_expect_shape(&area);
}

/* One base page of ordinary memory, which nobody can collapse: EINVAL, with THP or without. */
static volatile uint64_t *map_ordinary(unsigned char *at)
{
	return CHECKED(mmap(at, hgm_base, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

HGM_CASE(beside_other_memory, "a collapse over a range that ends in ordinary memory folds the pieces before it, one "
	 "that begins there ends there; both say EINVAL and change no byte [mm/madvise.c:madvise_walk_vmas, "
	 "mm/khugepaged.c:madvise_collapse]")
{
	volatile uint64_t *word;
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	word = map_ordinary(area.primary + hgm_huge);
	*word = 4711;
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	EXPECT_ERRNO(hgm_try_collapse(&area, 0, hgm_huge + hgm_base), EINVAL);
	EXPECT_EQ(*word, 4711);
	for (size_t i = 0; i < hgm_huge / hgm_base; i++)
		area.leaf[i] = hgm_huge;
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);

	CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED));
	hgm_now_empty(&area, 0, hgm_huge);
	CHECKED(munmap(area.alias, hgm_huge));
	word = map_ordinary(area.primary - hgm_base);
	*word = 4712;
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	EXPECT_ERRNO(madvise(area.primary - hgm_base, hgm_base + hgm_huge, HGM_MADV_COLLAPSE) ? errno : 0, EINVAL);
	EXPECT_EQ(*word, 4712);
	EXPECT_EQ(hgm_present(area.primary, hgm_huge), 1);
	hgm_expect_tag(area.primary + 3 * hgm_base, 3);
	hgm_expect_mapcount(&area, 0);
}

HGM_CASE(across_a_gap, "a collapse over two mappings with nothing mapped between them folds both and says ENOMEM at "
	 "the end, as madvise does for every advice [mm/madvise.c:madvise_walk_vmas]")
{
	struct hgm_area area;
	size_t second = 2 * hgm_huge;

	hgm_area_open(&area, 1, 0);
	CHECKED(munmap(area.primary + hgm_huge, hgm_huge));
	CHECKED(mmap(area.primary + second, hgm_huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, area.fd, 0));
	hgm_register_for_pieces(area.uffd, area.primary + second, hgm_huge);
	hgm_continue(&area, hgm_base, hgm_base);
	EXPECT_ERRNO(hgm_try_continue(&area, second + 2 * hgm_base, hgm_base, NULL), 0);
	EXPECT_ERRNO(hgm_try_collapse(&area, 0, 3 * hgm_huge), ENOMEM);
	EXPECT_EQ(hgm_present(area.primary + second, hgm_huge), hgm_huge / hgm_base);
	hgm_expect_one_entry(area.primary + second, true);
	hgm_expect_tag(area.primary + second + 5 * hgm_base, 5);
	for (size_t i = 0; i < hgm_huge / hgm_base; i++)
		area.leaf[i] = hgm_huge;
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 2);
	CHECKED(munmap(area.primary + second, hgm_huge));
	hgm_expect_shape(&area);
}
