#!/usr/bin/env python3
"""Tests scripts/sim: what it says, the status that it ends with, and that it runs a command under the simulator's library."""

import os
import pathlib
import subprocess
import unittest

SIM = pathlib.Path(__file__).with_name("sim")


def sim(*arguments: str, **settings: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KILN_SIM_")}
    return subprocess.run([SIM, *arguments], env=clean | settings, capture_output=True, text=True)


class Sim(unittest.TestCase):
    def test_wrong_usage_is_explained(self):
        for arguments in ([], ["--seeds"], ["--seeds", "3"], ["--seeds", "0", "true"], ["--seeds", "many", "true"]):
            ran = sim(*arguments)
            self.assertEqual(ran.returncode, 2, arguments)
            self.assertIn("scripts/sim --seeds N COMMAND...", ran.stderr)

    def test_the_status_is_the_commands_own(self):
        for status in (0, 3, 86):
            self.assertEqual(sim("sh", "-c", f"exit {status}").returncode, status)

    def test_the_library_is_a_libcuda_in_a_folder_of_its_own(self):
        ran = sim("sh", "-c", 'echo "${LD_LIBRARY_PATH%%:*}"')
        folder = pathlib.Path(ran.stdout.strip())
        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["libcuda.so", "libcuda.so.1"])
        for path in folder.iterdir():
            self.assertEqual(path.resolve().name, "libkiln_sim_driver.so")
        # Cargo searches these before anything that a user sets.
        for searched in (folder.parent / "release", folder.parent / "release" / "deps"):
            self.assertEqual(list(searched.glob("libcuda.so*")), [])

    def test_a_program_finds_the_simulator(self):
        code = (
            "import ctypes; cuda = ctypes.CDLL('libcuda.so.1'); name = ctypes.create_string_buffer(99); "
            "assert cuda.cuInit(0) == 0 and cuda.cuDeviceGetName(name, 99, 0) == 0; print(name.value.decode())"
        )
        ran = sim("python3", "-c", code, KILN_SIM_ARCH="sm_120")
        self.assertEqual((ran.returncode, ran.stdout), (0, "Kiln simulator (sm_120)\n"), ran.stderr)

    def test_the_example_of_the_documentation(self):
        example = ["cargo", "run", "--quiet", "--locked", "--package", "kiln-sim-driver", "--example", "two_streams"]
        ran = sim(*example)
        self.assertEqual(ran.returncode, 86, ran.stderr)
        guide = (SIM.parent.parent / "docs" / "SIMULATOR.md").read_text()
        for line in (ran.stdout + ran.stderr).splitlines():
            self.assertIn(line + "\n", guide)
        ran = sim(*example, "--", "--event")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        ran = sim(*example, KILN_SIM_FAULT="oom@1")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("CUDA_ERROR_OUT_OF_MEMORY", ran.stderr)

    def test_seeds_are_tried_up_to_the_first_that_fails(self):
        ran = sim("--seeds", "5", "sh", "-c", 'echo $KILN_SIM_SEED; [ "$KILN_SIM_SEED" -lt 2 ] || exit 86')
        self.assertEqual((ran.returncode, ran.stdout), (86, "0\n1\n2\n"))
        self.assertEqual(ran.stderr, "scripts/sim: status 86 with KILN_SIM_SEED=2\n")
        ran = sim("--seeds", "3", "sh", "-c", "echo $KILN_SIM_SEED")
        self.assertEqual((ran.returncode, ran.stdout), (0, "0\n1\n2\n"))
        self.assertEqual(ran.stderr, "scripts/sim: 3 seeds, none failed\n")


if __name__ == "__main__":
    unittest.main()
