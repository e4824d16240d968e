// SPDX-License-Identifier: MIT
/* How a case ends. */
#include "inside.h"

#include <stdarg.h>

__thread const char *hgm_here_file;
__thread int hgm_here_line;

static char now_at[256];

void hgm_finish(int status, const char *reason)
{
	/* A child has no result line of its own: its parent reads its exit status. */
	if (!hgm_in_child) {
		printf("%sok %d %s%s%s\n", status == FAIL ? "not " : "", hgm_current_number, hgm_current->name,
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

/* `inner` is the place in the library, for what failed there; nothing else of it is shown. */
_Noreturn static void fail(const char *file, int line, const char *inner, const char *format, va_list arguments)
{
	char message[1024];

	vsnprintf(message, sizeof(message), format, arguments);
	flockfile(stdout);
	printf("# %s:%d: %s%s\n", file_name(file), line, message, inner);
	if (*now_at)
		printf("# at %s\n", now_at);
	hgm_finish(FAIL, "");
}

void hgm_fail_at(const char *file, int line, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fail(file, line, "", format, arguments);
}

void hgm_fail_inside(const char *file, int line, const char *format, ...)
{
	va_list arguments;
	char inner[64];

	va_start(arguments, format);
	if (!hgm_here_file)
		fail(file, line, "", format, arguments);
	snprintf(inner, sizeof(inner), " (%s:%d)", file_name(file), line);
	fail(hgm_here_file, hgm_here_line, inner, format, arguments);
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
	if (hgm_in_child)
		FAIL_HERE("a child cannot skip the case: %s", reason);
	hgm_finish(SKIP, reason);
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

const char *hgm_error_name(int error)
{
	const char *name = error ? strerrorname_np(error) : "success";

	return name ? name : "an unknown error";
}

void hgm_expect_errno_at(const char *file, int line, const char *what, int seen, int expected)
{
	if (seen != expected)
		hgm_fail_at(file, line, "%s: expected %s (%d), saw %s (%d)", what, hgm_error_name(expected), expected,
			    hgm_error_name(seen), seen);
}
