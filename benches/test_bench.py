"""scripts/bench computes what it says: medians, ratios within a round, and reads what kiln and the peers print."""
import argparse
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
sys.dont_write_bytecode = True
LOADER = importlib.machinery.SourceFileLoader("bench", str(Path(__file__).parent.parent / "scripts" / "bench"))
bench = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", LOADER))
LOADER.exec_module(bench)


class Parsing(unittest.TestCase):
    def test_a_peers_object(self):
        line = json.dumps(dict(epoch_seconds=[1.5, 0.5], test_accuracy=0.97))
        self.assertEqual(bench.parse("warning: something\n" + line), (1.0, 0.97))

    def test_kilns_events(self):
        events = [dict(event="start"), dict(event="epoch", seconds=0.25, test_accuracy=0.9),
                  dict(event="epoch", seconds=0.5, test_accuracy=0.95), dict(event="summary", epoch_wall_seconds=[0.25, 9.0])]
        self.assertEqual(bench.parse("\n".join(map(json.dumps, events))), (1.0, 0.95))
        self.assertEqual(bench.parse("\n".join(map(json.dumps, [events[1], events[3]]))), (0.25, 0.9))

    def test_an_engine_that_the_device_times_is_timed_by_the_host(self):
        epochs = [dict(event="epoch", seconds=0.001, device_seconds=0.001, test_accuracy=0.9)] * 4
        events = [*epochs, dict(event="summary", epoch_wall_seconds=[5.0, 0.002, 0.003, 0.5])]
        self.assertEqual(bench.parse("\n".join(map(json.dumps, events))), (4 * 0.003, 0.9))

    def test_no_output_is_an_error(self):
        with self.assertRaises(RuntimeError):
            bench.parse("nothing\n")

    def test_a_failing_command_gives_its_last_line(self):
        with self.assertRaisesRegex(RuntimeError, "the reason"):
            bench.run(["sh", "-c", "echo noise >&2; echo the reason >&2; exit 3", "--threads", "1"])
        with self.assertRaisesRegex(RuntimeError, "^error: the reason"):
            bench.run(["sh", "-c", "echo error: the reason >&2; echo help: try less >&2; exit 1"])

    def test_a_run_that_takes_too_long_is_ended(self):
        with self.assertRaisesRegex(RuntimeError, "not done after 0 s"):
            bench.run(["sleep", "20"], 0.1)


class Statistics(unittest.TestCase):
    ROUNDS = [dict(kiln=(1.0, 0.97), torch=(4.0, 0.975)), dict(kiln=(2.0, 0.97), torch=(4.0, 0.975)),
              dict(kiln=(1.0, 0.97), torch=(5.0, 0.975))]

    def test_ratios_are_taken_within_a_round(self):
        rows = {row["name"]: row for row in bench.summarise(self.ROUNDS, "kiln", 1000)}
        self.assertEqual(rows["torch"]["ratio"], 4.0)  # the median of 4, 2 and 5
        self.assertEqual((rows["kiln"]["median_s"], rows["kiln"]["max_s"]), (1.0, 2.0))
        self.assertEqual(rows["kiln"]["us_per_step"], 1000.0)

    def test_the_fastest_comes_first_and_a_missing_base_gives_no_ratio(self):
        rows = bench.summarise([dict(a=(3.0, 0.9), b=(2.0, 0.9))], "kiln", 10)
        self.assertEqual([row["name"] for row in rows], ["b", "a"])
        self.assertIsNone(rows[0]["ratio"])

    def test_the_table_has_a_row_for_each(self):
        text = bench.table(bench.summarise(self.ROUNDS, "kiln", 1000), "kiln")
        self.assertEqual(len(text.splitlines()), 4)
        self.assertIn("| torch | 4.00 | 4.00-5.00 | 4000 | 4.00 | 97.50% |", text)

    def test_sizes_are_beside_the_fastest_kiln(self):
        row = lambda name, us: dict(name=name, us_per_step=us)
        results = [(32, 128, [row("kiln-host-1", 50.0), row("kiln-host-2", 40.0), row("torch-1", 100.0)]),
                   (64, 4096, [row("torch-1", 900.0)])]
        lines = bench.sizes_table(results).splitlines()
        self.assertEqual(lines[0], "| batch | hidden | kiln-host-1 | kiln-host-2 | torch-1 |")
        self.assertEqual(lines[2], "| 32 | 128 | 50 (1.25) | 40 (1.00) | 100 (2.50) |")
        self.assertEqual(lines[3], "| 64 | 4096 |  |  | 900 |")


def arguments(device, only="", **more):
    given = dict(device=device, limit=60, epochs=1, batch=64, hidden=128, threads="1,2", only=only, kiln=None, python=None, large=False) | more
    return argparse.Namespace(**given)


class Commands(unittest.TestCase):
    def names(self, device, only=""):
        return set(bench.commands(arguments(device, only), Path("data"), Path("out")))

    def test_devices_have_their_engines_and_peers(self):
        cpu, cuda = self.names("cpu"), self.names("cuda")
        self.assertIn("kiln-host-2", cpu)
        self.assertEqual({"kiln-graph", "kiln-resident", "torch-cuda-graph", "jax-cuda"} - cuda, set())
        self.assertIn("cublaslt", cuda)
        self.assertFalse(cpu & cuda)
        self.assertEqual(self.names("both"), cpu | cuda)
        self.assertEqual(self.names("both", "kiln-host,kiln-resident"), {"kiln-host-1", "kiln-host-2", "kiln-resident"})
        self.assertEqual(self.names("both", "torch,torch-cuda"), {"torch-1", "torch-2", "torch-cuda"})

    def test_given_programs_are_the_ones_that_run(self):
        lines = bench.commands(arguments("both", kiln=Path("/k"), python=Path("/p")), Path("data"), Path("out"))
        self.assertEqual({line[0] for line in lines.values()}, {"/k", "/p"})
        self.assertFalse([name for name in lines if name.startswith(("candle", "cublaslt"))])

    def test_cublaslt_is_taken_from_beside_a_given_kiln(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "peer-cublaslt").touch()
            lines = bench.commands(arguments("cuda", kiln=Path(folder) / "kiln"), Path("data"), Path("out"))
            self.assertEqual(lines["cublaslt"][0], str(Path(folder) / "peer-cublaslt"))

    def test_the_large_model_has_each_precision(self):
        lines = bench.commands(arguments("cuda", batch=8192, large=True), Path("data"), Path("out"))
        names = ("kiln-graph", "cublaslt", "torch-cuda", "torch-cuda-compile")
        self.assertEqual(set(lines), {f"{name}-{p}" for name in names for p in ("f32", "tf32", "bf16")})
        for name, line in lines.items():
            at = lambda flag: line[line.index(flag) + 1]
            self.assertEqual((at("--layers"), at("--batch")), ("784,4096,4096,10", "8192"))
            self.assertEqual(at("--precision"), name.rsplit("-", 1)[1])
        only = bench.commands(arguments("cuda", "cublaslt,kiln-graph-bf16", large=True), Path("data"), Path("out"))
        self.assertEqual(set(only), {"cublaslt-f32", "cublaslt-tf32", "cublaslt-bf16", "kiln-graph-bf16"})


class Libraries(unittest.TestCase):
    def test_the_newest_cublaslt_of_the_packages_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            out, packages = Path(folder) / "out", Path(folder) / "site-packages"
            out.mkdir()
            for kind, version in [("cublas", 12), ("cu13", 13)]:
                library = packages / "nvidia" / kind / "lib" / f"libcublasLt.so.{version}"
                library.parent.mkdir(parents=True)
                library.touch()
            environment = dict(os.environ, PYTHONPATH=str(packages), LD_LIBRARY_PATH="/first")
            with unittest.mock.patch.dict(os.environ, environment):
                bench.find_cublaslt(arguments("cuda", python=Path(sys.executable), out=out))
                self.assertEqual(os.environ["LD_LIBRARY_PATH"], f"/first:{out.resolve()}/lib")
            self.assertEqual((out / "lib" / "libcublasLt.so").readlink().name, "libcublasLt.so.13")

    def test_packages_without_one_change_nothing(self):
        with unittest.mock.patch.dict(os.environ, LD_LIBRARY_PATH="/first"):
            bench.find_cublaslt(arguments("cuda", python=Path("/nowhere/python")))
            self.assertEqual(os.environ["LD_LIBRARY_PATH"], "/first")


class Writing(unittest.TestCase):
    def test_the_large_models_ratios_are_within_a_precision(self):
        with tempfile.TemporaryDirectory() as folder:
            args = arguments("cuda", out=Path(folder), batch=8192, large=True)
            about = dict(gpu="a GPU", cpu="a CPU", cores=2, commit="abc", date="2026-01-01", command="scripts/bench --large")
            rounds = [{"kiln-graph-f32": (8.0, 0.9), "cublaslt-f32": (6.0, 0.9), "kiln-graph-bf16": (2.0, 0.9),
                       "cublaslt-bf16": (1.0, 0.9)}]
            bench.write(args, about, rounds, {})
            found = json.loads((Path(folder) / "bench.json").read_text())
            self.assertEqual(found["base"], "kiln-graph")
            ratios = {row["name"]: row["ratio"] for row in found["rows"]}
            self.assertEqual((ratios["cublaslt-f32"], ratios["cublaslt-bf16"]), (0.75, 0.5))

    def test_each_run_is_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            args = arguments("cpu", out=Path(folder), rounds=3, only="kiln-host-1,torch-1")
            results = iter([(1.0, 0.97), (3.0, 0.97), RuntimeError("no torch"), (2.0, 0.97), (1.5, 0.97)])
            about = dict(gpu=None, cpu="a CPU", cores=2, commit="abc", date="2026-01-01", command="scripts/bench")
            kept = []

            def run(line, limit_s):
                self.assertEqual(limit_s, 60)
                found = next(results)
                if isinstance(found, Exception):
                    raise found
                return found

            def after(rounds, failures):
                bench.write(args, about, rounds, failures)
                kept.append(json.loads((Path(folder) / "bench.json").read_text()))

            with unittest.mock.patch.object(bench, "run", run), unittest.mock.patch("sys.stderr"):
                bench.measure(args, Path("data"), after)
            self.assertEqual([[len(found) for found in one["rounds"]] for one in kept], [[1], [2], [2], [2, 1], [2, 1, 1]])
            self.assertEqual([one["base"] for one in kept], ["kiln-host-1"] * 5)
            self.assertEqual(kept[0]["names"], ["kiln-host-1", "torch-1"])
            self.assertEqual(kept[1]["rows"][1]["ratio"], 3.0)
            self.assertEqual(kept[2]["failures"], {"torch-1": "no torch"})
            self.assertIn("torch-1 could not run: no torch", (Path(folder) / "bench.md").read_text())


if __name__ == "__main__":
    unittest.main()
