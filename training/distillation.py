"""Learning from a teacher: the loss of a student that is to say what a finished run says.

Hinton et al. 2015, arXiv 1503.02531: cross-entropy with the labels, and with the teacher's
probabilities at a raised temperature, which also say how sure it is. A model that is fine-tuned to
do with fewer tokens has its dense original to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import DistilBertForSequenceClassification, PreTrainedTokenizerFast

from training.errors import RunError
from training.model import label_names_of, load_checkpoint

TEMPERATURE = 2.0
TEACHER_SHARE = 0.5  # of the loss; the rest is the labels'


def load_teacher(
    run: Path, label_names: Sequence[str], tokenizer: PreTrainedTokenizerFast
) -> DistilBertForSequenceClassification:
    """The model of a finished run, frozen, in evaluation mode.

    Raises RunError where there is none, or it has other labels or another vocabulary than the
    student, whose token ids it will get.
    """
    teacher, its_tokenizer, _ = load_checkpoint(run)
    if label_names_of(teacher) != tuple(label_names):
        raise RunError(
            f"teacher {run} tells {', '.join(label_names_of(teacher))} apart, the data have the "
            f"labels {', '.join(label_names)}"
        )
    if its_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise RunError(f"teacher {run} has another vocabulary than the base; give another --base")
    return teacher.requires_grad_(False)


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
