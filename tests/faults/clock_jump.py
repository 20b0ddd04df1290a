"""Sets the time of day a day forward and a year back while the service answers.

    python tests/faults/clock_jump.py

A small library, compiled here and loaded before the others (LD_PRELOAD), adds to CLOCK_REALTIME
what a file says; the machine's own clock stays as it is. Fails where a request fails, where one
waits, or where the log shows that the clock did not jump at all.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fault_server import good_answer, serve

DAY = 86_400
JUMPS = (0, DAY, -365 * DAY, 0)
REQUESTS = 100
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void) {
  int file = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY);
  if (file < 0) abort();
  offset = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  if (offset == MAP_FAILED) abort();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  if (clock == CLOCK_REALTIME && offset) now->tv_sec += *offset;
  return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  (void)zone;
  int failed = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
"""


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("there is no C compiler: nothing was tried")
        return 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jump.c").write_text(SOURCE)
        library = folder / "jump.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "jump.c")]
        subprocess.run([*command, "-ldl"], check=True)
        offset = folder / "offset"
        offset.write_bytes(struct.pack("q", 0))
        slowest = 0.0
        with serve(
            *("--access-log", "--log-format", "json"),
            LD_PRELOAD=str(library),
            CLOCK_OFFSET_FILE=str(offset),
        ) as served:
            before = good_answer(served)
            same = True
            for jump in JUMPS:
                with offset.open("r+b") as stream:
                    stream.write(struct.pack("q", jump))
                for _ in range(REQUESTS):
                    began = time.monotonic()
                    same &= good_answer(served) == before
                    slowest = max(slowest, time.monotonic() - began)
        days = sorted(set(re.findall(r'"time": "(\d{4}-\d\d-\d\d)', served.log)))
    print(
        f"{len(JUMPS) * REQUESTS} requests while the log said {', '.join(days)}: answers "
        f"{'the same' if same else 'others'}, the slowest took {slowest:.2f} s"
    )
    return int(not same or len(days) < 3 or slowest > 30)


if __name__ == "__main__":
    sys.exit(main())
