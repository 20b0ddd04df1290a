"""Learning from a teacher: the loss of a student that is to say what a finished run says.

Hinton et al. 2015, arXiv 1503.02531: cross-entropy with the labels, and with the teacher's
probabilities at a raised temperature, which also say how sure it is. A model that is fine-tuned to
do with fewer tokens has its dense original to learn from.

A student of the same depth and width, such as one whose feed-forward networks were narrowed, can
learn the teacher's hidden states too (Jiao et al. 2020, TinyBERT, arXiv 1909.10351, equation 8):
they go on teaching where the labels are known by heart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import DistilBertForSequenceClassification

from training.errors import RunError
from training.pruned_model import pruning_of

TEMPERATURE = 2.0
TEACHER_SHARE = 0.5  # of the loss; the rest is the labels'


def check_states(
    teacher: DistilBertForSequenceClassification, student: DistilBertForSequenceClassification
) -> None:
    """Raises RunError where the hidden states of the two cannot be compared one by one."""
    for size in ("n_layers", "dim"):
        theirs, ours = getattr(teacher.config, size), getattr(student.config, size)
        if theirs != ours:
            raise RunError(
                f"the teacher's {size} is {theirs}, the student's {ours}: their hidden states are "
                "not alike; leave --teacher-states out"
            )
    for name, model in (("teacher", teacher), ("student", student)):
        if pruning_of(model) is not None:
            raise RunError(
                f"the {name} drops tokens, so its hidden states are not those of all tokens: train "
                "without --prune and prune at export, or leave --teacher-states out"
            )


def states_loss(states: Sequence[Tensor], expected: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared difference of hidden states float [B, S, H] from the teacher's, over the tokens
    that `mask` [B, S] says are real, in units of the teacher's variance; summed over the layers."""
    real = mask.bool()
    parts = []
    for ours, theirs in zip(states, expected, strict=True):
        target = theirs[real].float()
        parts.append((ours[real].float() - target).square().mean() / target.var())
    return torch.stack(parts).sum()


def distillation_loss(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of logits [B, C] given the teacher's [B, C] and the labels int64 [B], in nats.

    The teacher's part is scaled by the temperature squared, so that its gradients keep their size.
    """
    hard = nn.functional.cross_entropy(logits.float(), labels)
    soft = nn.functional.kl_div(
        (logits.float() / TEMPERATURE).log_softmax(-1),
        (teacher_logits.float() / TEMPERATURE).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - TEACHER_SHARE) * hard + TEACHER_SHARE * TEMPERATURE**2 * soft
