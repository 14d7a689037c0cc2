#!/usr/bin/env python3
"""Keeps a GPU busy for a known part of the time, by the CUDA driver alone: no toolkit, no PyTorch.

Prints one JSON line at the end: how long kernels were asked to run, and the wall time."""

import argparse
import ctypes
import json
import time

PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 ns)
{
    .reg .u64 %rd<4>;
    .reg .pred %p<2>;
    ld.param.u64 %rd1, [ns];
    mov.u64 %rd2, %globaltimer;
    add.u64 %rd2, %rd2, %rd1;
again:
    mov.u64 %rd3, %globaltimer;
    setp.lt.u64 %p1, %rd3, %rd2;
    @%p1 bra again;
    ret;
}
"""


def check(code, what):
    if code != 0:
        raise SystemExit(f"{what}: CUDA error {code}")


class Gpu:
    def __init__(self, index):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        check(self.cuda.cuInit(0), "cuInit")
        device, self.context = ctypes.c_int(), ctypes.c_void_p()
        check(self.cuda.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
        check(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self.context), device), "cuDevicePrimaryCtxRetain")
        check(self.cuda.cuCtxSetCurrent(self.context), "cuCtxSetCurrent")
        module, self.kernel = ctypes.c_void_p(), ctypes.c_void_p()
        check(self.cuda.cuModuleLoadData(ctypes.byref(module), ctypes.c_char_p(PTX)), "cuModuleLoadData")
        check(self.cuda.cuModuleGetFunction(ctypes.byref(self.kernel), module, b"spin"), "cuModuleGetFunction")

    def spin(self, ns):
        """Runs one kernel for so long, and waits for it."""
        argument = ctypes.c_uint64(ns)
        arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(argument), ctypes.c_void_p))
        one = ctypes.c_uint(1)
        launched = self.cuda.cuLaunchKernel(
            self.kernel, one, one, one, one, one, one, ctypes.c_uint(0), None, arguments, None
        )
        check(launched, "cuLaunchKernel")
        check(self.cuda.cuCtxSynchronize(), "cuCtxSynchronize")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--duty", type=int, default=100, help="percent of the time")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--period-ms", type=int, default=100)
    parser.add_argument("--kernel-seconds", type=float, help="one kernel of this length instead")
    parser.add_argument("--device", type=int, default=0)
    given = parser.parse_args()
    gpu = Gpu(given.device)
    start, asked_ns = time.monotonic_ns(), 0
    if given.kernel_seconds:
        asked_ns = int(given.kernel_seconds * 1e9)
        gpu.spin(asked_ns)
    period_ns = given.period_ms * 1_000_000
    turns = 0 if given.kernel_seconds else int(given.seconds * 1e9 / period_ns)
    for turn in range(turns):
        gpu.spin(period_ns * given.duty // 100)
        asked_ns += period_ns * given.duty // 100
        rest = start + (turn + 1) * period_ns - time.monotonic_ns()
        if rest > 0:
            time.sleep(rest / 1e9)
    wall = (time.monotonic_ns() - start) / 1e9
    print(json.dumps({"asked_seconds": asked_ns / 1e9, "wall_seconds": wall}), flush=True)


main()
