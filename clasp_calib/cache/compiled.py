"""The numba kernels of `clasp_calib.cache.kernels`; imported when the first sum is asked for.

numba knows no half-precision floats on CPUs, but LLVM does: its ``fpext`` becomes the processor's own widening
instruction, eight or sixteen values at a time.
"""

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from clasp_calib.cache.precision import GROUP

BLOCK = 2048
"""Values of a block. 8 KiB of sums and 4 KiB of each layer fit the first-level cache."""


@intrinsic
def _widen_half(_: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _widen_brain(_: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _pointer(_: Any, address: Any, kind: Any) -> Any:
    signature = types.CPointer(kind.dtype)(types.uint64, kind)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


def _halves_kernel(widen: Any) -> Any:
    @numba.njit(nogil=True)
    def kernel(data: Any, scales: Any, weights: Any, out_TC: Any, channels: int) -> None:
        sums = out_TC.reshape(-1)
        layers = len(data)
        for start in range(0, len(sums), BLOCK):
            size = min(BLOCK, len(sums) - start)
            block = sums[start : start + size]
            skip = numba.uint64(2 * start)
            layer = 0
            if layers >= 4:  # The first four start the sums, which are then not read; 0 + -0.0 is 0.0 as elsewhere.
                a = numba.carray(_pointer(data[0] + skip, numba.uint16), size)
                b = numba.carray(_pointer(data[1] + skip, numba.uint16), size)
                c = numba.carray(_pointer(data[2] + skip, numba.uint16), size)
                d = numba.carray(_pointer(data[3] + skip, numba.uint16), size)
                u, v, w, x = weights[0], weights[1], weights[2], weights[3]
                for i in range(size):
                    sum_ = numba.float32(0) + u * widen(a[i])
                    sum_ = sum_ + v * widen(b[i])
                    sum_ = sum_ + w * widen(c[i])
                    block[i] = sum_ + x * widen(d[i])
                layer = 4
            else:
                for i in range(size):
                    block[i] = numba.float32(0)
            while layer + 4 <= layers:
                a = numba.carray(_pointer(data[layer] + skip, numba.uint16), size)
                b = numba.carray(_pointer(data[layer + 1] + skip, numba.uint16), size)
                c = numba.carray(_pointer(data[layer + 2] + skip, numba.uint16), size)
                d = numba.carray(_pointer(data[layer + 3] + skip, numba.uint16), size)
                u, v, w, x = weights[layer], weights[layer + 1], weights[layer + 2], weights[layer + 3]
                for i in range(size):
                    sum_ = block[i] + u * widen(a[i])
                    sum_ = sum_ + v * widen(b[i])
                    sum_ = sum_ + w * widen(c[i])
                    block[i] = sum_ + x * widen(d[i])
                layer += 4
            while layer < layers:
                a = numba.carray(_pointer(data[layer] + skip, numba.uint16), size)
                u = weights[layer]
                for i in range(size):
                    block[i] = block[i] + u * widen(a[i])
                layer += 1

    return kernel


@numba.njit(nogil=True)
def _integers_kernel(data: Any, scales: Any, weights: Any, out_TC: Any, channels: int) -> None:
    sums = out_TC.reshape(-1)
    groups = (channels + GROUP - 1) // GROUP
    for token in range(len(out_TC)):
        row = token * channels
        for i in range(channels):
            sums[row + i] = numba.float32(0)
        for layer in range(len(data)):
            steps = numba.carray(_pointer(scales[layer] + numba.uint64(2 * token * groups), numba.uint16), groups)
            weight = weights[layer]
            for group in range(groups):
                step = _widen_half(steps[group])
                first = row + group * GROUP
                size = min(GROUP, channels - group * GROUP)
                codes = numba.carray(_pointer(data[layer] + numba.uint64(first), numba.int8), size)
                block = sums[first : first + size]
                # The value of a code first, then its weight, as after `Precision.decode`.
                if size == GROUP:
                    for i in range(GROUP):
                        block[i] = block[i] + weight * (numba.float32(codes[i]) * step)
                else:
                    for i in range(size):
                        block[i] = block[i] + weight * (numba.float32(codes[i]) * step)


KERNELS = {
    "float16": _halves_kernel(_widen_half),
    "bfloat16": _halves_kernel(_widen_brain),
    "int8": _integers_kernel,
}
