// SPDX-License-Identifier: MIT
#include "hgm.h"

#include <fcntl.h>
#include <getopt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PASS = 0, FAIL = 1, USAGE = 2, SKIP = 4 }; /* as kselftest.h has them */

size_t hgm_base, hgm_huge;

static struct hgm_case *first, **last = &first;
static jmp_buf end_of_case;
static char skip_reason[256];
static bool in_child;

void hgm_declare(struct hgm_case *declared)
{
	*last = declared;
	last = &declared->next;
}

/* ---- verdicts ---- */

void hgm_note(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	printf("# ");
	vprintf(format, values);
	printf("\n");
	va_end(values);
}

void hgm_fail_at(const char *file, int line, const char *format, ...)
{
	const char *name = strrchr(file, '/');
	va_list values;

	va_start(values, format);
	printf("# %s%s:%d: ", in_child ? "child: " : "", name ? name + 1 : file, line);
	vprintf(format, values);
	printf("\n");
	va_end(values);
	if (in_child)
		_exit(FAIL);
	longjmp(end_of_case, FAIL);
}

void hgm_skip(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vsnprintf(skip_reason, sizeof(skip_reason), format, values);
	va_end(values);
	if (in_child)
		HGM_FAIL("a child cannot skip: %s", skip_reason);
	longjmp(end_of_case, SKIP);
}

void hgm_expect_eq_at(const char *file, int line, const char *what, long long seen, long long expected)
{
	if (seen != expected)
		hgm_fail_at(file, line, "%s: expected %lld, saw %lld", what, expected, seen);
}

void hgm_expect_errno_at(const char *file, int line, const char *what, int seen, int expected)
{
	if (seen != expected)
		hgm_fail_at(file, line, "%s: expected %s, saw %s", what, expected ? strerrorname_np(expected) : "success",
			    seen ? strerrorname_np(seen) : "success");
}

/* ---- memory ---- */

int hgm_memfd(size_t pages)
{
	unsigned flags = MFD_HUGETLB | (unsigned)__builtin_ctzl(hgm_huge) << MAP_HUGE_SHIFT;
	int fd = CHECKED(memfd_create("hgm", flags));

	CHECKED(ftruncate(fd, (off_t)(pages * hgm_huge)));
	return fd;
}

void *hgm_map(int fd, size_t length, int flags)
{
	return CHECKED(mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0));
}

int hgm_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int error;

	if (uffd < 0)
		return -errno;
	if (ioctl(uffd, UFFDIO_API, &api) == 0)
		return uffd;
	error = errno;
	close(uffd);
	return -error;
}

int hgm_register(int uffd, void *at, size_t length, uint64_t mode)
{
	struct uffdio_register range = { .range = { (uintptr_t)at, length }, .mode = mode };

	return ioctl(uffd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

uint64_t hgm_tag(size_t base_page)
{
	return 0x48474d0000000000 + base_page;
}

void hgm_area_open(struct hgm_area *area, size_t pages, int flags)
{
	int error;

	area->fd = hgm_memfd(pages);
	area->length = pages * hgm_huge;
	area->alias = hgm_map(area->fd, area->length, MAP_SHARED);
	for (size_t page = 0; page < area->length / hgm_base; page++)
		*(volatile uint64_t *)(area->alias + page * hgm_base) = hgm_tag(page);
	area->head = hgm_pfn(area->alias);
	area->primary = hgm_map(area->fd, area->length, flags);
	area->uffd = hgm_uffd(UFFD_FEATURE_MINOR_HUGETLBFS | UFFD_FEATURE_SIGBUS);
	if (area->uffd < 0)
		HGM_FAIL("userfaultfd: %s", strerror(-area->uffd));
	error = -hgm_register(area->uffd, area->primary, area->length, UFFDIO_REGISTER_MODE_MINOR);
	EXPECT_ERRNO(error, 0);
}

void hgm_area_close(struct hgm_area *area)
{
	CHECKED(munmap(area->primary, area->length));
	CHECKED(munmap(area->alias, area->length));
	CHECKED(close(area->uffd));
	CHECKED(close(area->fd));
}

void hgm_expect_tags(const struct hgm_area *area, size_t offset, size_t length)
{
	for (size_t at = offset; at < offset + length; at += hgm_base) {
		uint64_t seen = *(volatile uint64_t *)(area->primary + at);

		if (seen != hgm_tag(at / hgm_base))
			HGM_FAIL("base page %zu reads %#llx, expected %#llx", at / hgm_base, (unsigned long long)seen,
				 (unsigned long long)hgm_tag(at / hgm_base));
	}
}

int hgm_continue(const struct hgm_area *area, size_t offset, size_t length)
{
	struct uffdio_continue request = { .range = { (uintptr_t)area->primary + offset, length } };

	return ioctl(area->uffd, UFFDIO_CONTINUE, &request) ? errno : 0;
}

int hgm_collapse(const struct hgm_area *area, size_t offset, size_t length)
{
	return madvise(area->primary + offset, length, HGM_MADV_COLLAPSE) ? errno : 0;
}

static sigjmp_buf after_sigbus;

static void on_sigbus(int number)
{
	(void)number;
	siglongjmp(after_sigbus, 1);
}

bool hgm_sigbus(const void *at)
{
	struct sigaction action = { .sa_handler = on_sigbus }, previous;
	volatile bool raised = true;

	CHECKED(sigaction(SIGBUS, &action, &previous));
	if (sigsetjmp(after_sigbus, 1) == 0) {
		(void)*(const volatile unsigned char *)at;
		raised = false;
	}
	CHECKED(sigaction(SIGBUS, &previous, NULL));
	return raised;
}

/* ---- the kernel's dialect ---- */

/*
 * Stock 6.1 answers EINVAL to the CONTINUE of a base page (mm/userfaultfd.c:__mcopy_atomic_hugetlb); RFC v1 maps it;
 * PATCH v1 and v2 want MADV_SPLIT first, which stock answers with EINVAL (mm/madvise.c:madvise_behavior_valid).
 */
bool hgm_present_in_kernel(void)
{
	struct hgm_area area;
	int split, answer;

	hgm_area_open(&area, 1, MAP_SHARED);
	split = madvise(area.primary, area.length, HGM_MADV_SPLIT) ? errno : 0;
	answer = hgm_continue(&area, 0, hgm_base);
	hgm_area_close(&area);
	if (answer && !(answer == EINVAL && split == EINVAL))
		HGM_FAIL("UFFDIO_CONTINUE of one base page: %s, MADV_SPLIT: %s; no posted version answers so",
			 strerror(answer), strerror(split));
	return answer == 0;
}

void hgm_only_without_hgm(void)
{
	if (hgm_present_in_kernel())
		hgm_skip("not applicable: kernel has HGM");
}

/* ---- children ---- */

bool hgm_fork(pid_t *child)
{
	fflush(stdout);
	*child = CHECKED(fork());
	if (*child)
		return false;
	in_child = true;
	CHECKED(prctl(PR_SET_PDEATHSIG, SIGKILL));
	return true;
}

void hgm_child_done(void)
{
	fflush(stdout);
	_exit(PASS);
}

void hgm_join(pid_t child)
{
	int status;

	CHECKED(waitpid(child, &status, 0));
	if (WIFSIGNALED(status))
		HGM_FAIL("the child was killed by signal %d", WTERMSIG(status));
	EXPECT_EQ(WEXITSTATUS(status), PASS);
}

/* ---- what the kernel shows ---- */

static uint64_t entry_of(const char *path, uint64_t number)
{
	int fd = CHECKED(open(path, O_RDONLY | O_CLOEXEC));
	uint64_t entry = 0;

	EXPECT_EQ(pread(fd, &entry, sizeof(entry), (off_t)(number * sizeof(entry))), sizeof(entry));
	CHECKED(close(fd));
	return entry;
}

size_t hgm_present(const void *at, size_t length)
{
	int fd = CHECKED(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	size_t left = length / hgm_base, position = (uintptr_t)at / hgm_base, found = 0;
	uint64_t entries[4096];

	while (left) {
		size_t count = left < 4096 ? left : 4096;

		EXPECT_EQ(pread(fd, entries, count * 8, (off_t)(position * 8)), count * 8);
		for (size_t entry = 0; entry < count; entry++)
			found += entries[entry] >> 63;
		position += count;
		left -= count;
	}
	CHECKED(close(fd));
	return found;
}

uint64_t hgm_pfn(const void *at)
{
	uint64_t entry = entry_of("/proc/self/pagemap", (uintptr_t)at / hgm_base);

	if (!(entry >> 63))
		HGM_FAIL("nothing is mapped at %p", at);
	return entry & ((1ULL << 55) - 1);
}

uint64_t hgm_kpagecount(uint64_t pfn)
{
	return entry_of("/proc/kpagecount", pfn);
}

uint64_t hgm_kpageflags(uint64_t pfn)
{
	return entry_of("/proc/kpageflags", pfn);
}

static long field_of(const char *path, const char *field)
{
	FILE *file = fopen(path, "re");
	size_t length = strlen(field);
	char line[256];
	long value = -1;

	if (!file)
		HGM_FAIL("%s: %s", path, strerror(errno));
	while (value < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, field, length) && line[length] == ':')
			value = strtol(line + length + 1, NULL, 10);
	fclose(file);
	if (value < 0)
		HGM_FAIL("%s has no %s", path, field);
	return value;
}

long hgm_status_kb(const char *field)
{
	return field_of("/proc/self/status", field);
}

/* ---- the frame ---- */

/* setjmp stays out of main, whose variables it would put at risk. */
static __attribute__((noinline)) bool find_default_size(void)
{
	if (setjmp(end_of_case))
		return false;
	hgm_huge = (size_t)field_of("/proc/meminfo", "Hugepagesize") * 1024;
	return true;
}

static __attribute__((noinline)) int run_case(int number, const struct hgm_case *declared)
{
	volatile int result = setjmp(end_of_case);

	if (result == PASS) {
		if (declared->needs_hgm && !hgm_present_in_kernel())
			hgm_skip("kernel has no HGM");
		declared->run();
	}
	printf("%s %d %s", result == FAIL ? "not ok" : "ok", number, declared->name);
	if (result == SKIP)
		printf(" # SKIP %s", skip_reason);
	printf("\n");
	return result;
}

int main(int count, char **words)
{
	static const struct option options[] = { { "case", required_argument, NULL, 'c' },
						 { "huge-page-size", required_argument, NULL, 's' },
						 { "list", no_argument, NULL, 'l' },
						 { NULL, 0, NULL, 0 } };
	const char *name = NULL;
	bool failed = false, ran = false, list = false;
	int planned = 0, number = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	hgm_base = (size_t)sysconf(_SC_PAGESIZE);
	for (int option; (option = getopt_long(count, words, "", options, NULL)) != -1;) {
		if (option == 'c')
			name = optarg;
		else if (option == 's')
			hgm_huge = strtoul(optarg, NULL, 10);
		else if (option == 'l')
			list = true;
		else
			return USAGE;
	}
	for (const struct hgm_case *at = first; at; at = at->next) {
		planned += !name || !strcmp(name, at->name);
		if (list)
			printf("%s: %s\n", at->name, at->claim);
	}
	if (list)
		return PASS;
	if (!planned) {
		fprintf(stderr, "there is no case %s; --list shows them\n", name ? name : "");
		return USAGE;
	}
	printf("KTAP version 1\n1..%d\n", planned);
	if (!hgm_huge && !find_default_size())
		return FAIL;
	for (const struct hgm_case *at = first; at; at = at->next) {
		int result;

		if (name && strcmp(name, at->name))
			continue;
		result = run_case(++number, at);
		failed |= result == FAIL;
		ran |= result == PASS;
	}
	return failed ? FAIL : ran ? PASS : SKIP;
}
