"""What the inputs that a target has found do: the shares that `trace stats` prints at its end."""

import re
import subprocess

from fuzz_common import merged_environment

SHARES = ("useful", "empty")  # operations that move bytes or are refused; operations of length 0, of those that have one
LAST_LINE = re.compile(r"^move bytes or are refused: (\S+), of length 0: (\S+)$", re.M)


def statistics_of(build, target, folder):
    """{share: "12.3%"}; empty where the tool is not built, or takes these inputs for no traces."""
    tool = build / "fuzz" / "trace"
    if target == "trace_codec_fuzzer" or not tool.exists() or not any(folder.iterdir()):
        return {}
    try:
        done = subprocess.run([tool, "stats", folder, f"--target={target}"], env=merged_environment(build, target), stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = LAST_LINE.search(done.stdout)
    return dict(zip(SHARES, found.groups())) if found else {}
