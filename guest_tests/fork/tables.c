// SPDX-License-Identifier: MIT
/* What a child finds of its parent's shared huge pages. fork copies no tables of shared mappings: children fault. */
#include "hgm.h"

#include <sys/prctl.h>
#include <sys/wait.h>

/*
 * In a child: its copy of the primary is empty, and its counter is its own; a read fills it with whole pages. The tags
 * are compared through both mappings, so the child maps the page twice afterwards.
 */
static void child_fills(struct hgm_area *area, size_t touched)
{
	EXPECT_EQ(hgm_present(area->primary, area->length), 0);
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), 0);
	hgm_now_empty(area, 0, area->length);
	hgm_expect_tag(area->primary + touched * hgm_base, touched);
	hgm_now_faulted(area, touched * hgm_base);
	hgm_expect_pieces(area);
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), 2 * (area->length >> 10));
}

STOCK_CASE(child_starts_empty, "a child starts with nothing of a shared mapping, fills it by faults, and counts only "
	   "then; the parent's mapping does not change [mm/memory.c:vma_needs_copy]")
{
	struct hgm_area area;
	struct hgm_child child;

	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_expect_tag(area.primary, 0);
	hgm_now_faulted(&area, 0);
	hgm_expect_shape(&area);
	if (hgm_fork(&child)) {
		hgm_tell(&child);
		hgm_wait(&child);
		child_fills(&area, 5);
		hgm_tell(&child);
		hgm_wait(&child);
		hgm_child_done();
	}
	hgm_wait(&child);
	hgm_expect_shape(&area);
	hgm_tell(&child);
	hgm_wait(&child);
	hgm_expect_mapcount(&area, 3);
	hgm_expect_pieces(&area);
	hgm_tell(&child);
	hgm_join(&child);
	hgm_expect_shape(&area);
}

STOCK_CASE(writes_are_seen, "parent and child write to one shared huge page and read what the other wrote "
	   "[mm/hugetlb.c:hugetlb_fault]")
{
	struct hgm_area area;
	struct hgm_child child;
	volatile uint64_t *near, *far;

	hgm_area_open(&area, 1, HGM_PLAIN);
	near = (void *)(area.primary + 3 * hgm_base + 16);
	far = (void *)(area.primary + hgm_huge - 16 - 8);
	*near = 1;
	if (hgm_fork(&child)) {
		EXPECT_EQ(*near, 1);
		*far = 2;
		hgm_tell(&child);
		hgm_wait(&child);
		EXPECT_EQ(*near, 3);
		hgm_child_done();
	}
	hgm_wait(&child);
	EXPECT_EQ(*far, 2);
	*near = 3;
	hgm_tell(&child);
	hgm_join(&child);
	EXPECT_EQ(*far, 2);
	hgm_expect_one_entry(area.primary, true);
}

HGM_CASE(granular_parent, "a parent with pieces mapped: the child starts empty and fills its mapping with the whole "
	 "page, since it meets an empty entry; the parent's pieces, holes and counters do not change "
	 "[mm/memory.c:vma_needs_copy; RFC v1 patch 19 is not reached since 6.1]")
{
	struct hgm_area area;
	struct hgm_child child;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, 2 * hgm_base);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	if (hgm_fork(&child)) {
		hgm_tell(&child);
		hgm_wait(&child);
		child_fills(&area, 5);
		hgm_tell(&child);
		hgm_wait(&child);
		hgm_child_done();
	}
	hgm_wait(&child);
	hgm_expect_shape(&area);
	hgm_tell(&child);
	hgm_wait(&child);
	hgm_expect_mapcount(&area, 3);
	hgm_expect_pieces(&area);
	hgm_expect_holes(&area);
	hgm_tell(&child);
	hgm_join(&child);
	hgm_expect_shape(&area);
	hgm_continue(&area, 0, hgm_base);
	hgm_expect_shape(&area);
}

HGM_CASE(parent_goes_on, "while a child holds the whole page, the parent maps more pieces, collapses and unmaps: the "
	 "child sees and loses nothing [RFC v1 patch 18; mm/memory.c:vma_needs_copy]")
{
	struct hgm_area area;
	struct hgm_child child;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 7 * hgm_base, hgm_base);
	if (hgm_fork(&child)) {
		child_fills(&area, 7);
		for (int step = 0; step < 3; step++) {
			hgm_tell(&child);
			hgm_wait(&child);
			hgm_expect_pieces(&area);
		}
		hgm_child_done();
	}
	hgm_wait(&child);
	hgm_continue(&area, 8 * hgm_base, 2 * hgm_base);
	hgm_expect_mapcount(&area, 3);
	hgm_tell(&child);
	hgm_wait(&child);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_mapcount(&area, 3);
	hgm_expect_pieces(&area);
	hgm_tell(&child);
	hgm_wait(&child);
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 3);
	hgm_tell(&child);
	hgm_join(&child);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(parent_exits_first, "a granular parent exits before its child: the child's page stays as it is, and the "
	 "pool is full after both [RFC v1 cover: the count goes with the VMA]")
{
	struct hgm_child parent;
	long free_before = hgm_pool("free");
	int status;

	/* The grandchild is handed on to this process when its parent ends. */
	EXPECT_EQ(CHECKED(prctl(PR_SET_CHILD_SUBREAPER, 1)), 0);
	if (hgm_fork(&parent)) {
		struct hgm_area area;
		struct hgm_child orphan;

		hgm_area_open(&area, 1, 0);
		hgm_continue(&area, 3 * hgm_base, hgm_base);
		if (hgm_fork(&orphan)) {
			char byte;

			EXPECT_EQ(CHECKED(prctl(PR_SET_PDEATHSIG, 0)), 0);
			child_fills(&area, 3);
			hgm_tell(&orphan);
			/* End of file: the parent's descriptors are closed, which comes after its memory is gone. */
			EXPECT_EQ(CHECKED(read(orphan.channel, &byte, 1)), 0);
			hgm_expect_pieces(&area);
			EXPECT_EQ(CHECKED(munmap(area.alias, area.length)), 0);
			hgm_expect_count(area.head[0], 1);
			EXPECT_EQ(hgm_pool("free"), free_before - 1);
			hgm_child_done();
		}
		hgm_wait(&orphan);
		hgm_child_done();
	}
	hgm_join(&parent);
	EXPECT(CHECKED(waitpid(-1, &status, 0)) > 0);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(hgm_pool("free"), free_before);
}
