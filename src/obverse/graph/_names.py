"""Names of functions and tensor methods, by what they do to channels."""

from __future__ import annotations

__all__ = [
    "ALONG",
    "CONVOLUTIONS",
    "CREATIONS",
    "DROPOUTS",
    "ELEMENTWISE",
    "LIKE",
    "MOVES",
    "POOLS",
    "RANDOM",
    "REDUCE",
    "SAME",
    "SCATTERS",
    "SHAPED_LIKE",
    "STANDARDIZATIONS",
]

# fmt: off
MOVES = frozenset(
    [
        "view", "reshape", "flatten", "transpose", "permute", "contiguous", "cat", "concat", "concatenate", "split",
        "chunk", "getitem", "unsqueeze", "squeeze", "expand", "expand_as", "repeat", "repeat_interleave", "stack",
        "unbind", "movedim", "swapaxes", "swapdims", "t", "clone", "detach", "to", "flip", "roll", "unflatten",
        "view_as", "reshape_as", "narrow", "select", "tensor_split", "pixel_shuffle", "pixel_unshuffle",
        "channel_shuffle", "tile", "broadcast_to", "mT", "T", "H", "mH", "moveaxis", "split_with_sizes", "cpu", "cuda",
        "alias", "ravel", "unfold", "hstack", "vstack", "dstack", "data", "rot90", "fliplr", "flipud",
        "native_channel_shuffle", "index_select", "gather", "take_along_dim", "diagonal", "narrow_copy", "positive",
        "real", "atleast_1d", "atleast_2d", "atleast_3d", "requires_grad_", "pin_memory", "block_diag", "unsafe_chunk",
        "unsafe_split", "adjoint", "squeeze_", "unsqueeze_",
    ]
)
# fmt: on


# fmt: off
SAME = frozenset(
    [
        "to", "clone", "detach", "contiguous", "cpu", "cuda", "alias", "data", "positive", "requires_grad_",
        "pin_memory", "float", "double", "half", "bfloat16", "type", "type_as",
    ]
)
# fmt: on


# Functions that only move, whose further arguments say which type or shape to take.
SHAPED_LIKE = SAME | {"expand_as", "view_as", "reshape_as", "expand", "view", "reshape", "broadcast_to", "repeat"}


# fmt: off
SCATTERS = frozenset(
    [
        "index_add", "scatter_add", "scatter", "index_copy", "scatter_reduce", "index_put", "index_fill",
        "masked_scatter", "setitem",
    ]
)
# fmt: on


# fmt: off
ELEMENTWISE = frozenset(
    [
        "relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "elu",
        "selu", "celu", "mish", "softplus", "softsign", "tanhshrink", "logsigmoid", "exp", "log", "sqrt", "rsqrt",
        "abs", "neg", "square", "sin", "cos", "tan", "erf", "erfc", "pow", "float", "double", "half", "bfloat16",
        "clamp", "clip", "reciprocal", "log1p", "expm1", "exp2", "log2", "log10", "type", "type_as", "sign", "round",
        "floor", "ceil", "trunc", "frac", "nan_to_num", "isnan", "isinf", "isfinite", "logical_not", "bitwise_not",
        "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "erfinv", "lgamma", "digamma", "hardshrink",
        "softshrink", "threshold", "rrelu", "int", "long", "bool", "clamp_min", "clamp_max", "add", "sub", "mul",
        "truediv", "div", "true_divide", "maximum", "minimum", "multiply", "subtract", "where", "masked_fill", "rsub",
        "rpow", "rdiv", "floordiv", "floor_divide", "fmod", "remainder", "atan2", "lerp", "addcmul", "addcdiv", "xlogy",
        "hypot", "logaddexp", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor",
        "bitwise_and", "bitwise_or", "and", "or", "xor", "invert", "divide", "negative", "absolute", "fmin", "fmax",
        "copysign", "heaviside", "special_expit", "sinc", "mod", "copy", "fill_where", "prelu", "bitwise_left_shift",
        "bitwise_right_shift", "deg2rad", "polar", "view_as_real", "view_as_complex", "complex", "conj", "radd", "rmul",
        "rtruediv",
    ]
)
# fmt: on


# fmt: off
DROPOUTS = frozenset(
    [
        "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout",
        "native_dropout",
    ]
)
# fmt: on


# fmt: off
LIKE = frozenset(
    [
        "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "bernoulli",
        "normal", "uniform", "exponential", "zero", "fill",
    ]
)
# fmt: on


# fmt: off
POOLS = frozenset(
    [
        "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
        "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
        "adaptive_max_pool3d", "interpolate", "upsample", "lp_pool1d", "lp_pool2d", "grid_sample",
        "fractional_max_pool2d", "upsample_nearest", "upsample_bilinear",
    ]
)
# fmt: on


# fmt: off
REDUCE = frozenset(
    [
        "mean", "sum", "amax", "amin", "logsumexp", "max", "min", "argmax", "argmin", "prod", "var", "std", "norm",
        "any", "all", "median", "count_nonzero", "var_mean", "std_mean", "vector_norm", "linalg_vector_norm", "nansum",
        "nanmean", "mode", "aminmax",
    ]
)
# fmt: on


# fmt: off
ALONG = frozenset(
    [
        "softmax", "log_softmax", "softmin", "cumsum", "cumprod", "sort", "argsort", "topk", "normalize", "cummax",
        "cummin", "logcumsumexp", "_softmax", "kthvalue",
    ]
)
# fmt: on


# fmt: off
CREATIONS = frozenset(
    [
        "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn",
    ]
)
# fmt: on


# Functions whose numbers differ at every call, also where no input goes into them.
# fmt: off
RANDOM = frozenset(
    [
        "rand", "randn", "randint", "randperm", "normal", "uniform", "bernoulli", "multinomial", "rand_like",
        "randn_like", "randint_like", "exponential", "random", "cauchy", "log_normal", "geometric", "poisson",
        "trunc_normal",
    ]
)
# fmt: on


# Functions that center and scale numbers by their own statistics.
STANDARDIZATIONS = frozenset(
    ["batch_norm", "layer_norm", "instance_norm", "group_norm", "var_mean", "std_mean", "var", "std", "normalize"]
)


CONVOLUTIONS = {f"conv{n}d": False for n in (1, 2, 3)} | {f"conv_transpose{n}d": True for n in (1, 2, 3)}
