"""Steps with NVIDIA's tools: compute-sanitizer, ncu and nsys."""

import csv
import functools
import re

from programs import TimedOut, reason_of

from .record import GOLDEN, PRECISIONS, ROOT, Failed, Incomplete, Record, Skipped, printed_by

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Of the runs for compute-sanitizer, those that come before other tools.
SANITIZED_FIRST = ["graph", "resident, a cluster of sixteen", "resident, a grid"]
# The version from on which a tool no longer reports what is right, or loses track, where mbarriers, clusters, warpgroups or bulk copies are used
# (compute-sanitizer's release notes of 2025.4 to 2026.3).
RIGHT_SINCE = {"racecheck": (2026, 3), "initcheck": (2026, 1)}
# More mbarriers than the resident kernels have, which are set up in a loop: the compiler's count of them, the default, is too small.
MBARRIERS = 16


class Tools(Record):
    """What a tool finds, or counts, in short runs."""

    def sanitizer(self, tool: str, *command: object) -> dict:
        """A command of kiln under one of compute-sanitizer's tools. On the simulator, which checks in its own way, the command alone,
        and once: that the flags and the trajectories are right."""
        if self.dry and tool == SANITIZERS[0] and command[0] == "parity":
            self.kiln(*command)
            return {"result": "the command alone, no compute-sanitizer"}
        self.gpu_alone("compute-sanitizer")
        if "cluster" in command and self.capability() < 90:
            raise Skipped(f"sm_{self.capability()} has no clusters")
        version, options = self.installed_sanitizer
        barriers = ["--num-cuda-barriers", MBARRIERS] if tool in ("racecheck", "synccheck") and "--num-cuda-barriers" in options else []
        shown = {"version": ".".join(map(str, version))} if version else {}
        # On what older ones are known to be wrong about, they find nothing out.
        asynchronous = "resident" in command or command[0] == "train"
        known_wrong = version and asynchronous and version < RIGHT_SINCE.get(tool, version)

        def wrong(reason: str) -> Exception:
            if known_wrong:
                return Incomplete(f"{reason}; compute-sanitizer {shown['version']} is known to report here what is right", **shown)
            return Failed(reason, **shown)

        try:
            done = self.run(["compute-sanitizer", "--tool", tool, *barriers, "--error-exitcode", 9, self.bin / "kiln", *command], 60)
        except (Incomplete, TimedOut) as short:  # the tool's time, not kiln's
            told = [line for line in printed_by(short).splitlines() if re.match("=+ (?!COMPUTE-SANITIZER|Warning)\\S", line)]
            if told:
                raise wrong(f"{told[0]}; {short}") from short
            raise Incomplete(str(short), **shown) from short
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
        if "Device not supported" in done.stdout:
            raise Skipped("compute-sanitizer does not support this device here")
        if "resident engine: blocks: expected room for" in done.stdout + done.stderr:
            raise Skipped("the device has no room for so many blocks")
        found = any(int(count) for line in summary for count in re.findall(r"(\d+) (?:hazard|error|warning)", line))
        if done.returncode == 9 or found:
            raise wrong("; ".join(summary) or f"exit code 9; {reason_of(done)}")
        if done.returncode != 0:
            raise Failed(f"exit code {done.returncode}; {'; '.join(summary) or reason_of(done)}", **shown)
        if not summary:
            raise Failed("compute-sanitizer gave no summary", **shown)
        if "Detected overflow" in done.stdout:
            raise Incomplete(f"compute-sanitizer has lost track of barriers; {'; '.join(summary)}", **shown)
        return {**shown, "result": "; ".join(summary)}

    @functools.cached_property
    def installed_sanitizer(self) -> tuple[tuple[int, ...] | None, str]:
        """Year and number of the compute-sanitizer that is there, if it tells them, and its options."""
        try:
            told, options = (self.run(["compute-sanitizer", flag], 20).stdout for flag in ("--version", "--help"))
        except TimedOut:
            return None, ""
        version = re.search(r"Version (\d+)\.(\d+)", told)
        return version and tuple(map(int, version.groups())), options

    def sanitized(self) -> dict[str, list]:
        """Short runs for compute-sanitizer: every kernel of a step of the graph engine, in each way that steps and data reach the
        device, and the resident one."""
        small, others = GOLDEN / "odd-37-19-5.safetensors", [GOLDEN / f"{name}.safetensors" for name in ("mse-13-32-1", "adamw-23-17-3")]
        captured = ["parity", "--engine", "graph"]
        direct = [*captured, "--submission", "direct"]
        cluster, lower = ["parity", "--engine", "resident", "--team", "cluster", "--blocks"], PRECISIONS[1:]
        # Eight steps. Both products with the first layer's weights have blocks enough for the largest tiles, 34 x 4 of the gradient.
        wide = ["train", "--engine", "graph", "--submission", "direct", "--layers", "784,4352,10", "--batch", 8192, "--epochs", 1]
        wide += ["--out", self.work / "sanitized"]
        return {
            "graph": [*direct, small],
            "graph, mse and AdamW": [*direct, *others],
            "graph, parts of a batch": [*direct, "--micro-batch", 5, small],
            "graph, captured": [*captured, small],
            "graph, streamed": [*captured, "--placement", "streamed", "--chunk-rows", 32, small],
            **{f"graph, {precision}": [*direct, "--precision", precision, small] for precision in lower},
            "resident, a cluster": [*cluster, 8, small],
            "resident, a cluster of sixteen": [*cluster, 16, small],
            **{f"resident, a cluster, {precision}": [*cluster, 8, "--precision", precision, small] for precision in lower},
            "resident, a grid": ["parity", "--engine", "resident", "--team", "grid", "--blocks", 8, small],
            **{f"wide layers, {precision}": [*wide, "--precision", precision] for precision in PRECISIONS},
        }

    def counters(self, launches: list, *flags: object) -> dict:
        """Hardware counters of some launches of a training: time, use of memory and of tensor cores, conflicts of banks."""
        self.gpu_alone("ncu")
        train = [self.bin / "kiln", "train", *flags, "--epochs", 1, "--out", self.work / "ncu"]
        wanted = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis_Tables")
        sections = [flag for section in wanted for flag in ("--section", section)]
        # The clocks as they are everywhere else in the record.
        done = self.run(["ncu", "--clock-control", "none", "--csv", "--page", "raw", *sections, *launches, *train], 90)
        # Not permitted, or another tool, a monitor of the machine as a rule, has them.
        kept_back = ("LibraryNotLoaded", "ERR_NVGPUCTRPERM", "driver resource was unavailable")
        if any(words in done.stdout + done.stderr for words in kept_back):
            raise Skipped("ncu may not read the counters here")
        if done.returncode != 0:
            raise RuntimeError(reason_of(done))
        kernels = counted(done.stdout)
        if not kernels:
            raise RuntimeError("ncu reported no kernel")
        shown = [f"{name} {', '.join(f'{what} {value:.3g}' for what, value in found.items())}" for name, found in kernels.items()]
        return {"kernels": kernels, "result": "; ".join(shown)}

    def ranges(self) -> dict:
        """What nsys sees of some steps."""
        self.gpu_alone("nsys")
        done = self.run([ROOT / "scripts" / "profile"], 120, KILN=str(self.bin / "kiln"))
        if done.returncode != 0:
            raise RuntimeError(reason_of(done))
        found = {}
        for report in ("cuda_gpu_kern_sum", "nvtx_sum"):
            stats = ["nsys", "stats", "--quiet", "--force-export=true", "--format", "csv", "--report", report, ROOT / "target" / "profile" / "kiln.nsys-rep"]
            done = self.run(stats, 60)
            found[report] = [line for line in done.stdout.splitlines() if line.count(",") > 3]
        if not all(len(lines) > 1 for lines in found.values()):
            raise RuntimeError(f"kernels and ranges expected, found {({name: len(lines) for name, lines in found.items()})}")
        return {**found, "result": ", ".join(f"{name}: {len(lines) - 1} rows" for name, lines in found.items())}


def counted(text: str) -> dict:
    """Mean of the counters that matter for each kernel, from ncu's raw page: a line of names, one of units, one a launch."""
    rows = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if len(rows) < 3:
        return {}
    names, units = rows[0], rows[1]

    def matters(name: str) -> bool:
        tensor, conflicts = "pipe_tensor" in name and "pct" in name, "bank_conflicts" in name and "shared" in name and name.endswith(".sum")
        return tensor or conflicts or name == "gpu__time_duration.sum" or "dram_throughput.avg.pct" in name or name.startswith("sm__throughput.avg.pct")

    columns = [at for at, name in enumerate(names) if matters(name)]
    found = {}
    for row in rows[2:]:
        kernel = found.setdefault(row[names.index("Kernel Name")], {})
        for at in columns:
            try:
                value = float(row[at].replace(",", ""))
            except ValueError:
                continue  # n/a on this chip
            kernel.setdefault(f"{names[at]} ({units[at]})", []).append(value)
    return {kernel: {name: sum(values) / len(values) for name, values in of.items()} for kernel, of in found.items()}
