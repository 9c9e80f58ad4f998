"""DICOM: studies in, identities kept, results out. The only room that imports pydicom, SimpleITK and highdicom."""
