"""Batch normalization on tensors: the functions of the core, with the same names and results.

They work in eager mode, in `tf.function` and under XLA, with static and unknown shapes, and are
differentiable to any order, through the returned statistics too, and in forward mode. Large arrays
are summed in float32 in short runs; the answer is looked at, and where it has lost digits, it is
computed again in float64.
"""

from bnlib._extras import needed

with needed("bnlib.tf_ops", "tf"):
    from bnlib.tf_ops.batch_norm import batch_norm, fused_batch_norm
    from bnlib.tf_ops.moments import merge_moments, moments, sync_moments
    from bnlib.tf_ops.transform import batch_norm_inference, normalize, scale_and_shift


__all__ = [
    "batch_norm",
    "batch_norm_inference",
    "fused_batch_norm",
    "merge_moments",
    "moments",
    "normalize",
    "scale_and_shift",
    "sync_moments",
]
