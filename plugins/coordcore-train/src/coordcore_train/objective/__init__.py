"""Hidden states, an output head, labels and loss terms to one loss with per-part sums, in bounded memory.

The objective needs neither ms-swift nor a trainer:

    targets = make_targets(labels, vocab)                     # once per batch, on the CPU
    head = LinearHead(model.lm_head)
    output = objective(hidden_states, head, targets)          # hidden_states [B, T, H] from the decoder
    output.loss.backward()

`targets` says what is supervised, `heads` how logits are made, `objective` puts terms together; `streamed` and `dense`
are the two ways a chunk of positions goes through them, and `streaming` is the product neither of them may hold.
`in_forward` runs all of it inside the model's own forward, as DDP, FSDP and ZeRO need it.
"""

from coordcore_train.objective.heads import CallableHead, Head, LinearHead
from coordcore_train.objective.in_forward import loss_in_forward
from coordcore_train.objective.objective import Objective, ObjectiveOutput, Part
from coordcore_train.objective.targets import IGNORE, SCOPES, make_targets

__all__ = [
    "IGNORE",
    "SCOPES",
    "CallableHead",
    "Head",
    "LinearHead",
    "Objective",
    "ObjectiveOutput",
    "Part",
    "loss_in_forward",
    "make_targets",
]
