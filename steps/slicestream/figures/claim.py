"""The items of CLAIM, for the model card, each with where its answer comes from.

Checklist for Artificial Intelligence in Medical Imaging, 2024 update: Tejani et al., Radiology: Artificial
Intelligence 2024;6(4):e240300. The items are in our words, from what we know of the list: nobody has compared them with
the published table line by line.
"""

from __future__ import annotations

# number, item, and either a key of the answers that a run can give or "" where no run can know it
ITEMS: tuple[tuple[int, str, str], ...] = (
    (1, "Title: a study of AI, and which technique", "technique"),
    (2, "Abstract", ""),
    (3, "Background, intended use and role", "intended_use"),
    (4, "Aims and hypotheses", ""),
    (5, "Prospective or retrospective", ""),
    (6, "Goal of the study", ""),
    (7, "Sources of the data", ""),
    (8, "Inclusion and exclusion criteria", "exclusion"),
    (9, "Preprocessing", "preprocessing"),
    (10, "Selection of subsets of the data", "subsets"),
    (11, "De-identification", "deidentification"),
    (12, "Missing data", "missing"),
    (13, "Image acquisition protocol", ""),
    (14, "Reference standard: how it was obtained", ""),
    (15, "Reference standard: why this one", ""),
    (16, "Reference standard: who annotated", ""),
    (17, "Annotation of the test set", ""),
    (18, "Variability within and between annotators", ""),
    (19, "How data were assigned to partitions", "assignment"),
    (20, "Level at which partitions are disjoint", "disjoint"),
    (21, "Intended sample size", ""),
    (22, "The model in detail", "model"),
    (23, "Software libraries and their versions", "software"),
    (24, "Initialization of the parameters", "initialization"),
    (25, "Training in detail", "training"),
    (26, "How the final model was selected", "selection"),
    (27, "Ensembling", "ensembling"),
    (28, "Metrics of performance", "metrics"),
    (29, "Measures of significance and uncertainty", "uncertainty"),
    (30, "Robustness or sensitivity analysis", "robustness"),
    (31, "Explainability", ""),
    (32, "Evaluation on internal data", "internal"),
    (33, "Evaluation on external data", "external"),
    (34, "Registration of a clinical trial", ""),
    (35, "Numbers of patients and examinations, included and excluded", "numbers"),
    (36, "Demographic and clinical characteristics by partition", ""),
    (37, "Performance with its uncertainty", "performance"),
    (38, "Diagnostic performance and its precision", "diagnostic"),
    (39, "Failure analysis", "failures"),
    (40, "Limitations", "limits"),
    (41, "Implications for practice", "implications"),
    (42, "Full protocol or more technical detail", ""),
    (43, "Availability of software, model and data", "availability"),
    (44, "Funding and the role of funders", ""),
)
