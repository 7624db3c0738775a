"""What the hunts for seeded bugs came to: a table and its summary."""

import statistics

import fuzz_common as fuzz
from mutants_hunt import MOST_OPS, TESTS, is_reproduced

CONTROL = "(unchanged)"


def median(numbers):
    return statistics.median(numbers) if numbers else 0


def told(hunt):
    if hunt is None:
        return "-"
    text = f"{hunt['seconds']:.1f} s, {hunt['executions']:,}"
    return text if hunt["killed"] else f"quiet ({text})"


def empties(result, kept="hunts"):
    return [hunt for name, hunt in result.get(kept, {}).items() if name.startswith("empty")]


def told_empty(result, kept="hunts"):
    hunts = empties(result, kept)
    if not hunts:
        return "-"
    killed = [h for h in hunts if h["killed"]]
    text = f"{len(killed)} of {len(hunts)}"
    return text + (f", {median([h['seconds'] for h in killed]):.1f} s, {median([h['executions'] for h in killed]):,.0f}" if killed else "")


def told_repro(result):
    repro = result.get("repro")
    if repro is None or repro["ops"] is None:
        return "-" if repro is None else f"NO TEST of {repro['target']}"
    good = (repro["on_mutant"], repro["on_engine"]) == ("fails", "passes")
    verdict = "ok" if good else f"TEST {repro['on_mutant'].upper()} ON THE MUTANT, {repro['on_engine'].upper()} ON THE ENGINE"
    return f"{repro['ops']} ops, {repro['seconds']:.0f} s, {verdict}"


def judged(result):
    """The hunts by those whom the patch's head names: one, or none where fuzzing judges. Of the unchanged tree by all of them."""
    return {name: hunt for name, hunt in result["hunts"].items() if name.startswith(("unit ", "compiler "))}


def told_judges(result):
    hunts = judged(result)
    if len(hunts) > 1:  # of the unchanged tree
        return "quiet, all" if not any(hunt["killed"] for hunt in hunts.values()) else "KILLED"
    return ", ".join(f"{name}: {told(hunt)}" for name, hunt in hunts.items()) or "-"


def is_killed(result):
    """By whom the patch's head names; else from the corpus, or from nothing with every seed."""
    if hunts := judged(result):
        return all(hunt["killed"] for hunt in hunts.values())
    hunts = empties(result)
    return result["hunts"]["corpus"]["killed"] or (bool(hunts) and all(h["killed"] for h in hunts))


def first_how(result):
    return next((hunt["how"] for hunt in result["hunts"].values() if hunt["killed"]), "")


def tell_mutators(mutants, options):
    """From nothing, with the mutator that knows traces and with libFuzzer's own alone: pairs of the same mutant and seed."""
    pairs = [(r["hunts"][name], r["plain"][name]) for r in mutants for name in r.get("plain", {})]
    for told_as, hunts in (("ours", [a for a, _ in pairs]), ("libFuzzer's own", [b for _, b in pairs])):
        seconds = [h["seconds"] if h["killed"] else options.seconds for h in hunts]
        print(f"mutator, {told_as}: {sum(h['killed'] for h in hunts)} of {len(hunts)} hunts from nothing killed, "
              f"median {median(seconds):.2f} s, in all {sum(seconds):.0f} s")


def tell(rows, options):
    head = ["mutant", "judge: s, tests", "corpus: s, runs", "from nothing: seeds, s, runs"]
    if options.ablation:
        head += ["unjudged corpus", "unjudged from nothing"]
    head += [*(TESTS if options.tests else ()), "repro: ops, s, test", "first noticed as"]
    table = [head]
    for name, result in rows:
        row = [name, told_judges(result), told(result["hunts"].get("corpus")), told_empty(result)]
        if options.ablation:
            row += [told(result.get("unjudged", {}).get("corpus")), told_empty(result, "unjudged")]
        table.append([*row, *(told(result["hunts"].get(test)) for test in (TESTS if options.tests else ())), told_repro(result), first_how(result)])
    print()
    fuzz.table(table, right=())
    by_judge = [result for name, result in rows if name != CONTROL and judged(result)]
    if by_judge:
        print(f"\nby the unit test or compiler that its head names: {sum(map(is_killed, by_judge))} of {len(by_judge)} killed")
    mutants = [result for name, result in rows if name in options.hunted - {CONTROL}]
    if not mutants:
        return
    from_corpus = [r["hunts"]["corpus"] for r in mutants if r["hunts"]["corpus"]["killed"]]
    print(f"\nfrom the corpus: {len(from_corpus)} of {len(mutants)} killed, median {median([h['seconds'] for h in from_corpus]):.2f} s")
    seeds = max((len(empties(r)) for r in mutants), default=0)
    for seed in range(1, seeds + 1):
        hunts = [r["hunts"].get(f"empty {seed}") for r in mutants]
        killed = [h for h in hunts if h and h["killed"]]
        both = [r for r in mutants if r["hunts"]["corpus"]["killed"] or r["hunts"].get(f"empty {seed}", {}).get("killed")]
        print(f"from nothing, seed {seed}: {len(killed)} of {len(mutants)} killed, median {median([h['seconds'] for h in killed]):.2f} s; "
              f"with the corpus {len(both)}")
    if options.ablation:
        corpus = [r for r in mutants if r.get("unjudged", {}).get("corpus", {}).get("killed")]
        nothing = [r for r in mutants if any(h["killed"] for h in empties(r, "unjudged"))]
        print(f"without the model (ASan and UBSan only): {len(corpus)} of {len(mutants)} from the corpus, {len(nothing)} from nothing")
    if options.mutators:
        tell_mutators(mutants, options)
    repros = [r["repro"] for r in mutants if r.get("repro")]
    small = [r["ops"] for r in repros if r["ops"] is not None]
    good = [r for r in mutants if is_reproduced(r)]
    print(f"tests by ci/repro.sh: {len(good)} of {len(mutants)} of at most {MOST_OPS} ops, failing on the mutant and passing on the engine; "
          f"ops: median {median(small):g}, most {max(small, default=0)}; time: median {median([r['seconds'] for r in repros]):.0f} s, most {max((r['seconds'] for r in repros), default=0):.0f} s")
