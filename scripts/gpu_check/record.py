"""A record of steps on a machine: what each gave, written as it goes, and what all of them use."""

import argparse
import collections
import datetime
import gzip
import hashlib
import importlib.util
import json
import lzma
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

import programs
from programs import TimedOut, reason_of

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
PRECISIONS = ("f32", "tf32", "bf16")
# Steps that others rely on: the one that fills the driver's cache, the one that names the device, and the one whose outputs are compared.
COMPILED, DEVICE, KERNELS, SIMULATOR = "kernels compiled", "kiln doctor", "kernels against float64", "the simulator's outputs"
# What nvidia-smi is asked at the beginning and in the end.
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
# Characters of what a command has printed that are kept where it failed.
PRINTED_MAX = 4000
# What the kernels' tests read from the simulator of an architecture, in the pack.
OUTPUTS = "outputs-{}.tar.xz"


class Skipped(Exception):
    """What a step needs is not there."""


class Failed(RuntimeError):
    """A step has found something wrong; `figures` are what it has all the same."""

    def __init__(self, reason: str, **figures: object) -> None:
        super().__init__(reason)
        self.figures = figures


class Incomplete(Exception):
    """A step has found nothing wrong, but has seen less than it was to see; `figures` are what it has."""

    def __init__(self, reason: str, **figures: object) -> None:
        super().__init__(reason)
        self.figures = figures


class Record:
    """Runs steps, keeps what they gave, and writes it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.pack = args.pack.resolve()
        self.end = time.monotonic() + args.seconds
        self.dry, self.only = args.sim_dry_run, args.only
        self.work = args.work.resolve() / "gpu-check"
        self.bin, self.data, self.outputs = self.work / "bin", self.work / "data", self.work / "outputs"
        self.env = dict(os.environ, KILN_DATA=str(self.data), KILN_GOLDEN=str(GOLDEN), KILN_TEST_GPU="1")
        # Every test opens the device anew: what the driver compiles must be kept, wherever the home folder is.
        self.env.setdefault("CUDA_CACHE_PATH", str(self.work / "cache"))
        # One device, and the same for all: others may be full, or of another kind.
        self.env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self.env.setdefault("CUDA_VISIBLE_DEVICES", "0")
        # The end of what the last command has printed, and how many of each kind did not end.
        self.told, self.endless = "", collections.Counter()
        for folder in (self.bin, self.data, self.outputs):
            shutil.rmtree(folder, ignore_errors=True)
        self.bin.mkdir(parents=True)
        for packed in self.pack.glob("*.xz"):
            if not packed.match(OUTPUTS.format("*")):
                unpack(packed, self.bin / packed.stem, lzma.decompress).chmod(0o755)
        for packed in (self.pack / "data").rglob("*.gz"):
            unpack(packed, self.data / packed.relative_to(self.pack / "data").with_suffix(""), gzip.decompress)
        self.record = {
            "simulated": self.dry,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": (self.pack / "commit").read_text().strip(),
            "host": f"{platform.machine()}, {os.cpu_count()} cores, {platform.release()}",
            "steps": [],
        }
        self.before, self.again = self.earlier(args.continued) if args.continued else ({}, set())

    def earlier(self, path: pathlib.Path) -> tuple[dict[str, dict], set[str]]:
        """The steps of a record that is to go on, by their names, and which are to be made again though they are ok. It keeps its date, by
        which its file is named."""
        before = json.loads(path.read_text(encoding="utf-8"))
        for key in ("commit", "simulated"):
            if before[key] != self.record[key]:
                sys.exit(f"{path}: expected {key} {self.record[key]}, as the pack has it, found {before[key]}")
        self.record["continued"] = [*before.get("continued", []), self.record["date"]]
        self.record |= {key: before[key] for key in ("date", "device") if key in before}
        steps = {step["step"]: step for step in before["steps"]}
        # What lies in files alone is not there any more.
        compared = verdict(steps.get(SIMULATOR, {"ok": False})) in ("ok", "skipped")
        return steps, {COMPILED, DEVICE} if compared else {COMPILED, DEVICE, KERNELS}

    def run(self, line: list, limit_s: float, **more: str) -> subprocess.CompletedProcess:
        """One command, within its limit and what is left of the whole, with more variables in its environment; Incomplete where nothing is."""
        left = self.end - time.monotonic()
        if left < 5:
            raise Incomplete("no time left")
        line = [str(part) for part in line]
        if self.dry:
            line = [str(ROOT / "scripts" / "sim"), *line]
        limit = min(limit_s, left)
        try:
            done = programs.run(line, limit, self.env | more, ROOT)
        except TimedOut as late:
            self.told = end_of(late.out, late.error)
            if left < limit_s:
                raise Incomplete(f"no time left after {limit:.0f} s") from late
            raise
        self.told = end_of(done.stdout, done.stderr)
        return done

    def kiln(self, *arguments: object) -> str:
        """Output of a kiln command. After two that did not end, none of the same kind and engine is run: a third would take the time of other
        steps."""
        engine = arguments[arguments.index("--engine") + 1] if "--engine" in arguments else ""
        kind = f"{arguments[0]} {engine}".strip()
        if self.endless[kind] == 2:
            raise RuntimeError(f"not run: two commands before it did not end: {kind}")
        try:
            return self.output("kiln", *arguments, limit_s=900 if self.dry else 60)
        except TimedOut:
            self.endless[kind] += 1
            raise

    def output(self, program: str, *arguments: object, limit_s: float) -> str:
        """Output of a program of the pack; RuntimeError with the reason where it fails."""
        done = self.run([self.bin / program, *arguments], limit_s)
        if done.returncode != 0:
            raise RuntimeError(reason_of(done))
        return done.stdout

    def step(self, name: str, what) -> None:
        """Runs one step, if it was asked for and has not passed before: `what` gives a dictionary of figures, or raises with the reason
        why there are none, or too few. Where it has not passed, the end of what its last command printed is kept."""
        known = self.before.pop(name, None)
        asked = not self.only or self.only.search(name)
        kept = known and verdict(known) == "ok" and name not in self.again
        if name not in (COMPILED, DEVICE) and (kept or not asked):
            self.record["steps"] += [known] if known else []
            return
        started = time.monotonic()
        entry, self.told = {"step": name, "ok": True}, ""
        try:
            entry.update(what() or {})
        except Skipped as reason:
            entry.update(skipped=True, reason=str(reason))
        except Incomplete as reason:
            entry.update(reason.figures, ok=False, incomplete=True, reason=str(reason))
        except RuntimeError as error:
            entry.update(getattr(error, "figures", {}), ok=False, reason=str(error))
        except Exception as error:  # what a program printed is not what was expected: the other steps go on
            entry.update(ok=False, reason=f"{type(error).__name__}: {error}")
        entry["seconds"] = round(time.monotonic() - started, 2)
        if not entry["ok"] and self.told:
            entry["printed"] = self.told
        self.record["steps"].append(entry)
        print(f"{verdict(entry):>10}  {entry['seconds']:7.1f} s  {name}  {entry.get('reason', '')}", flush=True)
        self.write()

    def found(self, name: str) -> dict:
        """The entry of a step that has passed, or nothing."""
        return next((step for step in self.record["steps"] if step["step"] == name and verdict(step) == "ok"), {})

    def write(self) -> None:
        """Writes the record, where it is known of what device it is."""
        if "gpu" not in self.record:
            return
        path = self.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        # With the steps that are still to be looked at again.
        record = self.record | {"steps": [*self.record["steps"], *self.before.values()]}
        replace(path, json.dumps(record, indent=1) + "\n")
        replace(path.with_suffix(".md"), markdown(record))

    def path(self) -> pathlib.Path:
        """Where it is written."""
        device = "".join(c if c.isalnum() else "-" for c in self.record["device"]).strip("-")
        stem = "simulated" if self.dry else f"{self.record['date'][:10]}-{device}"
        return (self.work if self.dry else self.args.out) / f"{stem}.json"

    def train(self, *arguments: object) -> dict:
        """A training run: engine, epochs and summary of its events, and the hash of the model that it wrote. Its pace is that of the
        median of the epochs after the first, which holds what is done once."""
        out = self.work / "run"
        shutil.rmtree(out, ignore_errors=True)
        text = self.kiln("train", "--json", "--out", out, *arguments)
        events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        [start, *epochs, summary] = events
        steps = summary["steps"] / len(epochs)

        def us_per_step(seconds: list[float]) -> float:
            return round(programs.pace(seconds) * 1e6 / steps, 3)

        return {
            "engine": start["engine"],
            "train_loss": epochs[-1]["train_loss"],
            "test_accuracy": epochs[-1]["test_accuracy"],
            "us_per_step": us_per_step([epoch["seconds"] for epoch in epochs]),
            "first_epoch_s": epochs[0]["seconds"],
            "device_us_per_step": summary.get("device_us_per_step"),
            "wall_us_per_step": us_per_step(summary["epoch_wall_seconds"]),
            "model": parameters(out / "model.safetensors"),
        }

    def device(self) -> dict:
        """What `kiln doctor` says. It names the device, and everything else needs one."""
        done = self.run([self.bin / "kiln", "doctor", "--json"], 900 if self.dry else 200)
        try:
            checks = json.loads(done.stdout)["checks"]
        except ValueError as error:
            raise RuntimeError(reason_of(done)) from error
        report = [f"{check['name']}: {check['verdict']}: {check['detail']}" for check in checks]
        found = next((check["detail"] for check in checks if check["name"] == "device 0" and check["verdict"] == "ok"), None)
        # What trains is the first device, though another would do.
        other = [check for check in checks if check["name"] == "device 0" and check["verdict"] != "ok" and not self.dry]
        wrong = [line for line, check in zip(report, checks) if check["verdict"] == "failed" or check in other]
        wrong = "; ".join(wrong) + ("; CUDA_VISIBLE_DEVICES names another" if other else "")
        if not found:
            raise Failed(wrong or "no device", report=report)
        if ("simulator" in found.lower()) != self.dry:
            sys.exit(f"expected a GPU, found {found!r}" if not self.dry else "the simulator is not in the driver's place")
        name = found.split(",")[0]
        if self.record.setdefault("device", name) != name:
            sys.exit(f"expected {self.record['device']}, as in the record that is to go on, found {name}")
        if not (self.dry or self.args.continued) and self.path().exists():
            sys.exit(f"{self.path()}: there is a record of today: --continue goes on with it, --out names another folder")
        self.record["gpu"] = found
        self.record["nvidia_smi"] = self.smi("name,driver_version,memory.total,clocks.max.sm,power.limit")
        self.record["clocks"] = {"first": self.smi(CLOCKS)}
        if wrong:
            raise Failed(wrong, report=report)
        return {"report": report}

    def smi(self, query: str) -> str | None:
        """What nvidia-smi answers of the device, where it is there. A part of one it does not know by that name."""
        if self.dry or not shutil.which("nvidia-smi"):
            return None
        first = self.env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        of_device = [] if first.startswith("MIG") else ["-i", first]
        try:
            line = ["nvidia-smi", *of_device, f"--query-gpu={query}", "--format=csv,noheader"]
            return subprocess.run(line, capture_output=True, text=True, timeout=30).stdout.strip()
        except subprocess.TimeoutExpired:
            return None

    def small(self) -> list:
        """Flags that make a run short on the simulator, and nothing on a GPU."""
        return ["--epochs", 1, "--layers", "784,8,10", "--batch", 8192] if self.dry else ["--epochs", 1]

    def gpu_alone(self, tool: str | None = None) -> None:
        """Skips a step on the simulator, or where a tool is not there."""
        if self.dry:
            raise Skipped("not on the simulator")
        if tool and not shutil.which(tool):
            raise Skipped(f"{tool} is not on PATH")

    def packages(self, *names: str) -> list[str]:
        """Which of these this Python has."""
        return [name for name in names if importlib.util.find_spec(name)]

    def capability(self) -> int:
        """Of the device: 90 for sm_90."""
        return int(re.search(r" sm_(\d+),", self.record["gpu"])[1])


def unpack(packed: pathlib.Path, to: pathlib.Path, decompress) -> pathlib.Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(decompress(packed.read_bytes()))
    return to


def printed_by(short: Incomplete | TimedOut) -> str:
    """The standard output of a command that had no time to end, where one was under way."""
    late = short if isinstance(short, TimedOut) else short.__cause__
    return late.out if isinstance(late, TimedOut) else ""


def end_of(*texts: str) -> str:
    """The last of what a command has printed."""
    return "\n".join(text[-PRINTED_MAX:] for text in texts if text)


def replace(path: pathlib.Path, text: str) -> None:
    """Writes a file that is whole at any time."""
    beside = path.with_suffix(f"{path.suffix}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def verdict(entry: dict) -> str:
    marks = [mark for mark in ("skipped", "incomplete") if entry.get(mark)]
    return marks[0] if marks else "ok" if entry["ok"] else "FAILED"


def parameters(model: pathlib.Path) -> str:
    """A hash of a model's parameters, without the header before them: it says on what they were trained."""
    data = model.read_bytes()
    header = int.from_bytes(data[:8], "little")
    return hashlib.sha256(data[8 + header :]).hexdigest()[:16]


def markdown(record: dict) -> str:
    title = "Simulated: not a GPU" if record["simulated"] else record.get("device", "unknown device")
    lines = [f"# {title}, {record['date']}", "", f"Commit {record['commit']}. {record['host']}. `scripts/gpu-check`."]
    lines += [f"{name}: {record[key]}" for key, name in (("gpu", "Device"), ("nvidia_smi", "nvidia-smi")) if record.get(key)]
    clocks = record.get("clocks", {})
    lines += [f"{CLOCKS}: first {clocks['first']}; last {clocks.get('last')}"] if clocks.get("first") else []
    lines += ["", "| step | verdict | µs a step | accuracy | what else |", "|---|---|---|---|---|"]
    for step in record["steps"]:
        accuracy = step.get("test_accuracy")
        on_device = step.get("device_us_per_step")
        wall = step.get("wall_us_per_step") or 0
        other = step.get("reason") or (f"{on_device:.3f} µs by the device's clock, {wall:.3f} µs from epoch to epoch" if on_device else "") or step.get("result") or (f"{step['tflops']} TFLOP/s" if "tflops" in step else "")
        shown = f"{100 * accuracy:.2f}%" if accuracy is not None else ""
        lines.append(f"| {step['step']} | {verdict(step)} | {step.get('us_per_step', '')} | {shown} | {other} |")
    return "\n".join(lines) + "\n"
