"""What can go wrong through no fault of ours. Each reaches the user as one line and exit code 2.

SliceStreamError
├── StudyError        a DICOM folder or file that cannot be used
│   └── SeriesError   a series whose slices do not make one regular volume
├── AnnotationError   masks or tables that do not fit their study
├── ArtefactError     one of our own files, damaged, swapped or of another kind
│   └── ModelError    a model that is damaged or of another make
├── SplitError        a cohort that cannot be split
├── OptionError       a value given on the command line
├── TrainingError     one of the processes that train together, that ended before the end
├── OutputError       a place that cannot be written to
├── WorkflowError     a CWL or StreamFlow file that is not valid
│   └── BindingError  a StreamFlow file that would send identities off this machine
├── SiteError         a compute site that cannot be reached or used
└── ArchiveError      an image archive that cannot be reached, or that does not give or keep what it should

A message says where, what was found, what is needed and what to do next.
"""


class SliceStreamError(Exception):
    """Base of every error that is the input's or the machine's, not ours."""


class StudyError(SliceStreamError):
    """A DICOM folder or file cannot be used; `reason` is the word for it in manifests ("": not said)."""

    def __init__(self, text: str, *, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class SeriesError(StudyError):
    """The slices of a series do not make one regular volume."""


class AnnotationError(SliceStreamError):
    """Masks or tables do not fit their study."""


class ArtefactError(SliceStreamError):
    """One of our own files is damaged, swapped or of another kind."""


class ModelError(ArtefactError):
    """A model is damaged or of another make."""


class SplitError(SliceStreamError):
    """A cohort cannot be split."""


class OptionError(SliceStreamError):
    """A value given on the command line cannot be used."""


class TrainingError(SliceStreamError):
    """One of the processes that train together ended before the end."""


class OutputError(SliceStreamError):
    """A place cannot be written to."""


class WorkflowError(SliceStreamError):
    """A CWL or StreamFlow file is not valid."""


class BindingError(WorkflowError):
    """A StreamFlow file would send a step that sees identities off this machine."""


class SiteError(SliceStreamError):
    """A compute site cannot be reached or used; `stage` is the word for how far one came ("": not said)."""

    def __init__(self, text: str, *, stage: str = "") -> None:
        super().__init__(text)
        self.stage = stage


class ArchiveError(SliceStreamError):
    """An image archive cannot be reached, or does not give or keep what it should."""
