/* SPDX-License-Identifier: MIT */
/*
 * Sizes, durations and points in time as a person reads them. Part of output.h; integers only, since the hypervisor has
 * no floating point. What is shown is rounded down, so that nothing looks fuller or older than it is.
 */
#include <stdio.h>

#include "shell/output.h"

void out_format_bytes(char text[32], uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned unit = 0;
    unsigned shift;
    unsigned whole, tenths;

    while (unit + 1 < ARRAY_COUNT(units) && bytes >> (10 * (unit + 1)))
        unit++;
    shift = 10 * unit;
    whole = (unsigned)(bytes >> shift);
    tenths = unit ? (unsigned)(bytes >> (shift - 10) & 1023) * 10 >> 10 : 0;
    if (tenths)
        snprintf(text, 32, "%u.%u %s", whole, tenths, units[unit]);
    else
        snprintf(text, 32, "%u %s", whole, units[unit]);
}

void out_format_duration(char text[32], uint64_t ns)
{
    unsigned long long seconds = ns / 1000000000;
    unsigned long long n = ns;

    if (ns < 1000)
        snprintf(text, 32, "%llu ns", n);
    else if (ns < 1000000)
        snprintf(text, 32, "%llu.%llu us", n / 1000, n / 100 % 10);
    else if (ns < 1000000000)
        snprintf(text, 32, "%llu.%llu ms", n / 1000000, n / 100000 % 10);
    else if (seconds < 60)
        snprintf(text, 32, "%llu.%02llu s", seconds, n / 10000000 % 100);
    else if (seconds < 3600)
        snprintf(text, 32, "%llu min %llu s", seconds / 60, seconds % 60);
    else if (seconds < 86400)
        snprintf(text, 32, "%llu h %llu min", seconds / 3600, seconds / 60 % 60);
    else
        snprintf(text, 32, "%llu d %llu h", seconds / 86400, seconds / 3600 % 24);
}

static bool is_leap(uint64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

void out_format_time(char text[32], uint64_t unix_seconds)
{
    static const unsigned month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    const uint64_t days_of_400_years = 146097;
    uint64_t days = MIN(unix_seconds / 86400, 2932896ull); /* 9999-12-31 */
    uint64_t year = 1970 + days / days_of_400_years * 400;
    unsigned clock = (unsigned)(unix_seconds % 86400);
    unsigned month = 0;

    days %= days_of_400_years;
    while (days >= (is_leap(year) ? 366u : 365u)) {
        days -= is_leap(year) ? 366u : 365u;
        year++;
    }
    while (days >= month_days[month] + (month == 1 && is_leap(year))) {
        days -= month_days[month] + (month == 1 && is_leap(year));
        month++;
    }
    snprintf(text, 32, "%04u-%02u-%02uT%02u:%02u:%02uZ", (unsigned)year, month + 1, (unsigned)days + 1, clock / 3600,
             clock / 60 % 60, clock % 60);
}
