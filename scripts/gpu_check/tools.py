"""Steps with NVIDIA's tools: compute-sanitizer, ncu and nsys."""

import csv
import re

from programs import TimedOut, reason_of

from .record import GOLDEN, PRECISIONS, ROOT, Incomplete, Record, Skipped, printed_by

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Of the runs for compute-sanitizer, those that come before other tools.
SANITIZED_FIRST = ["graph", "resident, a cluster of sixteen", "resident, a grid"]


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
        try:
            done = self.run(["compute-sanitizer", "--tool", tool, "--error-exitcode", 9, self.bin / "kiln", *command], 60)
        except (Incomplete, TimedOut) as short:  # the tool's time, not kiln's
            told = [line for line in printed_by(short).splitlines() if re.match("=+ (?!COMPUTE-SANITIZER)\\S", line)]
            if told:
                raise RuntimeError(f"{told[0]}; {short}") from short
            raise Incomplete(str(short)) from short
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
        if "Device not supported" in done.stdout:
            raise Skipped("compute-sanitizer does not support this device here")
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}; {'; '.join(summary) or reason_of(done)}")
        if not summary:
            raise RuntimeError("compute-sanitizer gave no summary")
        return {"result": "; ".join(summary)}

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
        """Hardware counters of some launches of a training: time, use of memory and of tensor cores."""
        self.gpu_alone("ncu")
        train = [self.bin / "kiln", "train", *flags, "--epochs", 1, "--out", self.work / "ncu"]
        sections = ["--section", "SpeedOfLight", "--section", "ComputeWorkloadAnalysis"]
        # The clocks as they are everywhere else in the record.
        done = self.run(["ncu", "--clock-control", "none", "--csv", "--page", "raw", *sections, *launches, *train], 90)
        if any(word in done.stdout + done.stderr for word in ("LibraryNotLoaded", "ERR_NVGPUCTRPERM")):
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
        tensor = "pipe_tensor" in name and "pct" in name
        return tensor or name == "gpu__time_duration.sum" or "dram_throughput.avg.pct" in name or name.startswith("sm__throughput.avg.pct")

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
