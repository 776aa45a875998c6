"""The judgement of a scan, at step 41,213: a training that runs is watched, and a step that goes wrong is played again.

What a step computes is kept as a `Program`: the outermost calls of the model, the lines of the loss, references to the batch
and the random state. A program can be played in any precision, with other rows of the batch or other weights, op by op or not,
in this process or from a capsule in another one: sampled steps, trips, the search for the culprit, `stabdiag replay`.
"""
