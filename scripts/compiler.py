"""The pinned CUDA C++ compiler, NVRTC, and the pinned PTX assembler, ptxas: from PyPI, checked by hash and unpacked into
target/ on the first use.

Building and testing Kiln need neither it nor the scripts that import this module. The PTX that comes out is the same on
every machine: no line of it depends on where the repository or the compiler lies.

    python3 scripts/compiler.py       unpacks the compiler and prints the folder of its libraries
"""

import ctypes
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NVRTC = "12.4.127"  # PTX ISA 8.4: the newest that drivers from R550 on accept
PTXAS = "13.0.88"  # knows every architecture from sm_80 to sm_120
HOME = ROOT / "target" / f"nvrtc-{NVRTC}"
LIBRARIES = HOME / "nvidia" / "cuda_nvrtc" / "lib"
ASSEMBLER = ROOT / "target" / f"ptxas-{PTXAS}"
PROGRAM = ASSEMBLER / "nvidia" / "cu13" / "bin" / "ptxas"
PTXAS_ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
# Hashes of the wheels for x86_64 and aarch64.
NVRTC_WHEELS = {
    f"nvidia-cuda-nvrtc-cu12=={NVRTC}": (
        "a178759ebb095827bd30ef56598ec182b85547f1508941a3d560eb7ea1fbf338",
        "0eedf14185e04b76aa05b1fea04133e59f465b6f960c0cbf4e37c3cb6b0ea198",
    ),
    f"nvidia-cuda-runtime-cu12=={NVRTC}": (
        "64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5",
        "961fe0e2e716a2a1d967aab7caee97512f71767f852f67432d572e36cb3a11f3",
    ),
}
PTXAS_WHEELS = {
    f"nvidia-cuda-nvcc=={PTXAS}": (
        "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
        "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f",
    ),
}


def install(home: pathlib.Path = HOME, wheels: dict[str, tuple[str, ...]] = NVRTC_WHEELS) -> None:
    """Unpacks wheels into a folder, unless an earlier run has."""
    if (home / "complete").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} " + " ".join(f"--hash=sha256:{h}" for h in hashes) for name, hashes in wheels.items()]
    (home / "requirements.txt").write_text("\n".join(lines) + "\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    pip += ["--no-deps", "--upgrade", "--only-binary=:all:", "--require-hashes"]
    pip += ["--target", str(home), "-r", str(home / "requirements.txt")]
    subprocess.run(pip, check=True)
    (home / "complete").touch()


def install_assembler() -> None:
    """Unpacks ptxas, unless an earlier run has."""
    install(ASSEMBLER, PTXAS_WHEELS)
    PROGRAM.chmod(0o755)  # pip does not keep the mode


def ptxas(ptx: pathlib.Path, arch: str) -> str:
    """Assembles PTX for an architecture with the assembler that is installed; what ptxas reports of each kernel's resources."""
    command = [str(PROGRAM), "-v", f"-arch={arch}", "-o", str(ptx.with_suffix(f".{arch}.cubin")), str(ptx)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"ptxas -arch={arch} {ptx}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class Nvrtc:
    """The calls of libnvrtc that a compilation takes."""

    def __init__(self) -> None:
        if platform.system() != "Linux":
            sys.exit("the pinned compiler is for Linux")
        install()
        ctypes.CDLL(str(LIBRARIES / "libnvrtc-builtins.so.12.4"), mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(LIBRARIES / "libnvrtc.so.12"))

    def text(self, program: ctypes.c_void_p, what: str) -> str:
        """What nvrtcGet<what> returns for the program: PTX or ProgramLog."""
        size = ctypes.c_size_t()
        getattr(self.lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.lib, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()

    def compile(self, source: pathlib.Path, *more: str) -> str:
        """The PTX of a source, whose first line names the architecture, `//@ arch: sm_90`, by more options. A warning is a failure."""
        code = source.read_bytes()
        arch = re.match(rb"//@ arch: sm_(\d+a?)\n", code)
        if not arch:
            raise ValueError("the first line must be `//@ arch: sm_NN`")
        options = [f"-arch=compute_{arch[1].decode()}", "-lineinfo", "--std=c++17"]
        options += [f"-I{source.parent}", f"-I{HOME / 'nvidia' / 'cuda_runtime' / 'include'}"]
        options += more
        encoded = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        program = ctypes.c_void_p()
        status = self.lib.nvrtcCreateProgram(ctypes.byref(program), code, source.name.encode(), 0, None, None)
        if status != 0:
            raise ValueError(f"NVRTC status {status}")
        status = self.lib.nvrtcCompileProgram(program, len(options), encoded)
        log = self.text(program, "ProgramLog").strip()
        if status != 0 or log:
            raise ValueError(log or f"NVRTC status {status}")
        ptx = self.text(program, "PTX")
        self.lib.nvrtcDestroyProgram(ctypes.byref(program))
        return normalised(ptx)


def normalised(ptx: str) -> str:
    """Leaves of each path in `.file` the name alone: NVRTC makes them absolute."""
    ptx = re.sub(r'(\.file\s+\d+\s+")[^"]*?([^"/]+")', r"\1\2", ptx)
    return re.sub(r"(\.file\s+\d+\s+\"[^\"]+\"), \d+, \d+", r"\1", ptx).rstrip() + "\n"


if __name__ == "__main__":
    install()
    print(LIBRARIES)
