#!/usr/bin/env python3
"""Guest accesses by every compiler at every level, against raw memory; ci/compilers.sh says how to call it."""

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import compilers_functions
from fuzz_common import ROOT, shown, table

COMPILERS = ("g++-11", "g++-12", "clang++-19", "clang++-22")
CHUNK = 50  # functions a program
LEAST_FAULTING = 0.3  # of the functions must have met a fault, so that the second exit of an access is judged too
COLD = ["-DGUESTMEM_COLD"]
TOTALS = re.compile(r"^functions (\d+), wrong (\d+), met faults (\d+)$", re.M)


@dataclass(frozen=True)
class Variant:
    """One way to compile the functions, and the library that they are linked with."""
    flags: tuple
    library: tuple = ("-O2",)
    gcc: bool = True
    clang: bool = True
    profile: bool = False  # compiled once more with what a run of the first program measured


def variants():
    found = {}
    for level in ("O0", "Og", "O1", "O2", "O3", "Os"):
        library = ("-Os",) if level == "Os" else ("-O2",)
        found[level] = Variant((f"-{level}",), library)
        found[f"{level}-cold"] = Variant((f"-{level}", *COLD), library)
    for level in ("O2", "Os"):
        flags = (f"-{level}", "-flto")
        found[f"{level}-lto"] = Variant(flags, flags)
        found[f"{level}-lto-cold"] = Variant((*flags, *COLD), flags)
        found[f"{level}-profile"] = Variant((f"-{level}",), profile=True)
        found[f"{level}-coverage"] = Variant((f"-{level}", "--coverage"))
        found[f"{level}-no-exceptions"] = Variant((f"-{level}", "-fno-exceptions"))
        found[f"{level}-haswell"] = Variant((f"-{level}", "-march=haswell", "-ftree-vectorize"))
        for flag in ("fPIC", "fcf-protection", "fno-omit-frame-pointer", "funroll-all-loops", "fno-inline"):
            found[f"{level}-{flag}"] = Variant((f"-{level}", f"-{flag}"), clang=flag != "funroll-all-loops")
        for flag in ("fno-gcse", "fno-tree-ter", "fno-tree-coalesce-vars", "fno-tree-sink"):
            found[f"{level}-{flag}"] = Variant((f"-{level}", f"-{flag}"), clang=False)
    found["Oz"] = Variant(("-Oz",), ("-Os",), gcc=False)
    sanitized = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
    found["asan"] = Variant(sanitized, sanitized)
    sanitized = ("-O1", "-fsanitize=thread")
    found["tsan"] = Variant(sanitized, sanitized)
    sanitized = ("-O1", "-fsanitize=memory")
    found["msan"] = Variant(sanitized, sanitized, gcc=False)
    return found


VARIANTS = variants()


class Failed(Exception):
    pass


def run(command, folder, environment=None):
    done = subprocess.run(command, cwd=folder, env={**os.environ, **(environment or {})}, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    return done.returncode, done.stdout


def build(command, folder):
    status, said = run(command, folder)
    if status != 0:
        raise Failed(f"{shlex.join(map(str, command))}\n{said}")


class Compiler:
    def __init__(self, command, arguments):
        self.command = command
        self.name = Path(command).name
        self.work = Path(arguments.work).resolve() / self.name
        self.version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        self.is_clang = "clang" in self.version
        self.also = shlex.split(arguments.also)
        self.given_library = arguments.library and Path(arguments.library).resolve()
        self.libraries, self.lock = {}, threading.Lock()

    def takes(self, variant):
        return variant.clang if self.is_clang else variant.gcc

    def compile(self, flags):
        linker = ["-fuse-ld=lld"] if self.is_clang and "-flto" in flags else []
        return [self.command, "-std=c++20", "-w", "-pthread", "-I", ROOT / "lib/include", *linker, *flags, *self.also]

    def library(self, flags):
        """What a program is linked with: the given library, or objects of all sources compiled with `flags`."""
        if self.given_library:
            return [self.given_library, f"-Wl,-rpath,{self.given_library.parent}"]
        with self.lock:
            if flags not in self.libraries:
                folder = self.work / ("library" + "".join(flags).replace("=", "-").replace(",", "-"))
                folder.mkdir(parents=True, exist_ok=True)
                trap = ROOT / "lib/src/trap"  # what differs by architecture stands in folders below it
                sources = [source for source in sorted((ROOT / "lib/src").rglob("*"))
                           if source.suffix in (".cc", ".S") and source.parent.parent in (ROOT / "lib/src", trap) and
                           (source.parent.parent != trap or source.parent.name == platform.machine())]
                objects = [folder / f"{source.parent.name}_{source.stem}.o" for source in sources]
                commands = [[*self.compile(flags), "-I", ROOT / "lib/src", "-c", source, "-o", object]
                            for source, object in zip(sources, objects)]
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    list(pool.map(lambda command: build(command, folder), commands))
                self.libraries[flags] = objects
            return self.libraries[flags]


class Program:
    """Some of the functions, one compiler, one variant."""

    def __init__(self, compiler, variant, first, arguments):
        self.compiler, self.variant, self.first = compiler, variant, first
        self.folder = compiler.work / variant / str(first)
        self.count = min(CHUNK, arguments.functions - first)
        self.arguments = arguments
        self.functions = self.wrong = self.faulting = 0
        self.complaint = ""

    def write(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        functions, program = compilers_functions.program(self.arguments.seed, self.first, self.count, self.arguments.function)
        (self.folder / "functions.inc").write_text(functions)
        (self.folder / "program.cc").write_text(program)

    def go(self):
        try:
            self.write()
            variant = VARIANTS[self.variant]
            library = self.compiler.library(variant.library)
            if variant.profile:
                self.build_and_run([*variant.flags, f"-fprofile-generate={self.folder}", "-fprofile-update=atomic"], library)
                measured = self.folder
                if self.compiler.is_clang:
                    measured = self.folder / "merged.profdata"
                    build([self.compiler.command.replace("clang++", "llvm-profdata"), "merge", "-o", measured,
                           *self.folder.glob("*.profraw")], self.folder)
                said = self.build_and_run([*variant.flags, f"-fprofile-use={measured}"], library)
            else:
                said = self.build_and_run(variant.flags, library)
            self.functions, self.wrong, self.faulting = map(int, TOTALS.search(said).groups())
            self.complaint = "".join(line + "\n" for line in said.splitlines() if "with the library" in line)
        except Failed as failure:
            self.complaint = str(failure)
        if not self.complaint:
            shutil.rmtree(self.folder)

    def build_and_run(self, flags, library):
        build([*self.compiler.compile(flags), "-I", ROOT / "lib/test", "-I", ".", "program.cc", "-o", "program", *library, "-ldl"],
              self.folder)
        options = {"ASAN_OPTIONS": "handle_segv=1:handle_sigbus=1:detect_leaks=0"}
        status, said = run(["./program"], self.folder, options)
        if status not in (0, 1) or not TOTALS.search(said):
            raise Failed(f"exit status {status}\n{said}")
        return said

    def explain(self):
        print(f"\n{self.compiler.name}, {self.variant}: functions in {shown(self.folder / 'functions.inc')}")
        for line in self.complaint.splitlines()[:30]:
            print(f"  | {line[:300]}")
        named = re.findall(r"^(\w+)\(", self.complaint, re.M)[:1] if self.functions else []
        print("  replay  " + shlex.join([shown(ROOT / "ci/compilers.sh"), "--compiler", self.compiler.name, "--variant", self.variant,
                                         "--seed", str(self.arguments.seed), "--functions", str(self.arguments.functions),
                                         *(word for name in named for word in ("--function", name))]))


def cell(programs):
    functions, wrong = (sum(getattr(p, name) for p in programs) for name in ("functions", "wrong"))
    broken = sum(1 for p in programs if p.complaint and not p.functions)
    return f"{broken} don't run" if broken else f"{wrong} wrong" if wrong else str(functions)


def judge(arguments):
    pool = ThreadPoolExecutor(arguments.jobs)
    compilers = [Compiler(command, arguments) for command in arguments.compiler]
    chosen = arguments.variant or list(VARIANTS)
    for compiler in compilers:
        print(f"{compiler.name}: {compiler.version}")
    firsts = range(0, arguments.functions, CHUNK)
    if arguments.function:
        wanted = {compilers_functions.number_of(name) for name in arguments.function}
        firsts = [first for first in firsts if any(first <= number < first + CHUNK for number in wanted)]
    began = time.monotonic()
    cells, failed = {}, []
    for compiler in compilers:
        for variant in chosen:
            if not compiler.takes(VARIANTS[variant]):
                cells[compiler, variant] = "-"
                continue
            programs = [Program(compiler, variant, first, arguments) for first in firsts]
            list(pool.map(Program.go, programs))
            cells[compiler, variant] = cell(programs)
            functions, faulting = (sum(getattr(p, name) for p in programs) for name in ("functions", "faulting"))
            print(f"{time.monotonic() - began:6.0f} s  {compiler.name}  {variant}: {cells[compiler, variant]}", flush=True)
            for program in programs:
                if program.complaint:
                    failed.append(program)
                    program.explain()
            if not arguments.function and faulting < LEAST_FAULTING * functions:
                failed.append(None)
                print(f"  only {faulting} of {functions} functions met a fault: the other exit of an access goes unjudged")
    print()
    table([["functions that agree with raw memory", *(c.name for c in compilers)],
           *([variant, *(cells[c, variant] for c in compilers)] for variant in chosen)], right=range(1, len(compilers) + 1))
    agree = sum(1 for c in cells.values() if c.isdigit())
    print(f"\n{agree} of {sum(1 for c in cells.values() if c != '-')} pairs of compiler and variant agree")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", action="append")
    parser.add_argument("--variant", action="append", choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--functions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--function", action="append")
    parser.add_argument("--work", default=ROOT / "build" / "compilers")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--library", help="linked with, instead of the sources compiled anew")
    parser.add_argument("--also", default="", help="more compiler options, as one word")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        table([["variant", "options", "of the library"],
               *([name, " ".join(v.flags) + (" and -fprofile-use" if v.profile else ""), " ".join(v.library)] for name, v in VARIANTS.items())],
              right=())
        return 0
    arguments.compiler = arguments.compiler or list(COMPILERS)
    for command in arguments.compiler:
        if not shutil.which(command):
            parser.error(f"there is no {command}")
    return judge(arguments)


if __name__ == "__main__":
    sys.exit(main())
