// SPDX-License-Identifier: MIT
/* See hgm.h. Kernel facts are named by file and function of Linux 6.1, or by posted series and patch. */
#include "hgm.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#define FAIL_HERE(...) hgm_fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* How long a thread or a message may take. Far above what an emulated machine needs, below a case's deadline. */
#define PATIENCE_S 40
/* Entries of pagemap, kpagecount and the like read at a time. */
#define BATCH 4096

enum { PASS = 0, FAIL = 1, USAGE = 2, SKIP = 4 };

size_t hgm_base;
size_t hgm_huge;
__thread const char *hgm_here_file;
__thread int hgm_here_line;

static struct hgm_case *cases;
static struct hgm_case *current;
static int current_number;
static bool in_child;
static struct hgm_child to_parent;
static char now_at[256];

/* ---- cases and verdicts ---- */

void hgm_declare(struct hgm_case *declared)
{
	struct hgm_case **end = &cases;

	while (*end)
		end = &(*end)->next;
	*end = declared;
}

_Noreturn static void finish(int status, const char *reason)
{
	/* A child has no result line of its own: its parent reads its exit status. */
	if (!in_child) {
		printf("%sok %d %s%s%s\n", status == FAIL ? "not " : "", current_number, current->name,
		       status == SKIP ? " # SKIP " : "", status == SKIP ? reason : "");
		fflush(stdout);
	}
	_exit(status);
}

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

void hgm_fail_at(const char *file, int line, const char *format, ...)
{
	char message[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	flockfile(stdout);
	if (file == hgm_here_file || !hgm_here_file || strcmp(file, __FILE__))
		printf("# %s:%d: %s\n", file_name(file), line, message);
	else
		printf("# %s:%d: %s (%s:%d)\n", file_name(hgm_here_file), hgm_here_line, message, file_name(file), line);
	if (*now_at)
		printf("# at %s\n", now_at);
	finish(FAIL, "");
}

void hgm_at(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(now_at, sizeof(now_at), format, arguments);
	va_end(arguments);
}

void hgm_skip(const char *format, ...)
{
	char reason[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reason, sizeof(reason), format, arguments);
	va_end(arguments);
	if (in_child)
		FAIL_HERE("a child cannot skip the case: %s", reason);
	finish(SKIP, reason);
}

void hgm_note(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	flockfile(stdout);
	printf("# ");
	vprintf(format, arguments);
	printf("\n");
	funlockfile(stdout);
	va_end(arguments);
}

void hgm_expect_eq_at(const char *file, int line, const char *what, long long seen, long long expected)
{
	if (seen != expected)
		hgm_fail_at(file, line, "%s: expected %lld (0x%llx), saw %lld (0x%llx)", what, expected, expected, seen,
			    seen);
}

static const char *error_name(int error)
{
	const char *name = error ? strerrorname_np(error) : "success";

	return name ? name : "an unknown error";
}

void hgm_expect_errno_at(const char *file, int line, const char *what, int seen, int expected)
{
	if (seen != expected)
		hgm_fail_at(file, line, "%s: expected %s (%d), saw %s (%d)", what, error_name(expected), expected,
			    error_name(seen), seen);
}

/* ---- files of /proc and /sys ---- */

static const char *size_name(size_t size)
{
	static __thread char name[32];
	int shift = size >= 1UL << 30 ? 30 : size >= 1UL << 20 ? 20 : 10;

	snprintf(name, sizeof(name), "%zu%c", size >> shift, shift == 30 ? 'G' : shift == 20 ? 'M' : 'K');
	return name;
}

/* Without stdio, which allocates: VmPTE must not move because it is read. */
static const char *read_file(const char *path)
{
	static __thread char text[16384];
	size_t length = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		FAIL_HERE("%s: %s", path, strerror(errno));
	while ((got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	if (got < 0)
		FAIL_HERE("%s: %s", path, strerror(errno));
	close(fd);
	text[length] = 0;
	return text;
}

long hgm_read_number(const char *path)
{
	const char *text = read_file(path);
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text)
		FAIL_HERE("%s: \"%s\" is no number", path, text);
	return value;
}

void hgm_write_number(const char *path, long value)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", value);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, length) != length)
		FAIL_HERE("writing %ld to %s: %s", value, path, strerror(errno));
	close(fd);
}

long hgm_status_kb(const char *field)
{
	const char *text = read_file("/proc/self/status");
	size_t length = strlen(field);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, field, length) && line[length] == ':')
			return strtol(line + length + 1, NULL, 10);
	FAIL_HERE("/proc/self/status has no %s", field);
}

/* kB of huge pages that smaps shows in a range. */
static long smaps_kb(const void *at, size_t length)
{
	unsigned long start, end, kb;
	bool inside = false;
	char line[512];
	long sum = 0;
	FILE *file = fopen("/proc/self/smaps", "re");

	if (!file)
		FAIL_HERE("/proc/self/smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start >= (uintptr_t)at && end <= (uintptr_t)at + length;
		else if (inside && (sscanf(line, "Shared_Hugetlb: %lu kB", &kb) == 1 ||
				    sscanf(line, "Private_Hugetlb: %lu kB", &kb) == 1))
			sum += kb;
	}
	fclose(file);
	return sum;
}

long hgm_pool(const char *counter)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%zukB/%s_hugepages", hgm_huge >> 10, counter);
	return hgm_read_number(path);
}

void hgm_need_pages_(size_t pages)
{
	long available = hgm_pool("free") - hgm_pool("resv");

	if (available < (long)pages)
		FAIL_HERE("huge page pool of %s has %ld free pages, %zu needed", size_name(hgm_huge), available, pages);
}

/* pagemap is that of the process that opens it, so a child must not use its parent's descriptor. */
static void read_entries(const char *path, uint64_t first, size_t count, uint64_t *entries)
{
	size_t done = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		FAIL_HERE("%s: %s", path, strerror(errno));
	while (done < count) {
		ssize_t got = pread(fd, entries + done, (count - done) * 8, (first + done) * 8);

		if (got <= 0 || got % 8)
			FAIL_HERE("%s: %zd bytes at entry %llu: %s", path, got, (unsigned long long)(first + done),
				  strerror(errno));
		done += got / 8;
	}
	close(fd);
}

void hgm_pagemap_range(const void *at, size_t count, uint64_t *entries)
{
	read_entries("/proc/self/pagemap", (uintptr_t)at / hgm_base, count, entries);
}

uint64_t hgm_pagemap(const void *at)
{
	uint64_t entry;

	hgm_pagemap_range(at, 1, &entry);
	return entry;
}

size_t hgm_present(const void *at, size_t length)
{
	static __thread uint64_t entries[BATCH];
	size_t present = 0, left = length / hgm_base;

	for (const char *next = at; left; ) {
		size_t count = left < BATCH ? left : BATCH;

		hgm_pagemap_range(next, count, entries);
		for (size_t i = 0; i < count; i++)
			present += !!(entries[i] & HGM_PM_PRESENT);
		next += count * hgm_base;
		left -= count;
	}
	return present;
}

uint64_t hgm_pfn_(const void *at)
{
	uint64_t entry = hgm_pagemap(at);

	if (!(entry & HGM_PM_PRESENT))
		FAIL_HERE("pagemap: expected a page at %p, saw none (0x%llx)", at, (unsigned long long)entry);
	if (!(entry & HGM_PM_PFN))
		FAIL_HERE("pagemap hides page frame numbers: CAP_SYS_ADMIN is needed");
	return entry & HGM_PM_PFN;
}

uint64_t hgm_kpagecount(uint64_t pfn)
{
	uint64_t count;

	read_entries("/proc/kpagecount", pfn, 1, &count);
	return count;
}

uint64_t hgm_kpageflags(uint64_t pfn)
{
	uint64_t flags;

	read_entries("/proc/kpageflags", pfn, 1, &flags);
	return flags;
}

void hgm_expect_count_(uint64_t head, unsigned count)
{
	static __thread uint64_t counts[BATCH];
	size_t total = hgm_huge / hgm_base;

	for (size_t first = 0; first < total; first += BATCH) {
		size_t batch = total - first < BATCH ? total - first : BATCH;

		read_entries("/proc/kpagecount", head + first, batch, counts);
		for (size_t i = 0; i < batch; i++)
			if (counts[i] != count)
				FAIL_HERE("kpagecount of base page %zu: expected %u, saw %llu", first + i, count,
					  (unsigned long long)counts[i]);
	}
}

/* ---- mappings and userfaultfd ---- */

static int huge_file(size_t pages)
{
	/* The C library lacks MFD_HUGE_SHIFT; it is the same as that of mmap (include/uapi/linux/memfd.h). */
	int fd = memfd_create("hgm", MFD_CLOEXEC | MFD_HUGETLB | __builtin_ctzl(hgm_huge) << MAP_HUGE_SHIFT);

	if (fd < 0 || ftruncate(fd, pages * hgm_huge))
		FAIL_HERE("a file of %zu huge pages of %s: %s", pages, size_name(hgm_huge), strerror(errno));
	return fd;
}

int hgm_memfd_(size_t pages)
{
	hgm_need_pages_(pages);
	return huge_file(pages);
}

void *hgm_map_(int fd, size_t offset, size_t length, int flags)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, offset);

	if (at == MAP_FAILED)
		FAIL_HERE("mmap of 0x%zx bytes of huge pages of %s: %s", length, size_name(hgm_huge), strerror(errno));
	return at;
}

int hgm_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		FAIL_HERE("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api)) {
		int error = errno;

		close(uffd);
		return -error;
	}
	return uffd;
}

int hgm_try_register(int uffd, void *at, size_t length, uint64_t mode)
{
	struct uffdio_register registration = { .range = { .start = (uintptr_t)at, .len = length }, .mode = mode };

	return ioctl(uffd, UFFDIO_REGISTER, &registration) ? errno : 0;
}

static int try_continue(int uffd, const void *at, size_t length, long long *mapped)
{
	struct uffdio_continue request = { .range = { .start = (uintptr_t)at, .len = length } };
	int error = ioctl(uffd, UFFDIO_CONTINUE, &request) ? errno : 0;

	if (mapped)
		*mapped = request.mapped;
	return error;
}

/* ---- dialect ---- */

uint64_t hgm_uffd_features(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		FAIL_HERE("userfaultfd: %s", strerror(errno));
	close(uffd);
	return api.features;
}

/* Bit 13 means another thing since Linux 6.4 (WP_UNPOPULATED). */
static bool bit_13_is_hgm(void)
{
	struct utsname system;
	int major, minor;

	if (uname(&system) || sscanf(system.release, "%d.%d", &major, &minor) != 2)
		FAIL_HERE("the kernel's release cannot be read");
	return major < 6 || (major == 6 && minor < 4);
}

/*
 * CONTINUE of one base page of a fresh shared mapping, whose page is not in the page cache. A kernel that maps huge pages
 * only refuses the range before it looks for the page: EINVAL (mm/userfaultfd.c:__mcopy_atomic_hugetlb). One that maps
 * base pages goes on to look: EFAULT. Nothing else is an answer that could be mistaken for "no HGM".
 */
static bool takes_base_pages(uint64_t features, bool split, uint64_t mode, int not_now)
{
	int uffd = hgm_uffd(features | UFFD_FEATURE_SIGBUS);
	int fd = huge_file(1);
	char *at;
	int error;

	if (uffd < 0)
		FAIL_HERE("probe for HGM: UFFDIO_API with features 0x%llx: %s", (unsigned long long)features,
			  strerror(-uffd));
	at = hgm_map_(fd, 0, hgm_huge, MAP_SHARED | MAP_NORESERVE);
	if (split && madvise(at, hgm_huge, HGM_MADV_SPLIT))
		FAIL_HERE("probe for HGM: MADV_SPLIT worked once and then not: %s", strerror(errno));
	error = hgm_try_register(uffd, at, hgm_huge, mode);
	if (error)
		FAIL_HERE("probe for HGM: UFFDIO_REGISTER: %s", strerror(error));
	if (mode & UFFDIO_REGISTER_MODE_WP) {
		struct uffdio_writeprotect protect = { .range = { .start = (uintptr_t)at, .len = hgm_huge },
						       .mode = UFFDIO_WRITEPROTECT_MODE_WP };

		if (ioctl(uffd, UFFDIO_WRITEPROTECT, &protect))
			FAIL_HERE("probe for HGM: UFFDIO_WRITEPROTECT: %s", strerror(errno));
	}
	error = try_continue(uffd, at, hgm_base, NULL);
	munmap(at, hgm_huge);
	close(fd);
	close(uffd);
	if (error != EFAULT && error != not_now)
		FAIL_HERE("probe for HGM: CONTINUE of a base page that is not in the page cache: expected EFAULT (HGM) "
			  "or %s (none), saw %s", error_name(not_now), error_name(error));
	return error == EFAULT;
}

static bool takes_madv_split(void)
{
	int fd = huge_file(1);
	void *at;
	int error;

	at = hgm_map_(fd, 0, hgm_huge, MAP_SHARED | MAP_NORESERVE);
	error = madvise(at, hgm_huge, HGM_MADV_SPLIT) ? errno : 0;
	munmap(at, hgm_huge);
	close(fd);
	if (error && error != EINVAL)
		FAIL_HERE("probe for HGM: MADV_SPLIT: expected success (HGM) or EINVAL (none), saw %s",
			  error_name(error));
	return !error;
}

static enum hgm_dialect probe(void)
{
	if (takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS, false, UFFDIO_REGISTER_MODE_MINOR, EINVAL))
		return HGM_RFC1;
	if (takes_madv_split()) {
		if (!takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS, true, UFFDIO_REGISTER_MODE_MINOR, EINVAL))
			FAIL_HERE("probe for HGM: MADV_SPLIT works, yet CONTINUE of a base page is refused");
		/* PATCH v1 takes a write-protect marker for a mapped page: EEXIST. PATCH v2 patch 14 mended that. */
		return takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS, true,
					UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP, EEXIST) ? HGM_V2 : HGM_V1;
	}
	if (hgm_uffd_features() & HGM_FEATURE_MINOR_HUGETLBFS_HGM && bit_13_is_hgm()) {
		if (!takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS | HGM_FEATURE_MINOR_HUGETLBFS_HGM, false,
				      UFFDIO_REGISTER_MODE_MINOR, EINVAL))
			FAIL_HERE("probe for HGM: the kernel has feature bit 13, yet CONTINUE of a base page is refused");
		return HGM_RFC2;
	}
	return HGM_NONE;
}

enum hgm_dialect hgm_dialect(void)
{
	static enum hgm_dialect dialect;
	static bool known;

	if (!known)
		dialect = probe();
	known = true;
	return dialect;
}

void hgm_only_without_hgm(void)
{
	if (hgm_dialect() != HGM_NONE)
		hgm_skip("not applicable: kernel has HGM");
}

/* ---- sizes ---- */

static int larger_first(const void *a, const void *b)
{
	size_t left = *(const size_t *)a, right = *(const size_t *)b;

	return left < right ? 1 : left > right ? -1 : 0;
}

/* Every huge page size the kernel has, largest first, then the base page, then 0. */
static const size_t *all_sizes(void)
{
	static size_t sizes[16];
	struct dirent *entry;
	size_t count = 0;
	DIR *directory;

	if (sizes[0])
		return sizes;
	directory = opendir("/sys/kernel/mm/hugepages");
	if (!directory)
		FAIL_HERE("/sys/kernel/mm/hugepages: %s", strerror(errno));
	while ((entry = readdir(directory)) && count < 14) {
		size_t kilobytes;

		if (sscanf(entry->d_name, "hugepages-%zukB", &kilobytes) == 1)
			sizes[count++] = kilobytes << 10;
	}
	closedir(directory);
	qsort(sizes, count, sizeof(*sizes), larger_first);
	sizes[count] = hgm_base;
	return sizes;
}

const size_t *hgm_piece_sizes(void)
{
	const size_t *size = all_sizes();

	while (*size >= hgm_huge)
		size++;
	return size;
}

size_t hgm_step(size_t offset, size_t length)
{
	for (const size_t *size = all_sizes(); *size; size++)
		if (*size <= hgm_huge && offset % *size == 0 && *size <= length)
			return *size;
	FAIL_HERE("0x%zx bytes at 0x%zx are no multiple of a base page", length, offset);
}

/* What one entry of a page table of the middle level (PMD) maps, and one of the level above (PUD). */
static size_t pmd_size(void)
{
	return hgm_base * (hgm_base / 8);
}

static size_t pud_size(void)
{
	return pmd_size() * (hgm_base / 8);
}

/* ---- the area ---- */

#define PIECES (hgm_huge / hgm_base)

uint64_t hgm_tag(size_t base_page)
{
	return 0x48474d0000000000ULL + (base_page + 1) * 0x100003ULL;
}

static const volatile uint64_t *last_word(const void *page)
{
	return (const volatile uint64_t *)((const char *)page + hgm_base - 8);
}

void hgm_expect_tag_(const void *at, size_t base_page)
{
	uint64_t first = *(const volatile uint64_t *)at, last = *last_word(at), tag = hgm_tag(base_page);

	if (first != tag || last != ~tag)
		FAIL_HERE("content of base page %zu at %p: expected 0x%llx ... 0x%llx, saw 0x%llx ... 0x%llx", base_page,
			  at, (unsigned long long)tag, (unsigned long long)~tag, (unsigned long long)first,
			  (unsigned long long)last);
}

static void write_tags(struct hgm_area *area)
{
	for (size_t i = 0; i < area->length / hgm_base; i++) {
		unsigned char *at = area->alias + i * hgm_base;

		*(volatile uint64_t *)at = hgm_tag(i);
		*(volatile uint64_t *)last_word(at) = ~hgm_tag(i);
	}
}

/*
 * Address space for both mappings and as much again behind them, aligned so that it lies in one page table of the level
 * that maps huge pages.
 */
static unsigned char *reserve(size_t length)
{
	size_t span = hgm_huge;
	unsigned char *at;

	while (span < 4 * length)
		span *= 2;
	at = mmap(NULL, 2 * span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		FAIL_HERE("address space of 0x%zx bytes: %s", 2 * span, strerror(errno));
	return at + (span - (uintptr_t)at % span) % span;
}

static unsigned char *map_at(struct hgm_area *area, unsigned char *at, int flags)
{
	if (mmap(at, area->length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, area->fd, 0) != at)
		FAIL_HERE("mmap of %zu huge pages of %s: %s", area->pages, size_name(hgm_huge), strerror(errno));
	return at;
}

static void expect_pagemap(const struct hgm_area *area, bool told);

static int must_open_uffd(uint64_t features)
{
	int uffd = hgm_uffd(features);

	if (uffd < 0)
		FAIL_HERE("UFFDIO_API with features 0x%llx: %s", (unsigned long long)features, strerror(-uffd));
	return uffd;
}

static void must_register(int uffd, void *at, size_t length)
{
	int error = hgm_try_register(uffd, at, length, UFFDIO_REGISTER_MODE_MINOR);

	if (error)
		FAIL_HERE("UFFDIO_REGISTER for minor faults: %s", strerror(error));
}

int hgm_uffd_for_pieces_(uint64_t features)
{
	return must_open_uffd(features | (hgm_dialect() == HGM_RFC2 ? HGM_FEATURE_MINOR_HUGETLBFS_HGM : 0));
}

void hgm_register_for_pieces_(int uffd, void *at, size_t length)
{
	if ((hgm_dialect() == HGM_V1 || hgm_dialect() == HGM_V2) && madvise(at, length, HGM_MADV_SPLIT))
		FAIL_HERE("MADV_SPLIT: %s", strerror(errno));
	must_register(uffd, at, length);
}

static void register_primary(struct hgm_area *area)
{
	bool hgm = current->needs_hgm && !(area->flags & HGM_PRIVATE);
	uint64_t features = (area->flags & HGM_ROUNDED ? 0 : UFFD_FEATURE_EXACT_ADDRESS) |
			    (area->flags & HGM_MESSAGES ? 0 : UFFD_FEATURE_SIGBUS);

	if (hgm) {
		area->uffd = hgm_uffd_for_pieces_(features);
		hgm_register_for_pieces_(area->uffd, area->primary, area->length);
	} else {
		area->uffd = must_open_uffd(features);
		must_register(area->uffd, area->primary, area->length);
	}
}

void hgm_area_open_(struct hgm_area *area, size_t pages, unsigned flags)
{
	size_t models = pages * PIECES * (sizeof(*area->leaf) + sizeof(*area->outside));
	unsigned char *at;

	*area = (struct hgm_area){ .uffd = -1, .flags = flags, .pages = pages, .length = pages * hgm_huge };
	area->fd = hgm_memfd_(pages);
	area->head = calloc(pages, sizeof(*area->head));
	/* Populated at once, so that its own page tables are not taken for the primary's. */
	area->leaf = mmap(NULL, models, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!area->head || area->leaf == MAP_FAILED)
		FAIL_HERE("no memory");
	area->outside = (void *)(area->leaf + pages * PIECES);
	at = reserve(area->length);
	area->alias = map_at(area, at, MAP_SHARED);
	area->primary = map_at(area, at + area->length,
			       flags & HGM_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED);
	write_tags(area);
	for (size_t page = 0; page < pages; page++)
		area->head[page] = hgm_pfn_(area->alias + page * hgm_huge);
	if (!(flags & HGM_PLAIN))
		register_primary(area);
	/* Twice: reading them the first time touches pages of the library. */
	for (int i = 0; i < 2; i++) {
		expect_pagemap(area, false);
		smaps_kb(area->primary, area->length);
		area->hugetlb_kb = hgm_status_kb("HugetlbPages");
		area->table_kb = hgm_status_kb("VmPTE");
	}
}

void hgm_area_remap_(struct hgm_area *area)
{
	map_at(area, area->alias + area->length, area->flags & HGM_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED);
	area->primary = area->alias + area->length;
	if (area->uffd < 0)
		return;
	close(area->uffd);
	register_primary(area);
}

void hgm_unmap_primary_(struct hgm_area *area)
{
	if (munmap(area->primary, area->length))
		FAIL_HERE("munmap of the primary mapping: %s", strerror(errno));
	hgm_now_empty(area, 0, area->length);
	area->primary = NULL;
}

void hgm_area_close_(struct hgm_area *area)
{
	if (area->primary)
		hgm_unmap_primary_(area);
	if (munmap(area->alias, area->length))
		FAIL_HERE("munmap of the alias mapping: %s", strerror(errno));
	if (area->uffd >= 0)
		close(area->uffd);
	close(area->fd);
	munmap(area->leaf, area->pages * PIECES * (sizeof(*area->leaf) + sizeof(*area->outside)));
	free(area->head);
}

int hgm_try_continue(const struct hgm_area *area, size_t offset, size_t length, long long *mapped)
{
	return try_continue(area->uffd, area->primary + offset, length, mapped);
}

static void set_leaf(struct hgm_area *area, size_t offset, size_t length, size_t size)
{
	for (size_t i = offset / hgm_base; i < (offset + length) / hgm_base; i++)
		area->leaf[i] = size;
}

void hgm_continue_(struct hgm_area *area, size_t offset, size_t length)
{
	long long mapped;
	int error = hgm_try_continue(area, offset, length, &mapped);

	if (error || mapped != (long long)length)
		FAIL_HERE("CONTINUE of 0x%zx bytes at 0x%zx: expected success, saw %s, mapped %lld", length, offset,
			  error_name(error), mapped);
	for (size_t done = 0, step; done < length; done += step) {
		step = hgm_step(offset + done, length - done);
		set_leaf(area, offset + done, step, step);
	}
}

int hgm_try_collapse(const struct hgm_area *area, size_t offset, size_t length)
{
	return madvise(area->primary + offset, length, HGM_MADV_COLLAPSE) ? errno : 0;
}

static size_t largest_leaf(const struct hgm_area *area, size_t offset, size_t length)
{
	size_t largest = 0;

	for (size_t i = offset / hgm_base; i < (offset + length) / hgm_base; i++)
		if (area->leaf[i] > largest)
			largest = area->leaf[i];
	return largest;
}

void hgm_collapse_(struct hgm_area *area, size_t offset, size_t length)
{
	int error = hgm_try_collapse(area, offset, length);

	if (error)
		FAIL_HERE("MADV_COLLAPSE of 0x%zx bytes at 0x%zx: expected success, saw %s", length, offset,
			  error_name(error));
	for (size_t done = 0, step; done < length; done += step) {
		size_t largest;

		step = hgm_step(offset + done, length - done);
		largest = largest_leaf(area, offset + done, step);
		if (largest && largest < step)
			set_leaf(area, offset + done, step, step);
	}
}

void hgm_now_empty(struct hgm_area *area, size_t offset, size_t length)
{
	set_leaf(area, offset, length, 0);
}

void hgm_now_faulted(struct hgm_area *area, size_t offset)
{
	const size_t levels[] = { hgm_huge, pmd_size() };

	for (size_t i = 0; i < 2; i++) {
		size_t start = offset - offset % levels[i];

		if (levels[i] <= hgm_huge && !largest_leaf(area, start, levels[i])) {
			set_leaf(area, start, levels[i], levels[i]);
			return;
		}
	}
	set_leaf(area, offset - offset % hgm_base, hgm_base, hgm_base);
}

/* ---- the area against the kernel ---- */

static void expect_entry(const struct hgm_area *area, size_t i, uint64_t entry)
{
	uint64_t expected = area->head[i / PIECES] + i % PIECES;

	if (!(entry & HGM_PM_PRESENT) != !area->leaf[i])
		FAIL_HERE("pagemap of base page %zu: expected %s, saw 0x%llx", i, area->leaf[i] ? "a page" : "a hole",
			  (unsigned long long)entry);
	if (area->leaf[i] && (entry & HGM_PM_PFN) != expected)
		FAIL_HERE("page frame of base page %zu: expected 0x%llx, saw 0x%llx", i, (unsigned long long)expected,
			  (unsigned long long)(entry & HGM_PM_PFN));
}

#define ELSEWHERE 1 /* of area->outside: a leaf that is not where the first one of its huge page puts it */

/* What pagemap says of base page i, against what the hardware was seen to map. */
static void expect_same_story(const struct hgm_area *area, size_t i, uint64_t entry)
{
	uint64_t seen = entry & HGM_PM_PRESENT ? (entry & HGM_PM_PFN) * hgm_base : 0;

	if (area->outside[i] != ELSEWHERE && seen != area->outside[i])
		FAIL_HERE("the kernel's story differs: pagemap has base page %zu at 0x%llx, the hardware's tables at 0x%llx "
			  "(0: a hole)",
			  i, (unsigned long long)seen, (unsigned long long)area->outside[i]);
}

static void expect_pagemap(const struct hgm_area *area, bool told)
{
	static __thread uint64_t entries[BATCH];
	size_t total = area->pages * PIECES;

	for (size_t first = 0; first < total; first += BATCH) {
		size_t count = total - first < BATCH ? total - first : BATCH;

		hgm_pagemap_range(area->primary + first * hgm_base, count, entries);
		for (size_t i = 0; told && i < count; i++)
			expect_same_story(area, first + i, entries[i]);
		for (size_t i = 0; i < count; i++)
			expect_entry(area, first + i, entries[i]);
	}
}

/* kB of page tables below the level that maps whole huge pages: a table is there where a smaller leaf is. */
static long expected_table_kb(const struct hgm_area *area)
{
	const size_t levels[] = { pud_size(), pmd_size() };
	long tables = 0;

	for (size_t level = 0; level < 2; level++) {
		if (levels[level] > hgm_huge)
			continue;
		for (size_t at = 0; at < area->length; at += levels[level]) {
			size_t largest = largest_leaf(area, at, levels[level]);

			tables += largest && largest < levels[level];
		}
	}
	return tables * (long)(hgm_base >> 10);
}

/* ---- the page tables as the hardware sees them ---- */

#define SHAPE_PORT "hgm.shape" /* harness/image.py */
#define SHAPE_QUESTIONS 40 /* per case: each one stops the machine for some milliseconds */
#define SHAPE_SECONDS 120
#define SHAPE_TEXT 65536

static int shape_port = -1;
static int shape_questions;
static char shape_answer[SHAPE_TEXT], shape_expected[SHAPE_TEXT];

/* The virtio-serial port of the harness. By hand, on a machine of one's own, there is none. */
static void open_shape_port(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *port;

	while (ports && shape_port < 0 && (port = readdir(ports))) {
		char path[320], name[64] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", port->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strcmp(name, SHAPE_PORT "\n")) {
			snprintf(path, sizeof(path), "/dev/%s", port->d_name);
			shape_port = CHECKED(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
		}
		fclose(file);
	}
	if (ports)
		closedir(ports);
	if (shape_port < 0)
		hgm_note("not checked: page tables from outside, since no harness is there to look");
}

/* Stays in user mode, in this address space, with the cookie in a register: by that the harness knows us. */
static void be_seen(uint64_t cookie)
{
	for (int i = 0; i < 20000; i++)
		__asm__ volatile("" : : "r"(cookie));
}

const char *hgm_shape_again_(const void *at, size_t length)
{
	const time_t end = time(NULL) + SHAPE_SECONDS;
	char question[128], begin[32];
	uint64_t cookie;
	size_t got = 0;
	int size;

	if (shape_port < 0)
		return NULL;
	CHECKED(getrandom(&cookie, sizeof(cookie), 0));
	size = snprintf(question, sizeof(question), "shape %llx %llx %zx %zx\n", (unsigned long long)cookie,
			(unsigned long long)(uintptr_t)at, length, hgm_huge);
	if (write(shape_port, question, size) != size)
		FAIL_HERE("the harness's port: %s", strerror(errno));
	while (!got || shape_answer[got - 1] != '\n') {
		ssize_t more;

		be_seen(cookie);
		more = read(shape_port, shape_answer + got, sizeof(shape_answer) - 1 - got);
		if (more < 0 && errno != EAGAIN)
			FAIL_HERE("the harness's port: %s", strerror(errno));
		got += more > 0 ? more : 0;
		if (time(NULL) > end || got == sizeof(shape_answer) - 1)
			FAIL_HERE("the harness does not say how the memory is mapped");
	}
	shape_answer[got - 1] = 0;
	size = snprintf(begin, sizeof(begin), "%llx ", (unsigned long long)cookie);
	if (strncmp(shape_answer, begin, size) || !strncmp(shape_answer + size, "error", 5))
		FAIL_HERE("the harness could not look at the page tables: %s", shape_answer);
	if (!strcmp(shape_answer + size, "long")) {
		hgm_note("not checked: page tables from outside, since there are too many pieces to be told");
		return NULL;
	}
	return shape_answer + size;
}

const char *hgm_shape_(const void *at, size_t length)
{
	if (shape_port >= 0 && shape_questions++ == SHAPE_QUESTIONS)
		hgm_note("not checked: page tables from outside, after the first %d questions", SHAPE_QUESTIONS);
	return shape_questions > SHAPE_QUESTIONS ? NULL : hgm_shape_again_(at, length);
}

/* What an answer tells of the primary; where it lies goes to area->outside. */
struct outside {
	const char *text; /* NULL: nobody can tell */
	long tables, mapped_kb;
};

static struct outside look(const struct hgm_area *area)
{
	struct outside told = { .text = hgm_shape_(area->primary, area->length) };
	char *at = (char *)told.text;

	if (!at)
		return told;
	told.tables = strtol(at + strlen("tables "), &at, 10);
	for (size_t page = 0; page < area->pages; page++) {
		char *mark = strchr(at, '@');
		unsigned long long head;

		at = strchr(at, ':') + 1;
		if (!mark || mark < at)
			FAIL_HERE("the harness answers in words that are not known: %s", told.text);
		head = strtoull(mark + 1, NULL, 16);
		for (size_t i = 0; i < PIECES;) {
			char *word = at + strspn(at, " "), *times = strstr(word, "\u00d7");
			size_t count = times && times < mark ? strtoul(times + 2, NULL, 10) : 0, pieces;
			size_t size = strtoul(word, &at, 10);
			bool elsewhere = at[1] == '!';

			if (!count)
				FAIL_HERE("the harness answers in words that are not known: %s", told.text);
			size <<= *at == 'G' ? 30 : *at == 'M' ? 20 : 10;
			pieces = count * (size < hgm_base ? 1 : size > hgm_huge ? PIECES : size / hgm_base);
			for (size_t k = 0; k < pieces && i < PIECES; k++, i++)
				area->outside[i + page * PIECES] = !size ? 0 : elsewhere ? ELSEWHERE : head + i * hgm_base;
			told.mapped_kb += size ? (long)(pieces * (hgm_base >> 10)) : 0;
			at = strpbrk(times + 2, " @");
		}
		at = mark + 1;
	}
	return told;
}

/* What the harness must see of the primary, in its words (harness/pagetable/shape.py). */
static const char *expected_shape(const struct hgm_area *area)
{
	char *text = shape_expected, *const end = shape_expected + sizeof(shape_expected);

	text += snprintf(text, end - text, "tables %ld;", expected_table_kb(area) / (long)(hgm_base >> 10));
	for (size_t page = 0; page < area->pages; page++) {
		const size_t *leaf = area->leaf + page * PIECES;
		bool mapped = false;

		text += snprintf(text, end - text, "%s %s:", page ? ";" : "", size_name(hgm_huge));
		for (size_t i = 0, run; i < PIECES && end - text > 128; i += run) {
			size_t pieces = leaf[i] ? leaf[i] / hgm_base : 1;

			for (run = 0; i + run < PIECES && leaf[i + run] == leaf[i]; run++)
				;
			mapped |= leaf[i];
			text += snprintf(text, end - text, " %s\u00d7%zu", leaf[i] ? size_name(leaf[i]) : "hole", run / pieces);
		}
		text += snprintf(text, end - text, "@%llx",
				 mapped ? (unsigned long long)area->head[page] * hgm_base : 0ULL);
		if (end - text <= 128)
			return NULL;
	}
	return shape_expected;
}

static struct outside expect_pieces(const struct hgm_area *area)
{
	struct outside told = look(area);
	const char *expected = told.text ? expected_shape(area) : NULL;

	expect_pagemap(area, told.text);
	for (size_t i = 0; i < area->pages * PIECES; i++) {
		if (!area->leaf[i])
			continue;
		hgm_expect_tag_(area->alias + i * hgm_base, i);
		hgm_expect_tag_(area->primary + i * hgm_base, i);
	}
	if (expected && strcmp(told.text, expected))
		FAIL_HERE("page tables of the primary mapping: expected %s, the hardware has %s", expected, told.text);
	return told;
}

void hgm_expect_pieces_(const struct hgm_area *area)
{
	expect_pieces(area);
}

void hgm_expect_tables_(const struct hgm_area *area)
{
	const char *expected = expected_shape(area), *seen = expected ? hgm_shape_(area->primary, area->length) : NULL;

	if (seen && strcmp(seen, expected))
		FAIL_HERE("page tables of the primary mapping: expected %s, the hardware has %s", expected, seen);
}

void hgm_expect_one_entry_(const void *at, bool leaf)
{
	const char *seen = hgm_shape_(at, hgm_huge);
	char expected[128], size[8];

	strcpy(size, size_name(hgm_huge));
	snprintf(expected, sizeof(expected), "tables 0; %s: %s\u00d7%zu@%llx", size, leaf ? size : "hole",
		 leaf ? 1 : PIECES, leaf ? (unsigned long long)hgm_pfn_(at) * hgm_base : 0ULL);
	if (seen && strcmp(seen, expected))
		FAIL_HERE("page tables of a huge page: expected %s, the hardware has %s", expected, seen);
}

/* What the kernel says of the primary, against the model and, where it is known, against the hardware's tables. */
static void expect_kb(const char *what, long seen, long expected, bool told, long outside)
{
	if (told && seen != outside)
		FAIL_HERE("the kernel's story differs: %s of the primary mapping is %ld kB, the hardware's tables have %ld kB",
			  what, seen, outside);
	if (seen != expected)
		FAIL_HERE("%s of the primary mapping: expected %ld kB, saw %ld kB", what, expected, seen);
}

static void expect_counters(const struct hgm_area *area, struct outside told)
{
	long mapped_kb = 0;

	for (size_t i = 0; i < area->pages * PIECES; i++)
		mapped_kb += area->leaf[i] ? hgm_base >> 10 : 0;
	expect_kb("HugetlbPages", hgm_status_kb("HugetlbPages") - area->hugetlb_kb, mapped_kb, told.text, told.mapped_kb);
	expect_kb("VmPTE", hgm_status_kb("VmPTE") - area->table_kb, expected_table_kb(area), told.text,
		  told.tables * (long)(hgm_base >> 10));
	if (told.text)
		expect_kb("smaps", smaps_kb(area->primary, area->length), mapped_kb, true, told.mapped_kb);
}

void hgm_expect_counters_(const struct hgm_area *area)
{
	expect_counters(area, (struct outside){ .text = NULL });
}

unsigned hgm_mapcount_rule(enum hgm_dialect dialect, const size_t *leaf, size_t pieces, size_t piece)
{
	unsigned entries = 0;

	for (size_t i = 0; i < pieces; i += leaf[i] ? leaf[i] / hgm_base : 1)
		entries += !!leaf[i];
	switch (dialect) {
	case HGM_NONE:
	case HGM_RFC1:
		return entries ? 1 : 0;
	case HGM_RFC2:
	case HGM_V1:
		return entries;
	case HGM_V2:
		return leaf[piece] ? 1 : 0;
	}
	FAIL_HERE("unknown dialect");
}

unsigned hgm_mapcount_share(const struct hgm_area *area, size_t page, size_t piece)
{
	return hgm_mapcount_rule(hgm_dialect(), area->leaf + page * PIECES, PIECES, piece);
}

void hgm_expect_mapcount_(const struct hgm_area *area, unsigned others)
{
	static __thread uint64_t counts[BATCH];
	bool each = hgm_dialect() == HGM_V2;

	for (size_t page = 0; page < area->pages; page++) {
		unsigned share = hgm_mapcount_share(area, page, 0);

		if (!each) {
			hgm_expect_count_(area->head[page], others + share);
			continue;
		}
		for (size_t i = 0; i < PIECES; i++) {
			if (i % BATCH == 0)
				read_entries("/proc/kpagecount", area->head[page] + i,
					     PIECES - i < BATCH ? PIECES - i : BATCH, counts);
			share = hgm_mapcount_share(area, page, i);
			if (counts[i % BATCH] != others + share)
				FAIL_HERE("kpagecount of base page %zu of huge page %zu: expected %u, saw %llu", i, page,
					  others + share, (unsigned long long)counts[i % BATCH]);
		}
	}
}

void hgm_expect_shape_(const struct hgm_area *area)
{
	expect_counters(area, expect_pieces(area));
	hgm_expect_mapcount_(area, 1);
}

/* ---- faults ---- */

/* Volatile: the compiler sees nobody between the lines of a probe who would read them. */
static __thread sigjmp_buf *volatile probing;
static __thread volatile int bus_code;
static __thread void *volatile bus_address;
static __thread volatile int bus_shift;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	bus_code = info->si_code;
	bus_address = info->si_addr;
	bus_shift = info->si_addr_lsb;
	if (probing)
		siglongjmp(*probing, 1);
	/* Raised by an access of the case, so nothing of stdio is held by this thread. */
	FAIL_HERE("SIGBUS at %p (si_code %d), where a page was expected", info->si_addr, info->si_code);
}

bool hgm_sigbus(const void *at, int *code, void **address)
{
	sigjmp_buf back;
	volatile bool raised = true;

	if (!sigsetjmp(back, 1)) {
		probing = &back;
		(void)*(const volatile unsigned char *)at;
		raised = false;
	}
	probing = NULL;
	if (code)
		*code = raised ? bus_code : 0;
	if (address)
		*address = raised ? bus_address : NULL;
	return raised;
}

static void on_refusal(int number)
{
	(void)number;
	siglongjmp(*probing, 1);
}

bool hgm_write_refused_(void *at)
{
	const struct sigaction probe = { .sa_handler = on_refusal };
	struct sigaction before;
	sigjmp_buf back;
	volatile bool raised = true;

	/* Only for so long: anywhere else a SIGSEGV is a mistake of the case. */
	if (sigaction(SIGSEGV, &probe, &before))
		FAIL_HERE("%s", strerror(errno));
	if (!sigsetjmp(back, 1)) {
		volatile unsigned char *byte = at;

		probing = &back;
		*byte = *byte;
		raised = false;
	}
	probing = NULL;
	if (sigaction(SIGSEGV, &before, NULL))
		FAIL_HERE("%s", strerror(errno));
	return raised;
}

int hgm_sigbus_shift(void)
{
	return bus_shift;
}

void hgm_expect_holes_(const struct hgm_area *area)
{
	size_t total = area->pages * PIECES, stride = total / 512 ? total / 512 : 1;

	for (size_t i = 0; i < total; i++) {
		unsigned char *at = area->primary + i * hgm_base + i % hgm_base;
		bool edge = i + 1 == total || area->leaf[i + 1] || !i || area->leaf[i - 1] || i % stride == 0;
		void *address;
		int code;

		if (area->leaf[i] || !edge)
			continue;
		if (!hgm_sigbus(at, &code, &address))
			FAIL_HERE("read of base page %zu, a hole: expected SIGBUS, saw a value", i);
		if (code != BUS_ADRERR || address != at)
			FAIL_HERE("SIGBUS of base page %zu: expected si_code %d at %p, saw %d at %p", i, BUS_ADRERR, at,
				  code, address);
	}
}

struct uffd_msg hgm_message_(const struct hgm_area *area)
{
	struct pollfd ready = { .fd = area->uffd, .events = POLLIN };
	struct uffd_msg message;
	int count = poll(&ready, 1, PATIENCE_S * 1000);
	ssize_t got;

	if (count != 1)
		FAIL_HERE("no userfaultfd message in %d s%s%s", PATIENCE_S, count < 0 ? ": " : "",
			  count < 0 ? strerror(errno) : "");
	got = read(area->uffd, &message, sizeof(message));
	if (got != sizeof(message))
		FAIL_HERE("userfaultfd message: %zd bytes: %s", got, got < 0 ? strerror(errno) : "too short");
	if (message.event != UFFD_EVENT_PAGEFAULT)
		FAIL_HERE("userfaultfd message: expected a fault, saw event 0x%x", message.event);
	return message;
}

void hgm_expect_no_message_(const struct hgm_area *area)
{
	struct uffd_msg message;
	ssize_t got = read(area->uffd, &message, sizeof(message));

	if (got >= 0)
		FAIL_HERE("expected no userfaultfd message, saw one for address 0x%llx",
			  (unsigned long long)message.arg.pagefault.address);
	if (errno != EAGAIN)
		FAIL_HERE("userfaultfd message: %s", strerror(errno));
}

void hgm_thread_start_(pthread_t *thread, void *(*body)(void *), void *argument)
{
	int error = pthread_create(thread, NULL, body, argument);

	if (error)
		FAIL_HERE("pthread_create: %s", strerror(error));
}

void hgm_thread_join_(pthread_t thread)
{
	struct timespec until;
	int error;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	error = pthread_timedjoin_np(thread, NULL, &until);
	if (error == ETIMEDOUT)
		FAIL_HERE("a thread is still asleep or busy after %d s", PATIENCE_S);
	if (error)
		FAIL_HERE("pthread_join: %s", strerror(error));
}

static void *read_word(void *argument)
{
	struct hgm_reader *reader = argument;

	reader->value = *reader->at;
	return NULL;
}

void hgm_reader_start_(struct hgm_reader *reader, const void *at)
{
	reader->at = at;
	reader->value = 0;
	hgm_thread_start_(&reader->thread, read_word, reader);
}

uint64_t hgm_reader_join_(struct hgm_reader *reader)
{
	hgm_thread_join_(reader->thread);
	return reader->value;
}

/* ---- children ---- */

bool hgm_fork_(struct hgm_child *child)
{
	int ends[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		FAIL_HERE("socketpair: %s", strerror(errno));
	fflush(stdout);
	child->pid = fork();
	if (child->pid < 0)
		FAIL_HERE("fork: %s", strerror(errno));
	if (child->pid) {
		close(ends[1]);
		child->channel = ends[0];
		return false;
	}
	in_child = true;
	close(ends[0]);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(FAIL);
	child->channel = ends[1];
	to_parent = *child;
	return true;
}

void hgm_child_done(void)
{
	fflush(stdout);
	_exit(PASS);
}

void hgm_tell_(const struct hgm_child *child)
{
	/* Without SIGPIPE: an end that is gone is found by the wait or the join that follows, which can say why. */
	if (send(child->channel, "", 1, MSG_NOSIGNAL) != 1 && errno != EPIPE && errno != ECONNRESET)
		FAIL_HERE("a step could not be told: %s", strerror(errno));
}

void hgm_wait_(const struct hgm_child *child)
{
	struct hgm_child ended = *child;
	char byte;

	if (read(child->channel, &byte, 1) == 1)
		return;
	if (!in_child || child->channel != to_parent.channel)
		hgm_join_(&ended);
	FAIL_HERE("the other process ended before its time");
}

void hgm_join_(struct hgm_child *child)
{
	int status;

	if (waitpid(child->pid, &status, 0) != child->pid)
		FAIL_HERE("waitpid: %s", strerror(errno));
	close(child->channel);
	if (WIFSIGNALED(status))
		FAIL_HERE("a child was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status))
		FAIL_HERE("a child failed (exit status %d)", WEXITSTATUS(status));
}

/* ---- the frame ---- */

int hgm_try_load(const void *at)
{
	int pipes[2], error = 0;

	if (pipe2(pipes, O_CLOEXEC))
		FAIL_HERE("pipe: %s", strerror(errno));
	if (write(pipes[1], at, 8) != 8)
		error = errno;
	close(pipes[0]);
	close(pipes[1]);
	return error;
}

int hgm_try_store(void *at)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), error = 0;

	if (zero < 0)
		FAIL_HERE("/dev/zero: %s", strerror(errno));
	if (read(zero, at, 8) != 8)
		error = errno;
	close(zero);
	return error;
}

size_t hgm_random(size_t bound)
{
	static uint64_t state = 0x9e3779b97f4a7c15ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % bound;
}

static bool about_this_size(const struct hgm_case *declared)
{
	char words[128], *rest = words;

	if (!declared->sizes)
		return true;
	snprintf(words, sizeof(words), "%s", declared->sizes);
	for (char *word; (word = strsep(&rest, " ")); )
		if (!strcmp(word, size_name(hgm_huge)))
			return true;
	return false;
}

_Noreturn static void run(struct hgm_case *declared, int number)
{
	const struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct utsname system;

	current = declared;
	current_number = number;
	if (sigaction(SIGBUS, &action, NULL) || uname(&system))
		FAIL_HERE("%s", strerror(errno));
	if (!about_this_size(declared))
		hgm_skip("not applicable: only about huge pages of %s", declared->sizes);
	if (declared->arch && strcmp(declared->arch, strcmp(system.machine, "aarch64") ? system.machine : "arm64"))
		hgm_skip("not applicable: only about %s", declared->arch);
	const size_t *size = all_sizes();
	while (*size && *size != hgm_huge)
		size++;
	if (!*size || *size == hgm_base)
		FAIL_HERE("the kernel has no huge pages of %s", size_name(hgm_huge));
	/* Asked before anything is counted: what it maps and unmaps may leave a table beside other memory. */
	if (hgm_dialect() == HGM_NONE && declared->needs_hgm)
		hgm_skip("kernel has no HGM");
	open_shape_port();
	/*
	 * Every page of the program and its stack is touched now: a buffer of the library that is first used later may
	 * lie behind a boundary of 2 MiB, and then VmPTE grows by a table that is none of the case's.
	 */
	if (mlockall(MCL_CURRENT) || munlockall())
		FAIL_HERE("mlockall: %s", strerror(errno));
	/* Locking does not reach the pages of the vDSO, which may have a table of their own. */
	time(NULL);
	declared->run();
	if (in_child)
		FAIL_HERE("a child ran into the end of the case");
	finish(PASS, "");
}

/* Each case in a process of its own, so that one that dies leaves the others alone. */
static int run_all(void)
{
	bool failed = false, passed = false;
	int number = 0;

	for (struct hgm_case *declared = cases; declared; declared = declared->next) {
		pid_t pid;
		int status;

		number++;
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			run(declared, number);
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			printf("# fork or waitpid: %s\nnot ok %d %s\n", strerror(errno), number, declared->name);
			failed = true;
		} else if (WIFSIGNALED(status)) {
			printf("# killed by signal %d (%s)\nnot ok %d %s\n", WTERMSIG(status),
			       strsignal(WTERMSIG(status)), number, declared->name);
			failed = true;
		} else {
			failed |= WEXITSTATUS(status) != PASS && WEXITSTATUS(status) != SKIP;
			passed |= WEXITSTATUS(status) == PASS;
		}
	}
	return failed ? FAIL : passed ? PASS : SKIP;
}

static int count_cases(void)
{
	int count = 0;

	for (struct hgm_case *declared = cases; declared; declared = declared->next)
		count++;
	return count;
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [--list | --case NAME] [--huge-page-size BYTES]\n", program);
	return USAGE;
}

static size_t default_huge_page_size(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	size_t kilobytes = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Hugepagesize: %zu kB", &kilobytes) == 1)
			break;
	if (file)
		fclose(file);
	return kilobytes << 10;
}

int main(int argc, char **argv)
{
	const char *wanted = NULL;
	struct hgm_case *declared = cases;

	setvbuf(stdout, NULL, _IOLBF, 0);
	hgm_base = sysconf(_SC_PAGESIZE);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--list") && argc == 2) {
			for (; declared; declared = declared->next)
				printf("%s\t%s\t%s\n", declared->name, declared->needs_hgm ? "hgm" : "stock",
				       declared->claim);
			return PASS;
		} else if (!strcmp(argv[i], "--case") && i + 1 < argc) {
			wanted = argv[++i];
		} else if (!strcmp(argv[i], "--huge-page-size") && i + 1 < argc) {
			char *end;

			hgm_huge = strtoull(argv[++i], &end, 0);
			if (*end || !hgm_huge || hgm_huge & (hgm_huge - 1))
				return usage(argv[0]);
		} else {
			return usage(argv[0]);
		}
	}
	if (!hgm_huge)
		hgm_huge = default_huge_page_size();
	if (!hgm_huge) {
		fprintf(stderr, "%s: /proc/meminfo has no huge page size; give --huge-page-size\n", argv[0]);
		return USAGE;
	}
	while (wanted && declared && strcmp(declared->name, wanted))
		declared = declared->next;
	if (!declared) {
		fprintf(stderr, "%s: no case is called %s; --list prints them\n", argv[0], wanted ? wanted : "anything");
		return USAGE;
	}
	printf("KTAP version 1\n1..%d\n", wanted ? 1 : count_cases());
	if (wanted)
		run(declared, 1);
	return run_all();
}
