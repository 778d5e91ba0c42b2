#!/usr/bin/env python3
"""Tests what is made of results: scripts/compare-outputs, scripts/gpu-check and scripts/results, on files as they would be."""

import array
import collections
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import lzma
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import unittest.mock

SCRIPTS = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True


def script(name: str):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


sys.path.insert(0, str(SCRIPTS))
from gpu_check import correctness, speed, tools  # noqa: E402
from gpu_check import record as records  # noqa: E402

check, compare, results = script("gpu-check"), script("compare-outputs"), script("results")


class Outputs(unittest.TestCase):
    EXACT, APPROXIMATE = "gpu.tests.products.outputs_of_layers", "gpu.tests.losses.cross_entropy_at_the_edges"

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def write(self, side: str, output: str, code: str, values: list, test: str = EXACT):
        path = self.root / side / test / output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(array.array(code, values).tobytes())

    def compared(self):
        line = [SCRIPTS / "compare-outputs", "--json", self.root / "expected", self.root / "found"]
        done = subprocess.run(line, capture_output=True, text=True)
        return done.returncode, [json.loads(row) for row in done.stdout.splitlines()], done.stderr

    def both(self, code: str, expected: list, found: list, test: str = EXACT):
        suffix = {"f": "f32", "d": "f64", "I": "u32", "H": "u16"}[code]
        self.write("expected", f"0000.{suffix}", code, expected, test)
        self.write("found", f"0000.{suffix}", code, found, test)
        return self.compared()

    def test_equal_bits(self):
        status, [entry], _ = self.both("f", [1.0, math.nan, -0.0], [1.0, math.nan, -0.0])
        self.assertEqual((status, entry["values"], entry["equal"], entry["difference"]), (0, 3, 3, 0.0))

    def test_a_nan_is_a_nan(self):
        self.both("f", [math.nan, 1.0], [math.nan, 1.0])
        (self.root / "found" / self.EXACT / "0000.f32").write_bytes(array.array("I", [0xFFC00001, 0x3F800000]).tobytes())
        status, [entry], _ = self.compared()
        self.assertEqual((status, entry["equal"]), (0, 2))

    def test_a_small_difference_passes_where_a_kernel_is_approximate_alone(self):
        for test, passes in [(self.APPROXIMATE, True), (self.EXACT, False)]:
            status, entries, _ = self.both("f", [1.0, 100.0], [1.0001, 100.0], test)
            entry = next(entry for entry in entries if entry["test"] == test)
            self.assertEqual((status, entry["equal"], "reason" in entry), (0 if passes else 1, 1, not passes))
            self.assertAlmostEqual(entry["difference"], 1e-6, places=8)

    def test_exact_means_every_bit(self):
        for code, expected, found in [("f", [1.0], [1.0 + 2**-23]), ("f", [0.0], [-0.0]), ("d", [1.0], [1.0 + 2**-52])]:
            self.assertEqual(self.both(code, expected, found)[0], 1, (expected, found))

    def test_what_must_fail(self):
        for code, expected, found in [
            ("f", [1.0, 2.0], [1.0, 2.001]),
            ("d", [1.0], [1.1]),
            ("f", [0.0], [1e-9]),
            ("f", [1.0], [math.nan]),
            ("f", [math.nan], [1.0]),
            ("f", [math.inf], [-math.inf]),
            ("I", [4000000000], [4000000001]),
            ("H", [7], [8]),
            ("f", [1.0, 2.0], [1.0]),
        ]:
            for test in (self.EXACT, self.APPROXIMATE):
                status, [entry], _ = self.both(code, expected, found, test)
                self.assertEqual(status, 1, (expected, found))
                self.assertIn("0000", entry["reason"])
                for side in ("expected", "found"):
                    shutil.rmtree(self.root / side / test)

    def test_the_approximate_kernels_are_those_that_are_named(self):
        """A kernel that comes to use such a function needs its tests in APPROXIMATE."""
        found = {}
        for folder in ("kernels", "kernels/ladder"):
            for path in (SCRIPTS.parent / folder / "ptx").glob("*.ptx"):
                kernels = path.read_text().split(".entry ")[1:]
                approximate = [k.split("(")[0] for k in kernels if re.search(r"\b(ex2|lg2|rcp|r?sqrt|sin|cos|tanh|div)\.(approx|full)", k)]
                found[folder] = found.get(folder, set()) | set(approximate)
        cross_entropy = {kernel for kernel in found["kernels"] if not kernel.startswith("resident_")}
        self.assertEqual(cross_entropy, {"softmax_cross_entropy", "head_softmax_cross_entropy"})
        self.assertEqual(len(found["kernels/ladder"]), 4)
        for name in compare.APPROXIMATE:
            *_, module, test = name.split(".")
            source = SCRIPTS.parent / "crates" / "kiln-engine" / "src" / "gpu" / "tests" / f"{module}.rs"
            self.assertIn(f"#[test]\nfn {test}", source.read_text(), name)

    def test_a_missing_output_or_test_fails(self):
        self.both("f", [1.0], [1.0])
        self.write("expected", "0001.u32", "I", [1])
        self.assertEqual(self.compared()[0], 1)
        (self.root / "found" / "another.test").mkdir()
        self.write("found", "0001.u32", "I", [1])
        self.assertEqual(self.compared()[0], 0)
        (self.root / "found" / "another.test" / "0000.u32").write_bytes(b"1234")
        self.assertEqual(self.compared()[0], 1)

    def test_a_test_that_saved_nothing_here_is_left_out_but_not_all(self):
        self.both("f", [1.0], [1.0])
        self.write("expected", "0000.f32", "f", [1.0], self.APPROXIMATE)
        status, entries, _ = self.compared()
        self.assertEqual((status, "1 outputs expected, 0 found" in entries[0]["reason"]), (1, True), "one that never ran")
        (self.root / "found" / self.APPROXIMATE).mkdir()
        status, entries, _ = self.compared()
        self.assertEqual((status, [entry.get("left_out") for entry in entries]), (0, [True, None]))
        (self.root / "found" / self.EXACT / "0000.f32").unlink()
        status, _, told = self.compared()
        self.assertEqual((status, told), (1, "no output on both sides\n"))

    def test_a_folder_that_is_not_there_is_named(self):
        status, _, told = self.compared()
        self.assertEqual(status, 1)
        self.assertIn("expected: expected a folder of outputs", told)


class Counters(unittest.TestCase):
    NAMES = '"ID","Kernel Name","gpu__time_duration.sum","sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active","launch__grid_size","l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum"'
    UNITS = '"","","us","%","",""'

    def test_means_for_each_kernel(self):
        rows = ['"0","linear","1,000.5","50","8","4"', '"1","linear","999.5","70","8","0"', '"2","loss","3","n/a","1","0"']
        found = tools.counted("\n".join(["==PROF== noise", self.NAMES, self.UNITS, *rows]))
        tensor = "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active (%)"
        conflicts = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum ()"
        linear = {"gpu__time_duration.sum (us)": 1000.0, tensor: 60.0, conflicts: 2.0}
        self.assertEqual(found, {"linear": linear, "loss": {"gpu__time_duration.sum (us)": 3.0, conflicts: 0.0}})

    def test_nothing_measured_is_nothing(self):
        self.assertEqual(tools.counted("==ERROR== no kernels were profiled\n"), {})


ROW = dict(min_s=0.02, max_s=0.03, us_per_step=3.0, test_accuracy=0.975)
PEERS = dict(base="kiln-resident", failures={}, rows=[
    dict(ROW, name="kiln-resident", median_s=0.028, ratio=1.0), dict(ROW, name="torch-cuda-graph", median_s=0.28, ratio=10.0),
    dict(ROW, name="torch-cuda", median_s=1.4, ratio=50.0)])
LARGE = dict(rows=[dict(name="kiln-graph-bf16", median_s=2.0), dict(name="cublaslt-bf16", median_s=1.5)])


def record(date: str, **steps) -> dict:
    entries = [dict(step=name, ok=True, **found) for name, found in steps.items()]
    return dict(simulated=False, date=date, device="NVIDIA H200", commit="0123456789abcdef", steps=entries)


FULL = record("2026-01-02", **{
    "MNIST, ten epochs, resident, f32": dict(device_us_per_step=2.5), "MNIST, ten epochs, graph, f32": dict(us_per_step=9.0),
    results.PEERS: dict(bench=PEERS), results.LARGE: dict(bench=LARGE), "the same model, bit for bit": dict(runs=102)})
CPU = dict(about=dict(date="2026-01-01", cpu="a CPU", cores=2, gpu=None, commit="abc", command="scripts/bench"), base="kiln-host-2",
           rows=[dict(ROW, name="kiln-host-2", median_s=2.6, ratio=1.0)])


class Ladder(unittest.TestCase):
    @staticmethod
    def row(model, variant, us=None, error=None):
        return {"model": model, "variant": variant, "us_per_step": us, "ratio": us and us / 2, "error": error}

    def test_every_rung_is_shown_and_the_last_model_takes_all(self):
        row, big, small = self.row, "784-128-10", "784-16-10"
        rows = [row(big, "resident, f32", 2.0), row(big, "1_single_block", error="needs 400000 bytes of shared memory a block, of 232448"), row(small, "1_single_block", 9.0)]
        shown = "784-128-10, µs a step: resident, f32 2.00 (x 1.00), 1_single_block: needs 400000 bytes of shared memory a block, of 232448; 784-16-10, µs a step: 1_single_block 9.00 (x 4.50)"
        self.assertEqual(speed.ladder_of(rows, 90), shown)
        with self.assertRaisesRegex(RuntimeError, "2_cluster_sync: no such kernel"):
            speed.ladder_of([*rows, row(small, "2_cluster_sync", error="no such kernel")], 90)
        # On no model is what fails taken for what does not fit.
        with self.assertRaisesRegex(RuntimeError, "784-128-10, resident, tf32: an illegal address"):
            speed.ladder_of([*rows, row(big, "resident, tf32", error="an illegal address")], 90)

    def test_what_does_not_fit_is_missed_where_it_should_fit(self):
        rows = [self.row("784-16-10", "1_single_block", error="needs 163552 bytes of shared memory a block, of 101376")]
        self.assertIn("needs 163552", speed.ladder_of(rows, 120))
        with self.assertRaises(RuntimeError):
            speed.ladder_of(rows, 90)

    def test_what_there_is_nothing_to_compare_with_has_no_ratio(self):
        rows = [self.row("784-16-10", "resident, f32", error="resident engine: no"), dict(self.row("784-16-10", "1_single_block", 9.0), ratio=None)]
        self.assertEqual(speed.ladder_of(rows, 120), "784-16-10, µs a step: resident, f32: resident engine: no, 1_single_block 9.00")

    def test_clusters_are_missed_where_there_should_be_some(self):
        rows = [self.row("784-16-10", "2_cluster_sync", error="needs clusters: sm_90 or newer")]
        self.assertIn("needs clusters", speed.ladder_of(rows, 80))
        with self.assertRaises(RuntimeError):
            speed.ladder_of(rows, 90)


class Tables(unittest.TestCase):
    def test_every_target_has_what_was_found(self):
        text = results.for_results([record("2026-01-01"), FULL])
        for found in ["2.50 µs a step", "| 23.4 ms |", "| 10.0 times |", "| 9.00 µs a step |", "| 75.0 % |", "| 102 runs, one model |", "all of 5 passed"]:
            self.assertIn(found, text)
        self.assertNotIn("not measured", text)

    def test_the_fastest_peer_may_be_beside_the_compiler(self):
        rows = [dict(ROW, name="kiln-resident", median_s=0.03), dict(ROW, name="torch-cuda-compile-graph", median_s=0.24)]
        compiled = dict(step=results.COMPILER, ok=True, bench=dict(PEERS, rows=rows))
        self.assertAlmostEqual(results.against_best(dict(FULL, steps=[*FULL["steps"], compiled])), 8.0)
        self.assertAlmostEqual(results.against_best(dict(FULL, steps=[compiled])), 8.0)
        self.assertIsNone(results.against_best(record("2026-01-01")))

    def test_what_failed_or_is_missing_is_not_measured(self):
        failed = record("2026-01-03", **{"MNIST, ten epochs, graph, f32": dict(us_per_step=9.0)})
        failed["steps"][0]["ok"] = False
        text = results.for_results([FULL, failed])
        self.assertEqual(text.count("not measured"), len(results.TARGETS) - 1)
        self.assertIn("| 0 passed, 1 failed (MNIST, ten epochs, graph, f32) |", text)
        self.assertIn("No GPU has been measured yet", results.for_results([]))

    def test_a_skipped_step_is_named_and_has_not_passed(self):
        skipped = record("2026-01-03", **{"device": {}, "nsys": dict(skipped=True), "kiln doctor": {}, "MNIST, ten epochs, graph, f32": dict(us_per_step=9.0)})
        self.assertIn("| 3 passed, 1 skipped (nsys) |", results.for_results([skipped]))
        skipped["steps"][2]["ok"], skipped["steps"][3]["skipped"] = False, True
        text = results.for_results([skipped])
        self.assertIn("| 1 passed, 1 failed (kiln doctor), 2 skipped (nsys; MNIST, ten epochs, graph, f32) |", text)
        self.assertIn("| 10 µs a step | not measured |", text)

    def test_an_incomplete_step_has_not_passed_and_shows_how_far_it_came(self):
        short = record("2026-01-03", **{"device": {}, "the same model, bit for bit": dict(runs=60, wanted=102, incomplete=True)})
        short["steps"][1]["ok"] = False
        text = results.for_results([short])
        self.assertIn("| 1 passed, 1 incomplete (the same model, bit for bit) |", text)
        self.assertIn("| 60 of 102 runs, one model |", text)
        short["steps"][1]["runs"] = 0
        self.assertIn("| one model, bit for bit | not measured |", results.for_results([short]))

    def test_the_readme_shows_the_newest_gpu_and_a_cpu_only_without_one(self):
        self.assertIn("NVIDIA H200", results.for_readme([FULL, record("2026-01-03")], [CPU]))
        self.assertIn("| torch-cuda | 1.40 |", results.for_readme([FULL], [CPU]))
        cpu = results.for_readme([record("2026-01-03")], [CPU])
        self.assertIn("no GPU, commit abc", cpu)
        self.assertIn("| kiln-host-2 | 2.60 |", cpu)

    def test_results_of_the_simulator_and_broken_files_are_refused(self):
        nameless = {key: value for key, value in FULL.items() if key != "device"}
        for text in [json.dumps(dict(FULL, simulated=True)), json.dumps(nameless), "{", "{}"]:
            with tempfile.TemporaryDirectory() as folder:
                (pathlib.Path(folder) / "a.json").write_text(text)
                with self.assertRaises(SystemExit):
                    results.load(pathlib.Path(folder))

    def test_three_digits(self):
        self.assertEqual([results.digits(x) for x in (0.0281, 2.6, 9.999, 293.4, 1066.2)], ["0.0281", "2.60", "10.0", "293", "1066"])

    def test_a_table_replaces_the_one_before(self):
        text = f"a\n{results.BEGIN}\n\nold\n\n{results.END}\nb\n"
        self.assertEqual(results.replaced(text, pathlib.Path("F"), "new"), text.replace("old", "new"))
        with self.assertRaises(SystemExit):
            results.replaced("no marks", pathlib.Path("F"), "new")

    def test_the_files_of_this_repository_are_what_the_results_say(self):
        done = subprocess.run([SCRIPTS / "results", "--check"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Recorded(check.Check):
    """A check whose commands are not run, but recorded."""

    only = None

    def __init__(self, test: unittest.TestCase, seconds: float = 1000, dry: bool = False):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)
        self.bin, self.outputs, self.dry = self.work / "bin", self.work / "outputs", dry
        self.args = unittest.mock.Mock(out=self.work / "out", continued=None)
        self.end, self.lines, self.record = time.monotonic() + seconds, [], dict(steps=[])
        self.before, self.again, self.told, self.endless, self.env = {}, set(), "", collections.Counter(), dict(os.environ)

    def write(self):
        pass

    def took(self, name: str, what) -> dict:
        """The entry of a step."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.step(name, what)
        return self.record["steps"][-1]


class Determinism(unittest.TestCase):
    def found(self, models: list, seconds: float = 1000) -> dict:
        """The entry of the step, where runs write these models in turn, and the time ends after them."""
        recorded, self.now = Recorded(self, seconds), time.monotonic()

        def train(*_):
            if len(models) == 1:
                self.now = recorded.end
            return dict(model=models.pop(0))

        recorded.train = train
        with unittest.mock.patch.object(records.time, "monotonic", lambda: self.now):
            return recorded.took("the same model, bit for bit", recorded.determinism)

    def test_all_runs_are_needed(self):
        entry = self.found(["a"] * 102)
        self.assertEqual((records.verdict(entry), entry["runs"], entry["models"]), ("ok", 102, ["a"]))
        for made in (101, 4, 1):
            entry = self.found(["a"] * made)
            self.assertEqual((records.verdict(entry), entry["ok"], entry["runs"], entry["wanted"]), ("incomplete", False, made, 102))
            self.assertIn(f"{made} of 102 runs", entry["reason"])
        self.assertEqual(records.verdict(self.found([], seconds=-1)), "incomplete")

    def test_different_models_fail_however_few_they_are(self):
        for models in (["a", "b"], ["a"] * 101 + ["b"]):
            entry = self.found(models)
            self.assertEqual(records.verdict(entry), "FAILED")
            self.assertIn("2 different models", entry["reason"])


class Simulator(unittest.TestCase):
    def found(self, engine: str, packed: list[str], *before: dict) -> dict:
        """The entry of the step on a device, after others, with a pack for these architectures, where one of two tests saves what is
        expected."""
        recorded = Recorded(self)
        recorded.record["steps"] += before
        recorded.record["gpu"], recorded.pack = engine, recorded.work / "pack"
        for test, folders in {"a": ["expected", "outputs"], "b": ["expected"]}.items():
            for folder in folders:
                (recorded.work / folder / test).mkdir(parents=True)
                (recorded.work / folder / test / "0000.u32").write_bytes(b"abcd")
        (recorded.work / "outputs" / "b").mkdir()
        for architecture in packed:
            shutil.make_archive(str(recorded.pack / f"outputs-{architecture}"), "xztar", recorded.work / "expected")
        return recorded.took("the simulator's outputs", recorded.simulator)

    def test_only_the_same_architecture_is_compared(self):
        entry = self.found("NVIDIA H200, sm_90, 132 multiprocessors", ["sm_80", "sm_90"])
        self.assertTrue(entry["ok"] and entry["result"].startswith("1 of 1 values equal"), entry)
        self.assertTrue(entry["result"].endswith("; nothing saved here by b"), entry)
        entry = self.found("NVIDIA L4, sm_89, 58 multiprocessors", ["sm_80", "sm_90"])
        self.assertEqual(records.verdict(entry), "skipped")
        self.assertTrue(entry["reason"].endswith("of sm_89: scripts/gpu-pack --architectures sm_89"), entry)

    def test_tests_that_had_no_time_have_saved_less(self):
        entry = self.found("NVIDIA H200, sm_90, 132 multiprocessors", ["sm_90"], dict(step=check.KERNELS, ok=False, incomplete=True))
        self.assertEqual(records.verdict(entry), "incomplete")


class Steps(unittest.TestCase):
    def test_those_that_were_not_asked_for_are_not_run(self):
        recorded = Recorded(self)
        recorded.only = re.compile("^golden")
        with contextlib.redirect_stdout(io.StringIO()):
            for name in (check.COMPILED, check.DEVICE, "golden trajectories", "nsys"):
                recorded.step(name, dict)
        self.assertEqual([step["step"] for step in recorded.record["steps"]], [check.COMPILED, check.DEVICE, "golden trajectories"])

    def test_the_end_of_the_time_is_no_failure(self):
        for seconds, verdict in [(5.1, "incomplete"), (1000, "FAILED")]:
            recorded = Recorded(self, seconds)
            entry = recorded.took("a", lambda: recorded.run(["sleep", "20"], 30 if seconds < 30 else 0.1))
            self.assertEqual(records.verdict(entry), verdict)


class Binaries(unittest.TestCase):
    LISTED = "gpu::a: test\nmade_for_on_sm_80: test\non_sm_86: test\non_sm_120: test\ngraph_follows_on_tensor_cores: test\nnot_a_test: benchmark\n"

    def ran(self, name: str, *filters: str, dry: bool = False, listed: str = LISTED, result: str = "test result: ok. 2 passed; 0 failed"):
        """The entry of a step, and the arguments with which its binary ran."""
        recorded, lines = Recorded(self, dry=dry), []

        def run(line: list, _limit_s: float, **_):
            lines.append([str(part) for part in line[1:]])
            return subprocess.CompletedProcess(line, 0, listed if "--list" in line else result, "")

        recorded.run = run
        return recorded.took(name, lambda: recorded.tests(name, *filters)), lines[-1]

    def test_names_that_no_test_has_fail_on_a_gpu_and_on_the_simulator(self):
        for dry in (False, True):
            for filters, listed, missing in [
                (("gpu::", "nothing_like_it"), self.LISTED, "nothing_like_it"),
                (("gpu::",), self.LISTED.replace("on_sm_86", "renamed"), "on_sm_86"),
                (("gpu::",), self.LISTED.replace("graph_follows_on", "renamed"), "graph_follows_on_tensor_cores"),
                (("not_a_test",), self.LISTED, "not_a_test"),
            ]:
                entry, _ = self.ran("golden", *filters, dry=dry, listed=listed)
                self.assertEqual((entry["ok"], entry["reason"]), (False, f"no test of golden is called {missing}"))

    def test_the_simulator_runs_one_quick_test_and_a_gpu_all(self):
        left_out = [f"--skip={name}" for name in correctness.LEFT_OUT["golden"]]
        entry, line = self.ran("golden", "gpu::")
        self.assertEqual((entry["ok"], line), (True, ["gpu::", *left_out, "--test-threads=1"]))
        entry, line = self.ran("golden", "graph_follows", dry=True)
        self.assertEqual((entry["ok"], line), (True, ["graph_follows_on_tensor_cores", *left_out, "--test-threads=1"]))
        entry, _ = self.ran("golden", "gpu::", dry=True)
        self.assertEqual(records.verdict(entry), "skipped")

    def test_no_test_at_all_is_a_failure(self):
        for dry in (False, True):
            entry, _ = self.ran("golden", dry=dry, result="test result: ok. 0 passed; 0 failed")
            self.assertEqual(records.verdict(entry), "FAILED")

    def test_names_are_those_of_the_sources(self):
        tests = {"golden": "golden.rs", "graph": "graph.rs", "reference": "reference.rs", "resident": "resident.rs"}
        for name, source in tests.items():
            functions = re.findall(r"#\[test\]\nfn (\w+)", (SCRIPTS.parent / "tests" / source).read_text())
            for part in (*correctness.LEFT_OUT.get(name, ()), *correctness.QUICK[name]):
                self.assertTrue(any(part in function for function in functions), f"{source}: {part}")


    def test_what_failed_runs_again_alone(self):
        recorded, lines = Recorded(self), []

        def run(line: list, _limit_s: float, **_):
            lines.append([str(part) for part in line[1:]])
            recorded.told = f"output {len(lines)}"
            if "--list" in line:
                return subprocess.CompletedProcess(line, 0, self.LISTED, "")
            if "--exact" in line:
                return subprocess.CompletedProcess(line, 0 if "b" in line else 101, "", "")
            return subprocess.CompletedProcess(line, code, text, "")

        recorded.run = run
        code, text = 101, "test gpu::a ... FAILED\ntest b ... FAILED\ntest c ... ok\ntest result: FAILED. 1 passed; 2 failed"
        entry = recorded.took("golden", lambda: recorded.tests("golden"))
        self.assertEqual(entry["reason"], "gpu::a fails alone; b passes alone")
        self.assertEqual([line[:2] for line in lines[2:]], [["gpu::a", "--exact"], ["b", "--exact"]])
        self.assertEqual(entry["printed"], "output 2\noutput 3\noutput 4")
        # A fault that ends the process leaves the test without a verdict.
        code, text = -11, "test c ... ok\ntest gpu::a ... "
        self.assertEqual(recorded.took("golden", lambda: recorded.tests("golden"))["reason"], "gpu::a fails alone")


class Sweeps(unittest.TestCase):
    ENGINE = "Engine: resident, NVIDIA H200, f32, 64 runs, of which 12 train at once, one cluster of 8 blocks each\n"

    def rows(self, *seconds: float | None) -> str:
        row = dict(event="run", seed=0, lr=0.01, momentum=0.9, epochs=10, train_loss=0.1, test_loss=0.1, error=None)
        rows = [dict(row, run=at, test_accuracy=0.98 - 0.001 * at, device_seconds=found) for at, found in enumerate(seconds)]
        events = [dict(event="start", engine="resident"), *rows, dict(event="summary", best=0)]
        return "".join(f"{json.dumps(event)}\n" for event in events)

    def swept(self, *texts: str, mnist_us: float | None = None) -> list[dict]:
        """The entries of sweeps that print these."""
        recorded = Recorded(self)
        if mnist_us:
            recorded.took("MNIST, ten epochs, resident, f32", lambda: dict(device_us_per_step=mnist_us))
        for text in texts:
            recorded.kiln, count = lambda *_, text=text: text, text.count('"event": "run"')
            recorded.took(f"sweep, {count} runs", lambda: recorded.runs(count))
        return recorded.record["steps"]

    def test_the_time_of_many_is_beside_that_of_one(self):
        one, three = self.swept(self.rows(0.02), self.rows(0.019, 0.025, 0.021))
        self.assertEqual((one["device_s"], one["times_one_run"]), (0.02, 1.0))
        self.assertEqual((three["device_s"], three["times_one_run"]), (0.025, 1.25))
        self.assertEqual(three["accuracies"], [0.978, 0.979, 0.98])
        self.assertTrue(three["result"].startswith("25.00 ms on the GPU, 1.250 times one run; "), three["result"])

    def test_a_launch_an_epoch_is_beside_one_for_all(self):
        _, one = self.swept(self.rows(0.0268), mnist_us=3.0)
        self.assertAlmostEqual(one["launch_an_epoch_ratio"], 0.02814 / 0.0268)

    def test_without_the_device_s_clock_there_is_no_ratio(self):
        for text in (self.rows(None), self.rows(None).replace(', "device_seconds": null', "")):
            [one] = self.swept(text)
            self.assertEqual((one["ok"], one["device_s"]), (True, None))
            self.assertNotIn("times_one_run", one)
        [two] = self.swept(self.rows(0.02, 0.02))
        self.assertIsNone(two["times_one_run"])

    def test_a_lost_run_fails(self):
        [entry] = self.swept(self.rows(0.02).replace('"error": null', '"error": "epoch 3: not finite"'))
        self.assertEqual((entry["ok"], entry["reason"]), (False, "run 0: epoch 3: not finite"))

    def test_sweeps_grow_to_what_the_device_places(self):
        for most, counts in [(12, [1, 2, 4, 8, 10, 12]), (8, [1, 2, 4, 8, 10]), (33, [1, 2, 4, 8, 10, 16, 32, 33]), (1, [1, 10])]:
            recorded = Recorded(self)
            recorded.kiln = lambda *_: self.ENGINE.replace("12", str(most))
            self.assertEqual(recorded.took("runs at once", recorded.places)["at_once"], most)
            self.assertEqual(recorded.counts(), counts)
        recorded = Recorded(self)
        recorded.kiln = lambda *_: "Engine: another\n"
        self.assertFalse(recorded.took("runs at once", recorded.places)["ok"])
        self.assertEqual(recorded.counts(), [1, 2, 4, 8, 10, 16])


class Time(unittest.TestCase):
    def test_a_step_that_has_none_is_incomplete(self):
        recorded = Recorded(self, seconds=3)
        entry = recorded.took("kiln doctor", lambda: recorded.run(["true"], 60))
        self.assertEqual((records.verdict(entry), entry["reason"]), ("incomplete", "no time left"))

    def test_the_hundred_runs_end_with_it(self):
        recorded = Recorded(self, seconds=100)
        self.now, begun = time.monotonic(), time.monotonic()

        def train(*_):
            self.now += 11
            return dict(model="a")

        recorded.train = train
        with unittest.mock.patch.object(records.time, "monotonic", lambda: self.now):
            entry = recorded.took("the same model, bit for bit", recorded.determinism)
        self.assertEqual((records.verdict(entry), entry["runs"]), ("incomplete", 9))
        self.assertLess(self.now, begun + 100)


    def test_what_does_not_end_is_ended_with_all_that_it_has_started(self):
        recorded = Recorded(self)
        file = recorded.work / "written"
        script = f"(sleep 9; touch {file}) & echo begun; echo why >&2; wait"
        entry = recorded.took("a", lambda: recorded.run(["sh", "-c", script], 3))
        self.assertEqual((records.verdict(entry), entry["reason"]), ("FAILED", "not done after 3 s"))
        self.assertEqual(entry["printed"], "begun\n\nwhy\n")
        time.sleep(7)
        self.assertFalse(file.exists())

    def test_after_two_commands_without_end_an_engine_is_left_alone(self):
        recorded, ran = Recorded(self), []

        def output(*line, limit_s):
            ran.append(line)
            if "resident" in line:
                raise records.TimedOut(60, "", "")
            return ""

        recorded.output = output
        entries = [recorded.took(str(n), lambda: recorded.kiln("train", "--engine", "resident")) for n in range(3)]
        self.assertEqual([entry["reason"] for entry in entries[:2]], ["not done after 60 s"] * 2)
        self.assertEqual(entries[2]["reason"], "not run: two commands before it did not end: train resident")
        recorded.kiln("train", "--engine", "graph")
        recorded.took("4", lambda: recorded.kiln("parity", "--engine", "resident"))
        self.assertEqual(len(ran), 4)

    def test_a_program_does_not_outlive_who_is_ended(self):
        # Whoever started the tests may have them ignore SIGINT, as a shell does in the background: then so would the programs.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        recorded = Recorded(self)
        begun, written = recorded.work / "begun", recorded.work / "written"
        # As gpu-check runs scripts/bench, which runs a peer.
        inner = ["sh", "-c", f"touch {begun}; sleep 4; touch {written}"]
        nested = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import programs; programs.take_along(); programs.run(LINE, 60)"
        middle = [sys.executable, "-c", nested.replace("LINE", repr(inner))]
        outer = [sys.executable, "-c", nested.replace("LINE", repr(middle))]
        for number in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen(outer, stderr=subprocess.DEVNULL, start_new_session=True)
            while not begun.exists():
                time.sleep(0.02)
            os.kill(process.pid, number)
            process.wait()
            begun.unlink()
        # A signal that comes when the program runs, and who has started it does not know yet.
        early = """
            import os, subprocess, sys
            sys.path.insert(0, sys.argv[1])
            import programs
            start = subprocess.Popen
            def signalled(*line, **how):
                process = start(*line, **how)
                os.kill(os.getpid(), int(sys.argv[2]))
                return process
            subprocess.Popen = signalled
            programs.take_along()
            programs.run(sys.argv[3:], 60)
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            line = [sys.executable, "-c", textwrap.dedent(early), str(SCRIPTS), str(int(number)), *inner]
            self.assertNotEqual(subprocess.run(line, stderr=subprocess.DEVNULL).returncode, 0)
        time.sleep(4.5)
        self.assertFalse(written.exists())

    def test_what_is_wrong_is_told_though_the_time_ends(self):
        recorded = Recorded(self)
        models = iter([dict(model="a"), dict(model="b")])

        def train(*_):
            found = next(models, None)
            if not found:
                raise records.Incomplete("no time left")
            return found

        recorded.train = train
        self.assertEqual(recorded.took("a", lambda: recorded.alike([[]] * 3))["reason"], "2 different models in 2 runs")
        models = iter([dict(model="a")])
        self.assertEqual(records.verdict(recorded.took("a", lambda: recorded.alike([[]] * 3))), "incomplete")

        def late(*_, **__):
            raise records.TimedOut(60, text, "")

        recorded.run, recorded.output, recorded.gpu_alone = late, lambda *_, **__: "a: test\n", lambda *_: None
        for text, verdict in [("test a ... FAILED\ntest b ... ", "FAILED"), ("test a ... ok\n", "FAILED")]:
            entry = recorded.took("golden", lambda: recorded.tests("other"))
            self.assertEqual((records.verdict(entry), "a failed" in entry["reason"]), (verdict, "FAILED" in text))
        for text, verdict in [("========= COMPUTE-SANITIZER\n", "incomplete"), ("========= COMPUTE-SANITIZER\n========= Invalid __global__ read\n", "FAILED")]:
            self.assertEqual(records.verdict(recorded.took("s", lambda: recorded.sanitizer("memcheck", "train"))), verdict)


class Reasons(unittest.TestCase):
    def test_an_error_comes_before_its_advice_and_a_panic_with_its_message(self):
        for error, reason in [
            ("noise\nerror: out of memory\nhelp: take less\n", "error: out of memory"),
            ("thread 'main' (1) panicked at a.rs:1:2:\nindex 3\nnote: run with `RUST_BACKTRACE=1`\n", "thread 'main' (1) panicked at a.rs:1:2: index 3"),
            ("Traceback\nValueError: no\n", "ValueError: no"),
            ("", "exit code 3"),
        ]:
            self.assertEqual(records.reason_of(subprocess.CompletedProcess([], 3, "", error)), reason)

    def test_what_was_printed_is_kept_where_a_step_has_not_passed(self):
        recorded = Recorded(self)
        passed = recorded.took("a", lambda: recorded.run(["echo", "fine"], 60) and {})
        self.assertNotIn("printed", passed)
        recorded.bin = pathlib.Path("/bin")
        failed = recorded.took("b", lambda: recorded.output("sh", "-c", "echo told; echo error: why >&2; echo help: more >&2; exit 1", limit_s=60))
        self.assertEqual((failed["reason"], failed["printed"]), ("error: why", "told\n\nerror: why\nhelp: more\n"))


# Stands in for every program of a pack: answers as they do where all is well.
STAND_IN = """#!{python}
import json, pathlib, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
after = lambda flag: arguments[arguments.index(flag) + 1]
rows = lambda *found: print(*(json.dumps(row) for row in found), sep="\\n")
if name.startswith("test-"):
    print("{listed}" if "--list" in arguments else "test result: ok. 5 passed; 0 failed")
elif name in ("choices", "ladder"):
    rows(dict(about=1), dict(model="m", job="j", variant="v", us_per_step=1.0, ratio=1.0, error=None))
elif arguments[0] == "doctor":
    device = dict(name="device 0", verdict="ok", detail="NVIDIA Stand-in, sm_90, 132 multiprocessors")
    rows(dict(outcome="gpu", checks=[device, dict(name="kernels 0", verdict="ok", detail="f32: 5")]))
elif arguments[0] == "train":
    model = pathlib.Path(after("--out")) / "model.safetensors"
    model.parent.mkdir(parents=True, exist_ok=True)
    for file in (model, model.with_name("checkpoint.safetensors")):
        file.write_bytes((2).to_bytes(8, "little") + bytes(2) + b"parameters")
    epoch = dict(event="epoch", seconds=0.01, train_loss=0.1, test_accuracy=0.975)
    summary = dict(event="summary", steps=1876, device_us_per_step=2.5, epoch_wall_seconds=[0.1, 0.02])
    rows(dict(event="start", engine="a stand-in"), epoch, epoch, summary)
elif arguments[0] == "profile":
    rows(dict(ns_per_step=2500, phases=[dict(phase="layer 1", cycles=100)]))
elif arguments[0] == "sweep" and "--json" in arguments:
    count = int(after("--seeds").split("..")[1])
    of_each = dict(event="run", error=None, device_seconds=0.02, test_accuracy=0.97)
    rows(dict(event="start", engine="a stand-in"), *(dict(of_each, run=run) for run in range(count)), dict(event="summary", best=0))
elif arguments[0] == "sweep":
    print("Engine: resident, a stand-in, f32, 64 runs, of which 12 train at once, one cluster of 8 blocks each")
else:
    print("odd: ok")
"""


class Walk(unittest.TestCase):
    """All steps as on a GPU, where every program answers at once, and none of NVIDIA's tools is there."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        names = [name for of in (correctness.LEFT_OUT, correctness.QUICK) for tests in of.values() for name in tests]
        names += re.findall(r'"((?:gpu::|graph_|resident_|operands_|steps_)\w*)"', (SCRIPTS / "gpu-check").read_text())
        listed = "\\n".join(f"{name}: test" for name in names)
        pack = self.root / "pack"
        pack.mkdir()
        (pack / "commit").write_text("0123456789\n")
        program = STAND_IN.format(python=sys.executable, listed=listed)
        for name in ("kiln", "choices", "ladder", *(f"test-{test}" for test in ("kernels", "golden", "reference", "graph", "resident"))):
            (pack / f"{name}.xz").write_bytes(lzma.compress(program.encode()))

    def walked(self, *flags: str) -> tuple[int, dict, str]:
        """Exit code, record and what was printed."""
        places = [flag for name in ("pack", "out", "work") for flag in (f"--{name}", self.root / name)]
        env = dict(os.environ, PATH="/nowhere")
        line = [sys.executable, "-B", "-S", SCRIPTS / "gpu-check", *places, *flags]
        done = subprocess.run(line, capture_output=True, text=True, env=env)
        [path] = (self.root / "out").glob("*.json")
        return done.returncode, json.loads(path.read_text()), done.stdout + done.stderr

    def test_every_step_is_made_and_a_record_goes_on(self):
        code, record, told = self.walked("--seconds", "1000")
        others = [step for step in record["steps"] if records.verdict(step) not in ("ok", "skipped")]
        self.assertEqual((others, code), ([], 0), told)
        verdicts = {step["step"]: records.verdict(step) for step in record["steps"]}
        self.assertEqual((verdicts[check.COMPILED], verdicts[check.DEVICE], verdicts["sweep, 12 runs"]), ("ok", "ok", "ok"))
        self.assertEqual((verdicts["nsys"], verdicts[check.SIMULATOR]), ("skipped", "skipped"))
        self.assertEqual((record["device"], record["commit"]), ("NVIDIA Stand-in", "0123456789"))
        determinism = record["steps"][-1]
        self.assertEqual((determinism["step"], determinism["runs"]), ("the same model, bit for bit", 102))
        # The same record, with one step to be made again.
        [path] = (self.root / "out").glob("*.json")
        record["steps"] = [dict(step, ok=step["step"] != "the ladder") for step in record["steps"]]
        path.write_text(json.dumps(record))
        code, again, told = self.walked("--seconds", "1000", "--only", "ladder", "--continue", str(path))
        self.assertEqual(code, 0, told)
        self.assertEqual({step["step"]: records.verdict(step) for step in again["steps"]}, verdicts)
        self.assertEqual(len(again["continued"]), 1)
        results.load(path.parent)


class Compiled(unittest.TestCase):
    def found(self, script: str, seconds: float = 1000, mode: str = "Default") -> dict:
        recorded = Recorded(self, seconds)
        recorded.smi = lambda _query: mode
        recorded.bin.mkdir()
        kiln = recorded.bin / "kiln"
        kiln.write_text(f"#!/bin/sh\n{script}\n")
        kiln.chmod(0o755)
        return recorded.took(check.COMPILED, recorded.compiled)

    def test_each_precision(self):
        report = lambda **verdicts: json.dumps(dict(checks=[dict(name=name, verdict=verdict, detail=f"{name}: why") for name, verdict in verdicts.items()]))
        fine, no_data = "echo '" + report(kernels="ok") + "'", report(kernels="ok", data="failed")
        self.assertEqual(self.found(fine)["result"], "of f32, tf32, bf16")
        entry = self.found(f'case "$*" in *"--precision bf16") echo error: no >&2; exit 1;; *) {fine};; esac')
        self.assertEqual((records.verdict(entry), entry["reason"].count("error: no")), ("FAILED", 1))
        for verdicts, why in [(dict(kernels="failed"), "kernels: why"), (dict(driver="failed"), "driver: why"), (dict(cpu="ok"), "no kernels")]:
            entry = self.found(f"echo '{report(**verdicts)}'; exit 1")
            self.assertEqual((records.verdict(entry), entry["reason"].count(why)), ("FAILED", 3))
        self.assertEqual(self.found(f"echo '{no_data}'; exit 1")["result"], "of f32, tf32, bf16")

    def test_a_device_for_one_process_has_one_at_a_time(self):
        script = f"""mkdir "$0.lock" || exit 1; sleep 0.2; rmdir "$0.lock"
            echo '{json.dumps(dict(checks=[dict(name="kernels 0", verdict="ok", detail="f32: 5")]))}'"""
        self.assertEqual(records.verdict(self.found(script, mode="Exclusive_Process")), "ok")
        self.assertEqual(records.verdict(self.found(script)), "FAILED")

    def test_what_had_no_time_is_incomplete(self):
        entry = self.found("sleep 20", seconds=0.5)
        self.assertEqual(records.verdict(entry), "incomplete")

    def test_nothing_is_written_before_the_device_is_known(self):
        recorded = Recorded(self)
        recorded.record["device"] = "of a record that goes on"
        check.Check.write(recorded)
        self.assertFalse(recorded.args.out.exists())


class Device(unittest.TestCase):
    CHECKS = [("cpu", "ok", "a CPU"), ("device 0", "ok", "NVIDIA H200, sm_90, 132 multiprocessors"), ("kernels 0", "ok", "f32: 5")]

    def found(self, checks: list, **earlier: str):
        recorded = Recorded(self)
        recorded.record |= dict(date="2026-01-02T03") | earlier
        text = json.dumps(dict(outcome="gpu", checks=[dict(zip(("name", "verdict", "detail"), one)) for one in checks]))
        recorded.run = lambda line, _limit_s: subprocess.CompletedProcess(line, 0, text, "")
        return recorded.took(check.DEVICE, recorded.device), recorded.record

    def test_it_is_named_though_a_check_fails(self):
        entry, record = self.found(self.CHECKS)
        self.assertEqual((records.verdict(entry), record["device"]), ("ok", "NVIDIA H200"))
        entry, record = self.found([*self.CHECKS, ("resident 0", "failed", "off by 1")])
        self.assertEqual((entry["reason"], record["device"]), ("resident 0: failed: off by 1", "NVIDIA H200"))
        self.assertEqual(len(entry["report"]), 4)
        entry, record = self.found([self.CHECKS[0], ("devices", "failed", "no driver")])
        self.assertEqual((entry["reason"], "gpu" in record), ("devices: failed: no driver", False))

    def test_a_device_that_cannot_be_used_is_told_beside_one_that_can(self):
        for checks in [[("device 0", "warning", "sm_70 is too old"), ("device 1", "ok", "NVIDIA L4, sm_89, 58")], [("device 0", "failed", "sm_70 is too old")]]:
            entry, record = self.found([*self.CHECKS, *checks])
            self.assertEqual(entry["reason"], f"device 0: {checks[0][1]}: sm_70 is too old; CUDA_VISIBLE_DEVICES names another")

    def test_a_record_of_today_is_not_written_over(self):
        self.found(self.CHECKS)
        with unittest.mock.patch.object(records.pathlib.Path, "exists", lambda _: True), self.assertRaisesRegex(SystemExit, "--continue"):
            self.found(self.CHECKS)

    def test_the_simulator_and_another_device_are_refused(self):
        for checks, earlier in [([("device 0", "ok", "Kiln simulator (sm_90), sm_90, 132 multiprocessors")], {}), (self.CHECKS, dict(device="NVIDIA L4"))]:
            with self.assertRaises(SystemExit):
                self.found(checks, **earlier)


class Continued(unittest.TestCase):
    def test_what_is_ok_is_kept_and_the_rest_runs_again(self):
        recorded, ran = Recorded(self), []
        steps = [dict(step="a", ok=True), dict(step="b", ok=False, reason="x"), dict(step="c", ok=True, skipped=True), dict(step="d", ok=False, incomplete=True)]
        recorded.before = {step["step"]: step for step in [dict(step=check.DEVICE, ok=True), *steps, dict(step="f", ok=True)]}
        recorded.again = {"f"}
        with contextlib.redirect_stdout(io.StringIO()):
            for name in (check.DEVICE, "a", "b", "c", "d", "e", "f"):
                recorded.step(name, lambda: ran.append(name) or {})
        self.assertEqual(ran, [check.DEVICE, "b", "c", "d", "e", "f"])
        self.assertEqual([step["step"] for step in recorded.record["steps"]], [check.DEVICE, "a", "b", "c", "d", "e", "f"])
        self.assertEqual(recorded.record["steps"][1], steps[0])
        self.assertEqual(recorded.before, {})

    def test_steps_that_are_not_asked_for_stay(self):
        recorded = Recorded(self)
        recorded.only, recorded.before = re.compile("z"), dict(a=dict(step="a", ok=False, reason="x"))
        recorded.step("a", lambda: self.fail("not asked for"))
        self.assertEqual(recorded.record["steps"], [dict(step="a", ok=False, reason="x")])

    def test_a_record_is_whole_at_any_time_and_of_one_commit(self):
        with tempfile.TemporaryDirectory() as folder:
            one = Recorded(self)
            one.args, one.record = unittest.mock.Mock(out=pathlib.Path(folder)), dict(simulated=False, date="2026-01-02T03", commit="abc", device="X", gpu="X, sm_90,", host="h", steps=[])
            one.before = dict(a=dict(step="a", ok=True))
            check.Check.write(one)
            path = pathlib.Path(folder) / "2026-01-02-X.json"
            self.assertEqual(json.loads(path.read_text())["steps"], [dict(step="a", ok=True)])
            later = Recorded(self)
            later.record = dict(simulated=False, date="2026-01-05T00", commit="abc", steps=[])
            self.assertEqual(later.earlier(path)[0], one.before)
            always = {check.COMPILED, check.DEVICE}
            for simulator, again in [(dict(ok=True), always), (dict(ok=True, skipped=True), always), (dict(ok=False), {*always, check.KERNELS})]:
                one.before = {check.KERNELS: dict(step=check.KERNELS, ok=True), check.SIMULATOR: dict(simulator, step=check.SIMULATOR)}
                check.Check.write(one)
                self.assertEqual(later.earlier(path), (one.before, again))
            one.before = dict(a=dict(step="a", ok=True))
            check.Check.write(one)
            self.assertEqual((later.record["date"], later.record["device"]), ("2026-01-02T03", "X"))
            for key in ("commit", "simulated"):
                later.record[key] = "another"
                with self.assertRaises(SystemExit):
                    later.earlier(path)
                later.record[key] = one.record[key]


class Benches(unittest.TestCase):
    @staticmethod
    def bench(rounds: list, **failures: str) -> dict:
        names = {name for found in rounds for name in found}
        rows = [dict(name=name, ratio=1.0) for name in sorted(names)]
        return dict(base="kiln-graph", rounds=rounds, failures=failures, rows=rows, names=sorted({*names, *failures}))

    def test_one_whole_round_is_a_result_and_fewer_are_told(self):
        pair = dict.fromkeys(("kiln-graph", "torch-cuda"), (1.0, 0.97))
        found = speed.benched(self.bench([pair, pair]), 2, "")
        self.assertEqual(found["result"], "times kiln-graph: kiln-graph 1.00, torch-cuda 1.00")
        found = speed.benched(self.bench([pair, {"kiln-graph": (1.0, 0.97)}], **{"jax-cuda": "no jax"}), 3, "not done after 150 s")
        self.assertTrue(found["result"].endswith("; jax-cuda: no jax; 1 of 3 rounds"), found)

    def test_half_a_round_or_no_peer_is_none(self):
        alone, other = {"kiln-graph": (1.0, 0.97)}, {"torch-cuda": (1.0, 0.97)}
        with self.assertRaisesRegex(records.Incomplete, "no peer ran: torch-cuda: no torch"):
            speed.benched(self.bench([alone], **{"torch-cuda": "no torch"}), 1, "")
        with self.assertRaisesRegex(records.Incomplete, "no whole round: not done after 150 s"):
            speed.benched(self.bench([alone, other]), 2, "not done after 150 s")
        cut = self.bench([alone | other]) | dict(names=["jax-cuda", "kiln-graph", "torch-cuda"])
        with self.assertRaisesRegex(records.Incomplete, "no whole round: not done after 150 s"):
            speed.benched(cut, 3, "not done after 150 s")
        with self.assertRaisesRegex(records.Failed, "kiln-resident: it failed"):
            speed.benched(self.bench([alone | other], **{"kiln-resident": "it failed"}), 1, "")
        self.assertIn("result", speed.benched(self.bench([alone]), 1, "", alone=True))


class Seeds(unittest.TestCase):
    def found(self, text: str, kiln: list) -> dict:
        recorded = Recorded(self)
        recorded.took("sweep, 10 runs", lambda: dict(accuracies=kiln))
        recorded.data, recorded.packages = recorded.work / "data", lambda *names: list(names)
        recorded.run = lambda line, limit_s, **_: subprocess.CompletedProcess(line, 0, text, "")
        return recorded.took("ten seeds beside PyTorch's", recorded.seeds)

    def test_ten_are_beside_ten(self):
        rows = [json.dumps(dict(test_accuracy=0.97 + 0.001 * (at * 7 % 10))) for at in range(10)]
        entry = self.found("a warning\n" + "\n".join(rows), [0.97, 0.98])
        self.assertEqual(entry["result"], "torch 0.9700 to 0.9790, mean 0.9745; kiln 0.9700 to 0.9800, mean 0.9750")
        self.assertEqual(self.found("\n".join(rows[:9]), [])["reason"], "9 of ten seeds have a result")

    def test_a_peer_runs_once_for_each_seed(self):
        script = Recorded(self).work / "peer.py"
        script.write_text("import sys\nif __name__ == '__main__':\n    print(sys.argv[1:])\n")
        done = subprocess.run([sys.executable, "-c", speed.SEEDS, script, "--device", "cuda"], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines(), [str(["--device", "cuda", "--seed", str(seed)]) for seed in range(10)])


class Sanitizer(unittest.TestCase):
    def found(self, engine: str, command: list, *, code: int = 0, out: str = "", error: str = "", tool: str = "memcheck", version: str = "2026.3.0") -> dict:
        recorded, self.lines = Recorded(self), []
        recorded.record["gpu"] = engine

        def run(line: list, limit_s: float) -> subprocess.CompletedProcess:
            self.lines.append(line)
            told = {"--version": f"NVIDIA (R) Compute Sanitizer\nVersion {version}\n", "--help": "  --num-cuda-barriers arg\n"}.get(line[1])
            return subprocess.CompletedProcess(line, 0, told, "") if told else subprocess.CompletedProcess(line, code, out, error)

        recorded.run = run
        with unittest.mock.patch.object(records.shutil, "which", lambda tool: f"/usr/bin/{tool}"):
            return recorded.took("compute-sanitizer", lambda: recorded.sanitizer(tool, *command))

    H200, A100 = (f"NVIDIA {name} multiprocessors" for name in ("H200, sm_90, 132", "A100, sm_80, 108"))

    def test_a_cluster_needs_a_device_that_has_them(self):
        commands, clean = Recorded(self).sanitized(), "========= ERROR SUMMARY: 0 errors\n"
        verdicts = {name: [records.verdict(self.found(engine, command, out=clean)) for engine in (self.H200, self.A100)] for name, command in commands.items()}
        for name, command in commands.items():
            self.assertEqual(verdicts[name], ["ok", "skipped" if "cluster" in command else "ok"], name)
        self.assertEqual([name for name in verdicts if "cluster" in name], [name for name, command in commands.items() if "cluster" in command])

    def test_a_dry_run_runs_what_is_short_once_and_alone(self):
        recorded, ran = Recorded(self, dry=True), []
        recorded.kiln = lambda *command: ran.append(command)
        commands = recorded.sanitized()
        for tool in check.SANITIZERS:
            for name, command in commands.items():
                entry = recorded.took(f"{tool}, {name}", lambda: recorded.sanitizer(tool, *command))
                alone = tool == "memcheck" and not name.startswith("wide")
                self.assertEqual(records.verdict(entry), "ok" if alone else "skipped", f"{tool}, {name}")
        self.assertEqual(ran, [tuple(command) for name, command in commands.items() if not name.startswith("wide")])

    def test_wide_layers_are_trained_on_copies(self):
        source = (SCRIPTS.parent / "crates" / "kiln-engine" / "src" / "choices.rs").read_text()
        power = int(re.search(r"copied_weights_max: 1 << (\d+)", source)[1])
        for name, command in Recorded(self).sanitized().items():
            if name.startswith("wide"):
                widths = [int(width) for width in command[command.index("--layers") + 1].split(",")]
                self.assertGreater(widths[0] * widths[1], 1 << power)

    def test_errors_and_silence_fail(self):
        entry = self.found(self.H200, ["parity"], code=9, out="========= ERROR SUMMARY: 3 errors\n")
        self.assertEqual((entry["ok"], entry["reason"], entry["version"]), (False, "========= ERROR SUMMARY: 3 errors", "2026.3"))
        entry = self.found(self.H200, ["parity"], code=2, error="error: no such flag\n")
        self.assertEqual((entry["ok"], entry["reason"]), (False, "exit code 2; error: no such flag"))
        self.assertFalse(self.found(self.H200, ["parity"])["ok"])
        entry = self.found(self.H200, ["parity"], code=1, out="========= Error: Device not supported\n")
        self.assertEqual(records.verdict(entry), "skipped")
        entry = self.found(self.H200, ["parity"], code=1, error="error: resident engine: blocks: expected room for 16, found 8\n")
        self.assertEqual(records.verdict(entry), "skipped")

    def test_hazards_count_though_the_tool_ends_well(self):
        clean = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
        resident = ["parity", "--engine", "resident"]
        entry = self.found(self.H200, resident, tool="racecheck", out=clean)
        self.assertEqual((records.verdict(entry), entry["version"]), ("ok", "2026.3"))
        self.assertEqual(self.lines[-1][3:5], ["--num-cuda-barriers", 16])
        self.assertEqual(records.verdict(self.found(self.H200, resident, tool="racecheck", out=clean.replace("0 hazards", "1 hazards"))), "FAILED")
        lost = "========= Warning: Detected overflow of tracked cuda::barrier structures. Results might be incorrect.\n"
        self.assertEqual(records.verdict(self.found(self.H200, resident, tool="synccheck", out=lost + clean)), "incomplete")
        self.found(self.H200, resident, out=clean)
        self.assertNotIn("--num-cuda-barriers", self.lines[-1])

    def test_what_an_old_tool_is_known_to_be_wrong_about_is_not_found_out(self):
        hazards = dict(code=9, out="========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n", version="2025.3.0")
        for tool, command, verdict in [
            ("racecheck", ["parity", "--engine", "resident"], "incomplete"),
            ("racecheck", ["parity", "--engine", "graph"], "FAILED"),
            ("memcheck", ["parity", "--engine", "resident"], "FAILED"),
        ]:
            self.assertEqual(records.verdict(self.found(self.H200, command, tool=tool, **hazards)), verdict, (tool, command))


class Records(unittest.TestCase):
    def test_a_step_that_meets_the_unexpected_fails_and_the_next_is_made(self):
        recorded = Recorded(self)
        rows = [dict(event="run", run=run, error=None, test_accuracy=accuracy) for run, accuracy in enumerate([None, 0.9])]
        recorded.kiln = lambda *_: "\n".join(map(json.dumps, rows))
        entry = recorded.took("sweep, 2 runs", lambda: recorded.runs(2))
        self.assertEqual(records.verdict(entry), "FAILED")
        self.assertIn("TypeError: ", entry["reason"])
        self.assertEqual(records.verdict(recorded.took("next", dict)), "ok")

    def test_a_skipped_step_is_neither_passed_nor_failed(self):
        steps = [dict(step="a", ok=True, skipped=True, reason="ncu is not on PATH"), dict(step="b", ok=False, reason="off by 1"), dict(step="c", ok=True),
                 dict(step="d", ok=False, incomplete=True, reason="60 of 102 runs")]
        record = dict(simulated=False, date="2026-01-01", commit="abc", host="x", gpu="X, sm_90", clocks=dict(first=None), steps=steps)
        text = check.markdown(record)
        self.assertIn("Device: X, sm_90\n\n|", text)
        self.assertIn("first 345 MHz; last 1980 MHz", check.markdown(record | dict(clocks=dict(first="345 MHz", last="1980 MHz"))))
        self.assertIn("| a | skipped |", text)
        self.assertIn("| b | FAILED |", text)
        self.assertIn("| c | ok |", text)
        self.assertIn("| d | incomplete |  |  | 60 of 102 runs |", text)


if __name__ == "__main__":
    unittest.main()
