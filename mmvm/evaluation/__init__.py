"""What a trained model is worth: one file a measure, one way to walk over data (`encodings`)."""

from mmvm.evaluation.coherence import classifier_accuracy, coherence, summarise, train_classifier
from mmvm.evaluation.diagnostics import diagnostics
from mmvm.evaluation.encodings import encode_means
from mmvm.evaluation.errors import LogLikelihood, constant_error, imputation_error, log_likelihood, reconstruction_error
from mmvm.evaluation.information import (
    Rate,
    SharedInformation,
    factor_probes,
    kept,
    rate,
    shared_information,
    total_correlation,
)
from mmvm.evaluation.probe import linear_probe

__all__ = ["LogLikelihood", "Rate", "SharedInformation", "classifier_accuracy", "coherence", "constant_error",
           "diagnostics", "encode_means", "factor_probes", "imputation_error", "kept", "linear_probe",
           "log_likelihood", "rate", "reconstruction_error", "shared_information", "summarise", "total_correlation",
           "train_classifier"]
