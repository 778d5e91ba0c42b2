"""Steps that find out how fast Kiln is, alone and beside its peers."""

import json
import os
import re
import shutil
import sys
import time

from programs import TimedOut, reason_of

from .record import ROOT, Failed, Incomplete, Record, Skipped

STEPS = 9380  # of the textbook job
# More runs than any device trains at once: a run takes eight blocks or more, and a block most of a multiprocessor's shared memory.
RUNS_MANY = 64
# Devices whose blocks may have 160 KiB of shared memory and more.
ROOMY = (80, 90, 100, 103)
# Runs a peer for ten seeds in one process: Python and PyTorch take longer to start than the job.
SEEDS = """
import runpy, sys
script, *flags = sys.argv[1:]
for seed in range(10):
    sys.argv = [script, *flags, "--seed", str(seed)]
    runpy.run_path(script, run_name="__main__")
"""


class Speed(Record):
    """Times of training on each engine, and beside PyTorch, JAX and cuBLASLt."""

    def phases(self, precision: str, *more: str) -> dict:
        self.gpu_alone()
        profile = json.loads(self.kiln("profile", "--json", "--precision", precision, "--epochs", 2, *more))
        shares = ", ".join(f"{phase['phase']} {phase['cycles']:.0f}" for phase in profile["phases"])
        return {"us_per_step": round(profile["ns_per_step"] / 1000, 3), "profile": profile, "result": f"cycles: {shares}"}

    def bench(self, *flags: object, rounds: int = 3) -> dict:
        """Kiln beside its peers, alternating. One round is a result; fewer, or no peer, are not."""
        out = self.work / "bench"
        shutil.rmtree(out, ignore_errors=True)
        line = [ROOT / "scripts" / "bench", "--device", "cuda", "--kiln", self.bin / "kiln", "--out", out, "--limit", 900 if self.dry else 60]
        line += flags
        if self.dry:
            rounds, line = 1, [*line, "--epochs", 1, "--batch", 8192, "--hidden", 8, "--only", "kiln-graph"]
        elif not self.packages("torch", "jax"):
            raise Skipped(f"{sys.executable} has neither PyTorch nor JAX")
        try:
            done = self.run([*line, "--rounds", rounds, "--python", sys.executable], 150)
            told = reason_of(done)
        except (TimedOut, Incomplete) as error:  # the runs that were made are written
            told = str(error)
        if not (out / "bench.json").exists():
            raise RuntimeError(told)
        bench = json.loads((out / "bench.json").read_text(encoding="utf-8"))
        return benched(bench, rounds, told, alone=self.dry)

    def large(self, *flags: object) -> dict:
        """A model that is all products, beside cuBLASLt and PyTorch."""
        self.gpu_alone()
        return self.bench(*flags)

    def ladder(self) -> dict:
        """The rungs of kernels/ladder beside the resident engine, on a model that takes them all and on the textbook job's."""
        text = self.output("ladder", "--json", *(["--quick"] if self.dry else []), limit_s=60)
        rows = [json.loads(line) for line in text.splitlines()][1:]
        return {"rows": rows, "result": ladder_of(rows, self.capability())}

    def places(self) -> dict:
        """How many runs the device trains at once: the engine says it of a sweep of more."""
        self.gpu_alone()
        text = self.kiln("sweep", "--engine", "resident", "--seeds", f"0..{RUNS_MANY}", "--epochs", 1, "--out", self.work / "sweep")
        found = re.search(r"^Engine: (.* (\d+) train at once.*)$", text, re.MULTILINE)
        if not found:
            raise RuntimeError("kiln sweep does not say how many runs train at once")
        return {"at_once": int(found[2]), "result": found[1]}

    def counts(self) -> list[int]:
        """Runs of the sweeps: one, twice as many and so on up to what the device trains at once, and ten for their accuracies."""
        most = self.found("runs at once").get("at_once", 16)
        return sorted({1, 10, most, *(2**power for power in range(most.bit_length()))})

    def runs(self, count: int) -> dict:
        """Runs side by side: time on the GPU beside that of one run, and the spread of accuracy."""
        self.gpu_alone()
        started = time.monotonic()
        text = self.kiln("sweep", "--json", "--engine", "resident", "--seeds", f"0..{count}", "--out", self.work / "sweep")
        figures = {"runs": count, "wall_s": round(time.monotonic() - started, 2), **swept(text)}
        shown = [f"{figures['wall_s']:.2f} s of the command", f"accuracies {figures['accuracies'][0]} to {figures['accuracies'][-1]}"]
        if figures["device_s"] and count <= self.found("runs at once").get("at_once", count):
            alone = figures["device_s"] if count == 1 else self.found("sweep, 1 runs").get("device_s")
            figures["times_one_run"] = figures["device_s"] / alone if alone else None
            shown.insert(0, f"{1000 * figures['device_s']:.2f} ms on the GPU" + (f", {figures['times_one_run']:.3f} times one run" if alone else ""))
        step_us = self.found("MNIST, ten epochs, resident, f32").get("device_us_per_step")
        if count == 1 and figures["device_s"] and step_us:
            figures["launch_an_epoch_ratio"] = step_us * STEPS / 1e6 / figures["device_s"]
            shown.append(f"a launch an epoch takes {figures['launch_an_epoch_ratio']:.3f} times as long")
        return {**figures, "result": "; ".join(shown)}

    def seeds(self) -> dict:
        """Accuracies of PyTorch for ten seeds, beside those of the sweep of ten runs."""
        self.gpu_alone()
        if not self.packages("torch"):
            raise Skipped(f"{sys.executable} has no PyTorch")
        peers = ROOT / "benches" / "peers"
        line = [sys.executable, "-c", SEEDS, peers / "torch_resident.py", "--device", "cuda", "--data-dir", self.data]
        path = os.pathsep.join([str(peers), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = self.run(line, 90, PYTHONPATH=path)
        if done.returncode != 0:
            raise RuntimeError(reason_of(done))
        torch = sorted(json.loads(line)["test_accuracy"] for line in done.stdout.splitlines() if line.startswith("{"))
        if len(torch) != 10:
            raise RuntimeError(f"{len(torch)} of ten seeds have a result")
        found = {"torch": torch, "kiln": self.found("sweep, 10 runs").get("accuracies")}
        shown = [f"{name} {of[0]:.4f} to {of[-1]:.4f}, mean {sum(of) / len(of):.4f}" for name, of in found.items() if of]
        return {**found, "result": "; ".join(shown)}

    def sweep(self, batch: int, layers: str, precision: str) -> dict:
        # An epoch of large batches is some steps alone.
        epochs = 1 if self.dry else 3 if batch < 1000 else 10
        if self.dry:
            layers = "784,8,10"
        found = self.train("--engine", "graph", "--precision", precision, "--batch", batch, "--layers", layers, "--epochs", epochs)
        sizes = [int(n) for n in layers.split(",")]
        products = sum(a * b for a, b in zip(sizes, sizes[1:]))
        flops = 2 * batch * (3 * products - sizes[0] * sizes[1])
        found["tflops"] = round(flops / found["us_per_step"] / 1e6, 3)
        return found

    def choices(self, question: str) -> dict:
        """What the engines choose by, and which other choice was faster on which job."""
        quick = ["--quick"] if self.dry else []
        text = self.output("choices", "--json", "--only", question, *quick, limit_s=120)
        rows = [json.loads(line) for line in text.splitlines()][1:]
        # What the resident engine is not made for is no fault; an error of the device is one of all that follow it.
        wrong = [row for row in rows if row["error"] and not row["error"].startswith("resident engine:")]
        if wrong:
            raise Failed("; ".join(f"{row['job']}, {row['variant']}: {row['error']}" for row in wrong), rows=rows)
        faster = [f"{row['job']}: {row['variant']} {row['ratio']:.2f}" for row in rows if row["ratio"] and row["ratio"] < 0.95]
        return {"rows": rows, "result": f"{len(rows)} variants; faster than as chosen: {'; '.join(faster) or 'none'}"}


def ladder_of(rows: list[dict], capability: int) -> str:
    """What the bench of the ladder has measured, model by model. The last model is one that every rung takes on devices with room for it."""
    models = list(dict.fromkeys(row["model"] for row in rows))

    def may_miss(row: dict) -> bool:
        if row["error"].startswith("needs clusters"):
            return capability < 90
        small = row["model"] != models[-1] or capability not in ROOMY
        return small and re.match(r"needs \d+ bytes of shared memory|resident engine:", row["error"]) is not None

    wrong = [row for row in rows if row["error"] and not may_miss(row)]
    if wrong:
        raise RuntimeError("; ".join(f"{row['model']}, {row['variant']}: {row['error']}" for row in wrong))

    def shown(row: dict) -> str:
        if row["error"]:
            return f"{row['variant']}: {row['error']}"
        return f"{row['variant']} {row['us_per_step']:.2f}" + ("" if row["ratio"] is None else f" (x {row['ratio']:.2f})")

    return "; ".join(f"{model}, µs a step: " + ", ".join(shown(row) for row in rows if row["model"] == model) for model in models)


def swept(text: str) -> dict:
    """What the rows of `kiln sweep --json` say. The GPU was busy as long as with the run that took longest, where all train at once."""
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    rows = [event for event in events if event["event"] == "run"]
    lost = [f"run {row['run']}: {row['error']}" for row in rows if row["error"]]
    if lost or not rows:
        raise RuntimeError("; ".join(lost) or "no rows")
    seconds = [row.get("device_seconds") for row in rows]
    device_s = None if None in seconds else max(seconds)
    return {"device_s": device_s, "accuracies": sorted(row["test_accuracy"] for row in rows)}


def benched(bench: dict, rounds: int, told: str, alone: bool = False) -> dict:
    """What a bench.json comes to, where so many rounds were to be made; `told` is what ended it. Kiln may be alone where that was asked for."""
    names = set(bench["names"]) - set(bench["failures"])
    whole = sum(names <= set(found) for found in bench["rounds"])
    shown = [f"{row['name']} {row['ratio']:.2f}" for row in bench["rows"] if row["ratio"] is not None]
    missing = [f"{name}: {reason}" for name, reason in bench["failures"].items()]
    result = f"times {bench['base']}: {', '.join(shown)}" + "".join(f"; {m}" for m in missing)
    lost = [name for name in bench["failures"] if name.startswith("kiln")]
    if lost:
        raise Failed("; ".join(f"{name}: {bench['failures'][name]}" for name in lost), bench=bench)
    if not alone and all(row["name"].startswith("kiln") for row in bench["rows"]):
        raise Incomplete(f"no peer ran: {'; '.join(missing) or told}", bench=bench)
    if whole == 0:
        raise Incomplete(f"no whole round: {told}; {result}", bench=bench)
    return {"bench": bench, "result": result + (f"; {whole} of {rounds} rounds" if whole < rounds else "")}
