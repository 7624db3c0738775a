#!/usr/bin/env python3
"""Plants the bugs of ci/mutants/*.patch one at a time and sees who notices; ci/mutants.sh says how to call it."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mutants_hunt
from fuzz_common import shown
from mutants_hunt import CLEAN, MOST_OPS, build, carry_out, is_reproduced, is_there, keep_clean_engine, try_repro, wanted
from mutants_patches import TREE, WORK, BadPatch, Tree, check_all, judge, list_all, mistake, patches, refresh_all, say
from mutants_tell import CONTROL, is_killed, tell, told, told_empty, told_judges, told_repro

RESULTS = WORK / "results.json"


def load_results():
    try:
        return json.loads(RESULTS.read_text())
    except (OSError, ValueError):
        return {}


def hunt_one(name, patch, tree, result, options, progress):
    """Adds to `result` what is missing in it."""
    def saved():
        return next((h["input"] for h in result["hunts"].values() if h.get("input")), None)

    missing = [hunt for hunt in wanted(name, options) if not is_there(result, hunt)]
    needs_repro = patch is not None and (missing or saved()) and result.get("repro", {}).get("by") != tree.repro_digest
    if not missing and not needs_repro and (patch or CLEAN.is_dir()):
        return False
    (WORK / "logs").mkdir(parents=True, exist_ok=True)
    if patch:
        tree.plant(patch)
    else:
        tree.restore()
    progress("builds")
    started = time.monotonic()
    build(name, options)
    result["build"] = round(time.monotonic() - started, 1)
    if not patch and name in options.hunted:
        keep_clean_engine()
    progress(f"hunted, {len(missing)} hunts")
    carry_out(name, result, missing, progress)
    if needs_repro and saved():
        progress("repro")
        result["repro"] = {**try_repro(name, *saved()), "by": tree.repro_digest}
    return True


def run_all(options):
    known = patches()
    if unknown := [name for name in options.mutant if name not in known]:
        print(f"mutants.sh: unknown mutant '{unknown[0]}'; known: {' '.join(known)}", file=sys.stderr)
        return 2
    chosen = options.mutant or list(known)
    options.judges = {name: [found] if (found := judge(known[name])) else [] for name in chosen}
    options.hunted = {name for name in chosen if not options.judges[name]}
    options.judges[CONTROL] = sorted({found[0] for found in options.judges.values() if found})
    options.hunted |= {CONTROL} if options.hunted else set()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, mutants_hunt.interrupt)
    tree = Tree(TREE)
    results = {} if options.again else load_results()
    rows, bad = [], []
    started = time.monotonic()
    print(f"== mutants: {len(chosen)} in {shown(TREE)}; " +
          (f"{len(options.hunted) - 1} by the corpus, then {options.seeds} times {options.seconds} s from nothing each" if options.hunted else "by their judges"))
    try:
        for i, name in enumerate([CONTROL, *chosen]):
            patch = known.get(name)
            key = tree.key(patch)
            result = results.get(name, {})
            if result.get("key") != key:
                result = results[name] = {"key": key, "hunts": {}}
            try:
                done = not hunt_one(name, patch, tree, result, options, lambda what: say(
                    f"[{i}/{len(chosen)}] {name} {what}, {time.monotonic() - started:.0f} s so far", True))
            except BadPatch as problem:
                say(f"[{i}/{len(chosen)}] {problem}")
                bad.append(name)
                continue
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            rows.append((name, result))
            alarms = [h for kept in ("hunts", "unjudged", "plain") for h, found in result.get(kept, {}).items() if found["killed"]]
            if name == CONTROL:
                verdict = f"KILLED BY {', '.join(alarms)}" if alarms else "quiet, as it should"
            else:
                verdict = "killed" if is_killed(result) else "SURVIVED"
                verdict += f": {told_judges(result)}" if options.judges[name] else f": corpus {told(result['hunts']['corpus'])}; from nothing {told_empty(result)}; repro {told_repro(result)}"
            say(f"[{i}/{len(chosen)}] {name}: {verdict}{' (earlier run)' if done else ''}")
            if name == CONTROL and alarms:
                print(f"\nthe unchanged tree isn't quiet, so no kill would mean anything; logs: {shown(WORK / 'logs')}/")
                return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
    finally:
        tree.restore()

    tell(rows, options)
    survivors = [name for name, result in rows if name != CONTROL and not is_killed(result)]
    for name in survivors:
        print(f"survived: {name}: {mistake(known[name])}\n  {shown(known[name])}")
    without_test = [name for name, result in rows if name in options.hunted - {CONTROL, *survivors} and not is_reproduced(result)]
    for name in without_test:
        print(f"no test of at most {MOST_OPS} ops: {name}: {told_repro(dict(rows)[name])}; {shown(WORK / 'logs')}/{name}.repro.log")
    killed = len([name for name, _ in rows if name != CONTROL]) - len(survivors)
    print(f"\n{killed} mutants killed, {len(survivors)} survived" + (f", {len(bad)} unusable: {' '.join(bad)}" if bad else "") +
          (", interrupted" if mutants_hunt.interrupted.is_set() else ""))
    print(f"more seeds: ci/mutants.sh --seeds {options.seeds + 7}" + ("" if options.ablation else "; without the model: ci/mutants.sh --ablation"))
    if survivors or without_test:
        return 1
    return 130 if mutants_hunt.interrupted.is_set() else 2 if bad else 0


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "list | head" ends quietly
    parser = argparse.ArgumentParser(prog="mutants.sh", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run|list|check|refresh")
    command = commands.add_parser("run")
    command.add_argument("--seconds", type=int, default=60)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--ablation", action="store_true")
    command.add_argument("--mutators", action="store_true")
    command.add_argument("--tests", action="store_true")
    command.add_argument("--again", action="store_true")
    command.add_argument("mutant", nargs="*")
    command.set_defaults(call=run_all)
    for name, call in (("list", list_all), ("check", check_all), ("refresh", refresh_all)):
        commands.add_parser(name).set_defaults(call=call)
    options = parser.parse_args()
    return options.call(options)


if __name__ == "__main__":
    sys.exit(main())
