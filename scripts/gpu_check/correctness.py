"""Steps that find out whether Kiln is right on a device."""

import collections.abc
import concurrent.futures
import itertools
import json
import re
import shutil
import subprocess
import tarfile
import time

import programs
from programs import TimedOut, reason_of

from .record import GOLDEN, KERNELS, OUTPUTS, PRECISIONS, ROOT, Failed, Incomplete, Record, Skipped, printed_by

# Parts of the names of tests that are left out, by binary: they set up a device of their own.
LEFT_OUT = {
    "golden": ("made_for_on_sm_80", "on_sm_86", "on_sm_120"),
    "graph": ("data_that_does_not_fit",),
    "resident": ("fifty_schedules", "twenty_schedules", "devices_without_clusters", "takes_several_launches"),
}
# The test of a binary that stands for all on the simulator, where others take minutes.
QUICK = {
    "golden": ("graph_follows_on_tensor_cores",),
    "graph": ("batches_may_change_from_epoch_to_epoch",),
    "reference": ("graph_on_random_models_of_depth_one_to_five",),
    "resident": ("gradients_are_the_hosts_and_change_nothing",),
}

# A line of a test's output.
FAILED = r"^test (\S+) \.\.\. FAILED"


class Correctness(Record):
    """Kernels, trajectories, and models that must be equal."""

    def compiled(self) -> dict:
        """The driver compiles all kernels, and keeps them, those of each precision in a process: one after the other they take minutes
        of one core. What is wrong with one shows again in a step of its own."""
        self.gpu_alone()
        end = min(time.monotonic() + (900 if self.dry else 200), self.end)

        def outcome(precision: str) -> str | None:
            line = [str(self.bin / "kiln"), "doctor", "--json", "--precision", precision]
            left = end - time.monotonic()
            try:
                if left <= 0:
                    raise TimedOut(0, "", "")
                done = programs.run(line, left, self.env, ROOT)
            except TimedOut as error:
                return f"{' '.join(line[1:])}: {error}"
            try:
                checks = json.loads(done.stdout)["checks"]
            except ValueError:
                return f"{' '.join(line[1:])}: {reason_of(done)}"
            # What else is wrong is told of the device.
            kernels = [check for check in checks if check["name"].startswith("kernels")]
            failed = [check["detail"] for check in kernels if check["verdict"] != "ok"]
            if not kernels:
                failed = [check["detail"] for check in checks if check["verdict"] != "ok"] or ["no kernels"]
            return f"{precision}: {'; '.join(failed)}" if failed else None

        # A device that takes one process alone is not shared by three.
        alone = self.smi("compute_mode") == "Exclusive_Process"
        with concurrent.futures.ThreadPoolExecutor(1 if alone else len(PRECISIONS)) as pool:
            try:
                wrong = [outcome for outcome in pool.map(outcome, PRECISIONS) if outcome]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                programs.end_all()
                raise
        if wrong:
            raise (Incomplete if all(": not done after " in one for one in wrong) else RuntimeError)("; ".join(wrong))
        return {"result": f"of {', '.join(PRECISIONS)}"}

    def tests(self, name: str, *filters: str) -> dict:
        """Tests of a binary of the pack: those whose names contain one of the filters, or all. On the simulator a quick one stands for
        them, except for those of the kernels."""
        left_out, quick = LEFT_OUT.get(name, ()), QUICK.get(name, ())
        if self.dry and name == "kernels":
            left_out += ("mutant",)
        lines = self.output(f"test-{name}", "--list", limit_s=30).splitlines()
        listed = [line.removesuffix(": test") for line in lines if line.endswith(": test")]
        unknown = [part for part in (*filters, *left_out, *quick) if not any(part in test for test in listed)]
        if unknown:
            raise RuntimeError(f"no test of {name} is called {', or '.join(unknown)}")
        saved = {}
        if name == "kernels":
            shutil.rmtree(self.outputs, ignore_errors=True)
            saved["KILN_SAVE_OUTPUTS"] = str(self.outputs)
        chosen = filters
        if self.dry and quick:
            chosen = [test for test in quick if not filters or any(part in test for part in filters)]
            if not chosen:
                raise Skipped("takes minutes on the simulator")
        line = [self.bin / f"test-{name}", *chosen, *(f"--skip={part}" for part in left_out), "--test-threads=1"]
        try:
            done = self.run(line, 600 if self.dry else 180, **saved)
        except (Incomplete, TimedOut) as short:
            failed = re.findall(FAILED, printed_by(short), re.MULTILINE)
            if failed:
                raise RuntimeError(f"{'; '.join(failed)} failed; {short}") from short
            raise
        result = next((line for line in done.stdout.splitlines() if line.startswith("test result")), "no result")
        if done.returncode != 0:
            raise RuntimeError(self.alone(name, done))
        if " 0 passed" in result:
            raise RuntimeError(f"no test ran: {result}")
        return {"result": result}

    def alone(self, name: str, done: subprocess.CompletedProcess) -> str:
        """Which tests of a binary failed, and whether they do so alone: after one error of the driver, all that follow may fail."""
        printed = [self.told]
        begun = re.findall(r"^test (\S+) \.\.\.", done.stdout, re.MULTILINE)
        failed = re.findall(FAILED, done.stdout, re.MULTILINE) or begun[-1:]
        verdicts, endless = [], 0
        for test in failed[:8]:
            if endless == 2:
                break
            try:
                again = self.run([self.bin / f"test-{name}", test, "--exact", "--test-threads=1"], 60)
                verdicts.append(f"{test} {'passes alone' if again.returncode == 0 else 'fails alone'}")
            except (Incomplete, TimedOut) as error:
                endless += 1
                verdicts.append(f"{test} alone: {error}")
            printed.append(self.told)
        self.told = "\n".join(printed)
        if len(failed) > len(verdicts):
            verdicts.append(f"{len(failed) - len(verdicts)} more failed")
        return "; ".join(verdicts) or f"exit code {done.returncode}"

    def simulator(self) -> dict:
        """What the kernels' tests read, beside what they read on the simulator of the same architecture when the pack was made."""
        architecture = f"sm_{self.capability()}"
        packed = self.pack / OUTPUTS.format(architecture)
        if not packed.exists():
            raise Skipped(f"the pack has no outputs of the simulator of {architecture}: scripts/gpu-pack --architectures {architecture}")
        if any(step["step"] == KERNELS and step.get("incomplete") for step in self.record["steps"]):
            raise Incomplete(f"the step before has not come to all tests: {KERNELS}")
        if not self.outputs.exists():
            raise Skipped("the tests of the kernels have saved nothing: they run in a step before")
        expected = self.work / "expected"
        shutil.rmtree(expected, ignore_errors=True)
        # Python before 3.10.12 and 3.11.4 has no filters.
        shutil.unpack_archive(packed, expected, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        compare = [ROOT / "scripts" / "compare-outputs", "--json", expected, self.outputs]
        done = subprocess.run([str(part) for part in compare], capture_output=True, text=True)
        tests = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode != 0:
            wrong = [f"{test['test']}: {test['reason']}" for test in tests if "reason" in test]
            raise RuntimeError("; ".join(wrong) or done.stderr.strip())
        values, equal = sum(test["values"] for test in tests), sum(test["equal"] for test in tests)
        worst = max(test["difference"] for test in tests)
        left_out = [test["test"] for test in tests if test.get("left_out")]
        result = f"{equal} of {values} values equal bit for bit, largest difference {worst:.1e}"
        return {"tests": tests, "result": result + (f"; nothing saved here by {', '.join(left_out)}" if left_out else "")}

    def parity(self, engine: str, precision: str, names: tuple[str, ...] = ("*",)) -> dict:
        files = [GOLDEN / "odd-37-19-5.safetensors"]
        if not self.dry:
            files = sorted(path for name in names for path in GOLDEN.glob(f"{name}.safetensors"))
        return {"report": self.kiln("parity", "--engine", engine, "--precision", precision, *files).splitlines()}

    def random_models(self, engine: str, precision: str) -> dict:
        report = self.kiln("parity", "--random", "--engine", engine, "--precision", precision).splitlines()
        return {"report": report, "result": f"{sum(line.endswith('  ok') for line in report)} gradients within their bound"}

    def mnist(self, *flags: object) -> dict:
        """The textbook job to its end, three times: one model, and the run of the middle pace."""
        if "resident" in flags:
            self.gpu_alone()  # its smallest batch takes minutes on the simulator; parity and determinism run there
        runs = self.alike([[*flags, *(self.small() if self.dry else [])]] * (1 if self.dry else 3))
        found = sorted(runs, key=lambda run: run["us_per_step"])[len(runs) // 2]
        found["range_us_per_step"] = [pick(run["us_per_step"] for run in runs) for pick in (min, max)]
        if not self.dry and found["test_accuracy"] < 0.97:
            raise Failed(f"test accuracy {found['test_accuracy']}, expected 0.97 or more", **found)
        return found

    def resumed(self, engine: str) -> dict:
        """A run that goes on from its checkpoint must write the model of one that was never ended, bit for bit."""
        if engine == "resident":
            self.gpu_alone()  # its smallest batch takes minutes on the simulator; the command's tests resume it there
        job = ["--layers", "784,8,10", "--batch", 8192] if self.dry else []
        flags, half = ["--engine", engine], 1 if self.dry else 2
        whole = self.train(*flags, *job, "--epochs", 2 * half)["model"]
        self.train(*flags, *job, "--epochs", half)
        checkpoint = self.work / "checkpoint.safetensors"
        shutil.move(self.work / "run" / checkpoint.name, checkpoint)
        found = self.train(*flags, "--resume", checkpoint, "--epochs", 2 * half)["model"]
        if found != whole:
            raise RuntimeError("the model is not that of a run that was never ended")
        return {"model": found, "result": f"equal, resumed in the middle of {2 * half} epochs"}

    def resident_determinism(self) -> dict:
        flags = ["--blocks", 8, "--layers", "784,8,10", "--batch", 128] if self.dry else ["--blocks", 16]
        runs = self.alike([["--engine", "resident", "--epochs", 1, *flags]] * (1 if self.dry else 20))
        return {"model": runs[0]["model"], "result": f"{len(runs)} runs"}

    def alike(self, trainings: collections.abc.Iterable[list]) -> list[dict]:
        """Runs with these flags, which must write one model. Two that did not are told though the time ends."""
        runs = []
        try:
            for flags in trainings:
                runs.append(self.train(*flags))
        finally:
            models = {run["model"] for run in runs}
            if len(models) > 1:
                raise Failed(f"{len(models)} different models in {len(runs)} runs", runs=runs)
        return runs

    def determinism(self) -> dict:
        """Runs that must write the same model, bit for bit: kernel by kernel, streamed in many chunks, and captured again and again,
        as many as there is time for."""
        end = self.end - 10
        flags = [["--submission", "direct"], ["--placement", "streamed", "--chunk-rows", 4096]]
        flags += [["--submission", "captured"]] * (2 if self.dry else 100)
        in_time = itertools.takewhile(lambda _: time.monotonic() <= end, flags)
        models = [run["model"] for run in self.alike(["--engine", "graph", *more, *self.small()] for more in in_time)]
        runs, wanted = len(models), len(flags)
        figures = {"runs": runs, "wanted": wanted, "models": sorted(set(models))}
        if runs < wanted:
            raise Incomplete(f"{runs} of {wanted} runs, then no time was left", **figures)
        return {**figures, "result": f"{runs} runs: direct, streamed, then captured"}
