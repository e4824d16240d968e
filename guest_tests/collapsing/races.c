// SPDX-License-Identifier: MIT
/* MADV_COLLAPSE against one other call at the same time, many rounds: whichever comes first, the end is a known one. */
#include "hgm.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/ioctl.h>

/* A second thread that makes its move in each round, at the same time as the case makes its own. */
struct race {
	struct hgm_area *area;
	void (*move)(struct race *race);
	int rounds;
	pthread_barrier_t barrier;
	pthread_t thread;
	size_t offset; /* of the piece the round is about */
	int error; /* what the move came to */
};

static void *rival(void *argument)
{
	struct race *race = argument;

	for (int round = 0; round < race->rounds; round++) {
		pthread_barrier_wait(&race->barrier);
		race->move(race);
		pthread_barrier_wait(&race->barrier);
	}
	return NULL;
}

static void race_start(struct race *race)
{
	pthread_barrier_init(&race->barrier, NULL, 2);
	hgm_thread_start(&race->thread, rival, race);
}

/* Both moves of a round; returns what the collapse of the first huge page came to. */
static int race_round(struct race *race)
{
	int error;

	pthread_barrier_wait(&race->barrier);
	error = hgm_try_collapse(race->area, 0, hgm_huge);
	pthread_barrier_wait(&race->barrier);
	return error;
}

/* The first huge page with its first piece mapped and another one chosen, which is never the first. */
static void map_first_piece(struct race *race)
{
	race->offset = (1 + hgm_random(hgm_huge / hgm_base - 1)) * hgm_base;
	hgm_continue(race->area, 0, hgm_base);
}

/* What can be seen of the first huge page at little cost: a sample of its pieces, both counters, and the mapcount. */
static void expect_page(struct race *race, size_t leaf)
{
	struct hgm_area *area = race->area;
	const size_t sample[] = { 0, race->offset, hgm_huge / 2, hgm_huge - hgm_base };
	size_t mapped = leaf ? hgm_huge : 0;

	for (size_t i = 0; i < sizeof(sample) / sizeof(*sample); i++) {
		uint64_t entry = hgm_pagemap(area->primary + sample[i]);

		EXPECT_EQ(!!(entry & HGM_PM_PRESENT), !!leaf);
		if (leaf)
			hgm_expect_tag(area->primary + sample[i], sample[i] / hgm_base);
	}
	EXPECT_EQ(hgm_status_kb("HugetlbPages") - area->hugetlb_kb, mapped >> 10);
	EXPECT_EQ(hgm_kpagecount(area->head[0] + race->offset / hgm_base), 1 + !!leaf);
}

static void drop(struct hgm_area *area)
{
	CHECKED(madvise(area->primary, hgm_huge, MADV_DONTNEED));
	hgm_now_empty(area, 0, hgm_huge);
}

static void move_continue(struct race *race)
{
	race->error = hgm_try_continue(race->area, race->offset, hgm_base, NULL);
}

HGM_CASE(against_continue, "a collapse and a CONTINUE of another piece of the page at once leave one leaf that counts "
	 "once; the CONTINUE has mapped, or finds the place mapped [RFC v1 patches 18 and 20]", .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_continue, .rounds = 1000 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		if (race.error && race.error != EEXIST)
			HGM_FAIL("round %d: CONTINUE: expected success or EEXIST, saw %s", round, strerror(race.error));
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
	expect_page(&race, 0);
}

static void move_dontneed(struct race *race)
{
	race->error = madvise(race->area->primary, hgm_huge, MADV_DONTNEED) ? errno : 0;
}

HGM_CASE(against_dontneed, "a collapse and MADV_DONTNEED of the page at once leave nothing mapped and nothing counted, "
	 "for a collapse maps nothing where nothing is [RFC v1 patch 18; mm/hugetlb.c:zap_hugepage_range]",
	 .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_dontneed, .rounds = 1000 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		EXPECT_ERRNO(race.error, 0);
		hgm_now_empty(&area, 0, hgm_huge);
		expect_page(&race, 0);
	}
	hgm_thread_join(race.thread);
}

static void move_munmap(struct race *race)
{
	race->error = munmap(race->area->primary, hgm_huge) ? errno : 0;
}

HGM_CASE(against_munmap, "a collapse while the mapping goes away ends with success or ENOMEM, and nothing stays counted "
	 "[mm/madvise.c:madvise_walk_vmas]", .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_munmap, .rounds = 500 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		int error;

		map_first_piece(&race);
		error = race_round(&race);
		if (error && error != ENOMEM)
			HGM_FAIL("round %d: COLLAPSE: expected success or ENOMEM, saw %s", round, strerror(error));
		EXPECT_ERRNO(race.error, 0);
		hgm_now_empty(&area, 0, hgm_huge);
		EXPECT_EQ(hgm_kpagecount(area.head[0]), 1);
		EXPECT_EQ(hgm_status_kb("HugetlbPages"), area.hugetlb_kb);
		hgm_area_remap(&area);
	}
	hgm_thread_join(race.thread);
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

static void move_punch(struct race *race)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	race->error = fallocate(race->area->fd, mode, 0, hgm_huge) ? errno : 0;
}

HGM_CASE(against_punch, "a collapse while its page is punched out of the file leaves the page unmapped everywhere and "
	 "back in the pool: a collapse holds the page lock, or finds no page [fs/hugetlbfs/inode.c:remove_inode_hugepages]",
	 .deadline_s = 180)
{
	struct hgm_area area;
	/* Each round clears a new huge page. */
	struct race race = { .area = &area, .move = move_punch, .rounds = hgm_huge > 1 << 28 ? 4 : 300 };
	long free_before;

	hgm_area_open(&area, 1, 0);
	free_before = hgm_pool("free");
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		uint64_t old = area.head[0];

		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		EXPECT_ERRNO(race.error, 0);
		hgm_now_empty(&area, 0, hgm_huge);
		EXPECT_EQ(hgm_present(area.primary, hgm_huge) + hgm_present(area.alias, hgm_huge), 0);
		EXPECT_EQ(hgm_kpagecount(old), 0);
		EXPECT_EQ(hgm_pool("free"), free_before + 1);
		/* A new page for the next round: the file's first touch after the hole. */
		EXPECT_EQ(*(volatile uint64_t *)area.alias, 0);
		area.head[0] = hgm_pfn(area.alias);
	}
	hgm_thread_join(race.thread);
	EXPECT_EQ(hgm_kpagecount(area.head[0]), 1);
}

static void move_fork(struct race *race)
{
	struct hgm_child child;

	if (hgm_fork(&child)) {
		hgm_expect_tag(race->area->primary + race->offset, race->offset / hgm_base);
		hgm_child_done();
	}
	hgm_join(&child);
}

HGM_CASE(against_fork, "a collapse while the process forks: the child reads the right piece, the parent has one leaf, "
	 "and after the child only the parent counts [mm/memory.c:vma_needs_copy]", .deadline_s = 240)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_fork, .rounds = 60 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
}

/* Writes a number to the chosen piece and reads it back through the other mapping, until told to stop. */
struct writer {
	struct hgm_area *area;
	size_t offset;
	volatile bool done;
	volatile unsigned long writes;
};

static void *write_on(void *argument)
{
	struct writer *writer = argument;
	volatile uint64_t *here = (uint64_t *)(writer->area->primary + writer->offset) + 1;
	volatile uint64_t *there = (uint64_t *)(writer->area->alias + writer->offset) + 1;

	while (!writer->done) {
		unsigned long number = writer->writes + 1;

		*here = number;
		if (*there != number)
			HGM_FAIL("write %lu to base page %zu: saw %llu through the other mapping", number,
				 writer->offset / hgm_base, (unsigned long long)*there);
		writer->writes = number;
	}
	return NULL;
}

HGM_CASE(against_writers, "a writer to a mapped piece loses no write and writes nowhere else while the pieces around "
	 "it are collapsed, step by step [PATCH v2 patch 34; TLB flush before the leaf]", .deadline_s = 180)
{
	struct hgm_area area;
	const size_t *sizes = hgm_piece_sizes();
	size_t near = hgm_huge / hgm_base < 512 ? hgm_huge / hgm_base : 512;

	hgm_area_open(&area, 1, 0);
	for (int round = 0; round < 30; round++) {
		struct writer writer = { .area = &area, .offset = hgm_random(near) * hgm_base };
		pthread_t thread;
		size_t count = 0;

		hgm_continue(&area, writer.offset, hgm_base);
		hgm_thread_start(&thread, write_on, &writer);
		while (sizes[count])
			count++;
		/* From the second smallest size up to the page itself, around the place that is written to. */
		while (count--) {
			size_t step = count ? sizes[count - 1] : hgm_huge;
			unsigned long seen = writer.writes;

			while (writer.writes == seen)
				sched_yield();
			hgm_collapse(&area, writer.offset - writer.offset % step, step);
		}
		writer.done = true;
		hgm_thread_join(thread);
		EXPECT_EQ(((uint64_t *)(area.alias + writer.offset))[1], writer.writes);
		EXPECT_EQ(hgm_pfn(area.primary + writer.offset), area.head[0] + writer.offset / hgm_base);
		EXPECT_EQ(hgm_kpagecount(area.head[0]), 1 + hgm_mapcount_share(&area, 0, writer.offset / hgm_base));
		((uint64_t *)(area.alias + writer.offset))[1] = 0;
		drop(&area);
	}
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}
