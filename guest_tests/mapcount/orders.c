// SPDX-License-Identifier: MIT
/* The same few steps in every order, each compared with the rule. */
#include "hgm.h"

#include <fcntl.h>

#define STEPS 6

struct state {
	struct hgm_area area;
	struct hgm_child other; /* a process that has the whole page mapped, if `entered`, or had it, if only `alive` */
	bool alive, entered;
};

struct step {
	const char *name;
	void (*take)(struct state *state);
};

static size_t last_piece(void)
{
	return hgm_huge - hgm_base;
}

static void continue_or_exist(struct hgm_area *area, size_t offset)
{
	if (area->leaf[offset / hgm_base])
		EXPECT_ERRNO(hgm_try_continue(area, offset, hgm_base, NULL), EEXIST);
	else
		hgm_continue(area, offset, hgm_base);
}

static void map_first(struct state *state)
{
	continue_or_exist(&state->area, 0);
}

static void map_last(struct state *state)
{
	continue_or_exist(&state->area, last_piece());
}

static void collapse(struct state *state)
{
	hgm_collapse(&state->area, 0, hgm_huge);
}

static void dontneed(struct state *state)
{
	CHECKED(madvise(state->area.primary, hgm_huge, MADV_DONTNEED));
	hgm_now_empty(&state->area, 0, hgm_huge);
}

static void unmap(struct state *state)
{
	hgm_unmap_primary(&state->area);
	EXPECT_EQ(hgm_kpagecount(state->area.head[0]), 1 + state->entered);
	hgm_area_remap(&state->area);
}

static void enter(struct state *state)
{
	if (hgm_fork(&state->other)) {
		hgm_expect_tag(state->area.alias + last_piece(), last_piece() / hgm_base);
		hgm_tell(&state->other);
		hgm_wait(&state->other);
		hgm_child_done();
	}
	hgm_wait(&state->other);
	state->entered = state->alive = true;
}

static void leave(struct state *state)
{
	if (state->alive) {
		hgm_tell(&state->other);
		hgm_join(&state->other);
	}
	state->entered = state->alive = false;
}

/* The page was taken out of the file, so nobody maps it; the file gets a new one, with the tag of its last piece. */
static void replace_page(struct state *state)
{
	struct hgm_area *area = &state->area;
	size_t i = last_piece() / hgm_base;
	volatile uint64_t *word = (uint64_t *)(area->alias + last_piece());

	EXPECT_EQ(hgm_kpagecount(area->head[0]), 0);
	EXPECT_EQ(hgm_kpagecount(area->head[0] + i), 0);
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), area->hugetlb_kb - (long)(hgm_huge >> 10));
	hgm_now_empty(area, 0, hgm_huge);
	state->entered = false;
	CHECKED(ftruncate(area->fd, area->length));
	EXPECT_EQ(*word, 0);
	*word = hgm_tag(i);
	word[hgm_base / 8 - 1] = ~hgm_tag(i);
	area->head[0] = hgm_pfn(area->alias);
}

static void truncate_file(struct state *state)
{
	CHECKED(ftruncate(state->area.fd, 0));
	replace_page(state);
}

static void punch(struct state *state)
{
	CHECKED(fallocate(state->area.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, hgm_huge));
	replace_page(state);
}

/* The counters, what the last piece shows, and the mapcount of a few base pages, with HVO's aliases (from 64 on). */
static void expect_rule(const struct state *state)
{
	const size_t sample[] = { 0, 3, 100, last_piece() / hgm_base };
	const struct hgm_area *area = &state->area;

	hgm_expect_counters(area);
	if (area->leaf[last_piece() / hgm_base])
		hgm_expect_tag(area->primary + last_piece(), last_piece() / hgm_base);
	for (size_t i = 0; i < sizeof(sample) / sizeof(*sample); i++) {
		size_t piece = sample[i] % (hgm_huge / hgm_base);

		EXPECT_EQ(hgm_kpagecount(area->head[0] + piece),
			  1 + state->entered + hgm_mapcount_share(area, 0, piece));
	}
}

/* Heap's way through all permutations; returns false after the last one. */
static bool permute(struct step *steps, int *counters)
{
	for (int i = 1; i < STEPS; i++) {
		int other = i % 2 ? counters[i] : 0;
		struct step kept = steps[i];

		if (counters[i] >= i) {
			counters[i] = 0;
			continue;
		}
		steps[i] = steps[other];
		steps[other] = kept;
		counters[i]++;
		return true;
	}
	return false;
}

/* Each `stride`th order of the steps. Before it only the alias is mapped, by another process too if asked. */
static void take_in_every_order(struct step *steps, int stride, bool with_other)
{
	struct state state = { .entered = false };
	long free_before = hgm_pool("free");
	int counters[STEPS] = { 0 }, order = 0;

	hgm_area_open(&state.area, 1, 0);
	do {
		if (order++ % stride)
			continue;
		if (with_other)
			enter(&state);
		for (int i = 0; i < STEPS; i++) {
			hgm_at("order %d: step %d of %s, %s, %s, %s, %s, %s", order, i + 1, steps[0].name,
			       steps[1].name, steps[2].name, steps[3].name, steps[4].name, steps[5].name);
			steps[i].take(&state);
			expect_rule(&state);
		}
		leave(&state);
		dontneed(&state);
		expect_rule(&state);
	} while (permute(steps, counters));
	EXPECT_EQ(hgm_present(state.area.primary, hgm_huge), 0);
	hgm_expect_mapcount(&state.area, 1);
	hgm_area_close(&state.area);
	EXPECT_EQ(hgm_pool("free"), free_before);
}

HGM_CASE(every_order, "mapping the first and the last piece, a collapse, MADV_DONTNEED, and a process that comes and "
	 "goes, in all 720 orders (of 1G pages each seventh): the mapcount follows the rule after every step "
	 "[RFC v1 cover]", .deadline_s = 240)
{
	struct step steps[STEPS] = {
		{ "first piece", map_first }, { "last piece", map_last }, { "collapse", collapse },
		{ "dontneed", dontneed }, { "enter", enter }, { "leave", leave },
	};

	/* The model of a gigantic page has 262144 entries, and is looked at after each step. */
	take_in_every_order(steps, hgm_huge > 1 << 28 ? 7 : 1, false);
}

HGM_CASE(every_order_of_ends, "a piece, a collapse, munmap, ftruncate, a punched hole and the exit of another process "
	 "that maps the page, in all 720 orders (of 32M pages each 7th, of larger ones each 149th): what is gone counts "
	 "for nobody, and the pool is full at the end [RFC v1 cover; Peter Xu: truncation left a count behind]",
	 .deadline_s = 240)
{
	struct step steps[STEPS] = {
		{ "last piece", map_last }, { "collapse", collapse }, { "munmap", unmap },
		{ "truncate", truncate_file }, { "punch", punch }, { "exit", leave },
	};

	/* Each order clears two new pages. */
	take_in_every_order(steps, hgm_huge > 1 << 28 ? 149 : hgm_huge > 1 << 24 ? 7 : 1, true);
}
